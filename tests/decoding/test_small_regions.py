"""Small holes and islands. Axes: H, W."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.small_regions import without_small_holes, without_small_islands

GOLDEN = Path(__file__).parents[1] / "golden" / "sam_amg_a"


def runs_of(mask: np.ndarray) -> np.ndarray:
    return MaskRuns.of_map(mask.astype(np.int32), 1)[0]


def mask_of(runs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return MaskRuns.of([runs]).painted(shape) > 0


def without_holes(mask: np.ndarray, area: int) -> np.ndarray:
    """The slow twin."""
    count, regions, facts, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=8)
    small = [n for n in range(1, count) if facts[n, cv2.CC_STAT_AREA] < area]
    return mask | np.isin(regions, small)


def without_islands(mask: np.ndarray, area: int) -> np.ndarray:
    """The slow twin."""
    count, regions, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    sizes = facts[1:, cv2.CC_STAT_AREA]
    large = [n for n in range(1, count) if sizes[n - 1] >= area] or [1 + int(sizes.argmax())]
    return np.isin(regions, large)


def test_by_hand():
    mask = np.array([[1, 1, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0]], bool)
    filled = mask_of(without_small_holes(runs_of(mask), mask.shape, 2), mask.shape)
    assert filled.astype(int).tolist() == [[1, 1, 1, 0, 1], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    alone = mask_of(without_small_islands(runs_of(mask), 2), mask.shape)
    assert alone.astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0]]


def test_corners_join():
    mask = np.eye(4, dtype=bool)
    assert np.array_equal(mask_of(without_small_islands(runs_of(mask), 4), (4, 4)), mask)
    assert np.array_equal(without_small_holes(runs_of(~mask), (4, 4), 4), runs_of(~mask))


def test_the_largest_part_stays_and_nothing_stays_nothing():
    mask = np.array([[1, 0, 1, 1, 0, 1]], bool)
    assert mask_of(without_small_islands(runs_of(mask), 99), (1, 6)).astype(int).tolist() == [[0, 0, 1, 1, 0, 0]]
    nothing = np.zeros((0, 3), np.int32)
    assert len(without_small_islands(nothing, 5)) == 0 and len(without_small_holes(nothing, (3, 3), 5)) == 0
    assert mask_of(without_small_holes(nothing, (3, 3), 10), (3, 3)).all()  # all of the image is a small hole


def test_equals_the_authors():
    arrays = load_file(GOLDEN.with_suffix(".safetensors"))
    mask, area = arrays["in/mask"], json.loads(GOLDEN.with_suffix(".json").read_text())["config"]["small_area"]
    runs = runs_of(mask)
    for name, mended in (
        ("holes", without_small_holes(runs, mask.shape, area)),
        ("islands", without_small_islands(runs, area)),
    ):
        found = mask_of(mended, mask.shape)
        assert np.array_equal(found, arrays[f"out/small_{name}"].astype(bool))
        assert bool(arrays[f"out/small_{name}_changed"][0]) == (not np.array_equal(found, mask))


@pytest.mark.parametrize("share", [0.15, 0.35, 0.5, 0.7, 0.95])
def test_equals_labelled_components(share):
    random = np.random.default_rng(int(100 * share))
    for shape in ((20, 31), (1, 40), (40, 1)):
        mask = random.random(shape) < share
        mask[0, 0] = True
        for area in (1, 3, 8, 60):
            assert np.array_equal(mask_of(without_small_holes(runs_of(mask), shape, area), shape), without_holes(mask, area))
            assert np.array_equal(mask_of(without_small_islands(runs_of(mask), area), shape), without_islands(mask, area))


def test_mending_twice_is_mending_once():
    mask = np.random.default_rng(0).random((30, 30)) < 0.6
    once = without_small_islands(without_small_holes(runs_of(mask), (30, 30), 6), 6)
    assert np.array_equal(
        without_small_holes(once, (30, 30), 6), without_small_holes(runs_of(mask_of(once, (30, 30))), (30, 30), 6)
    )
    assert np.array_equal(without_small_islands(once, 6), once)
