import numpy as np
import pytest

from segwright.inspection.adjacent_tiles import about_tiles, touching, touching_borders
from segwright.inspection.sample_scan import SampleScan, border_lines
from segwright.inspection.split_leakage import Together


def spots(seed, shape):
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    picture = rng.normal(0, 1, shape)
    for _ in range(shape[0] * shape[1] // 80):
        row, column, size = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(2.5, 6)
        picture += rng.uniform(50, 120) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * size**2))
    return picture.astype(np.float32)


def look(key, picture):
    return SampleScan(
        key=key, part="", shape=picture.shape, channels=1, dtype="float32", scale=1.0, step=None,
        thumb=np.zeros((32, 32), np.float32), digest=picture.tobytes(), borders=border_lines(picture),
    )  # fmt: skip


@pytest.fixture(scope="module")
def field():
    picture = spots(0, (200, 300))
    return [
        look(f"r{row}c{column}", picture[100 * row :, 100 * column :][:100, :100]) for row in range(2) for column in range(3)
    ]


def test_by_hand(field):
    assert set(touching(field)) == {
        *(("r0c0", "r0c1"), ("r0c1", "r0c2"), ("r1c0", "r1c1"), ("r1c1", "r1c2")),
        *(("r0c0", "r1c0"), ("r0c1", "r1c1"), ("r0c2", "r1c2")),
    }


def test_others_do_not_touch(field):
    others = [look(f"k{seed}", spots(seed, (100, 100))) for seed in range(1, 30)]
    assert touching(others) == []
    pairs = touching([*field, *others])
    assert len(pairs) >= 6 and all(first.startswith("r") and second.startswith("r") for first, second in pairs)


def test_what_has_no_structure_fits_nothing():
    ramp = np.add.outer(np.arange(100.0), np.arange(100.0)).astype(np.float32)
    flat = [look(f"f{i}", np.full((100, 100), i, np.float32)) for i in range(5)]
    layout = [look(f"s{i}", ramp + np.random.default_rng(i).normal(0, 2, ramp.shape).astype(np.float32)) for i in range(20)]
    assert touching(flat) == [] and touching(layout) == []  # sky above road is alike everywhere
    assert touching([look("a", spots(0, (200, 90))[:, :45]), look("b", spots(0, (90, 90))[:, 45:])]) == []


def test_law_a_border_fits_its_own_continuation(field):
    picture = spots(3, (200, 100))
    first, second = picture[:, 48:50].T[None, ::-1], picture[:, 50:52].T[None]
    noise = np.stack([spots(seed, (2, 200)) for seed in range(4, 12)])
    assert touching_borders(np.concatenate([first, noise[:4]]), np.concatenate([noise[4:5], second, noise[5:]])) == [(0, 1)]
    assert touching_borders(first, second) == []  # a single image


def test_findings_and_groups(field):
    parts = {look.key: "train" if look.key.startswith("r0") else "val" for look in field}
    (finding,) = about_tiles(field, Together(parts))
    assert finding.name == "touching-tiles-across-splits" and finding.level == "warning" and len(finding.fix.groups) == 1
    assert finding.numbers["tiles"] == {"train": 3, "val": 3}
    assert about_tiles(field, Together(parts, known=finding.fix.groups)) == []
    (within,) = about_tiles(field, Together(dict.fromkeys(parts, "train")))
    assert within.name == "touching-tiles" and within.level == "note"
    assert about_tiles(field, Together(parts, clips=[list(parts)])) == []
