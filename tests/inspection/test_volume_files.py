"""A zoo of broken volumes: each disease by its name and no other, after its remedy no longer, and nothing on a healthy set."""

import gzip
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from segwright.codecs.volume_file import write_volume
from segwright.core import Grid
from segwright.formats import open_dataset
from segwright.inspection.finding import MEANING
from segwright.inspection.fixes import write_config
from segwright.inspection.inspect import inspect
from segwright.inspection.volume_files import about_volumes

pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")

COUNT, SHAPE = 30, (3, 12, 16)  # fewer samples are a note of their own
GRID = Grid(SHAPE, (1.0, 1.0, 1.0))


def labels(index):
    """0, 1 and 2 in boxes."""
    mask = np.zeros(SHAPE, np.int16)
    mask[:, 2:9, 2 : 6 + index % 3], mask[1:, 4:9, 8:14] = 1, 2
    return mask


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    root = tmp_path_factory.mktemp("healthy")
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        write_volume(root / f"images/v{index:02}.nii.gz", rng.integers(0, 999, (1, *SHAPE)).astype(np.int16), GRID)
        write_volume(root / f"masks/v{index:02}.nii.gz", labels(index)[None], GRID)
    return root


@pytest.fixture
def root(healthy, tmp_path):
    return Path(shutil.copytree(healthy, tmp_path / "volumes"))


def each_mask(root, change):
    for index in range(COUNT):
        array = change(labels(index))
        write_volume(root / f"masks/v{index:02}.nii.gz", array if array.ndim == 4 else array[None], GRID)


def in_header(path, offset, form, *values):
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(gzip.compress(bytes(data)))


def rounded(root):
    each_mask(root, lambda mask: (mask * 16_383).astype(np.int16))
    for path in (root / "masks").iterdir():
        in_header(path, 112, "<2f", 1 / 16_383, 0)


def negative(root):
    each_mask(root, lambda mask: np.where(np.arange(16) < 1, -1, mask).astype(np.int16))


def repeated(root):
    each_mask(root, lambda mask: np.repeat(mask[None], 3, axis=0))


def micrometres(root):
    for path in (*(root / "images").iterdir(), *(root / "masks").iterdir()):
        in_header(path, 123, "<B", 3)


def thin(root):
    for folder in ("images", "masks"):
        array = labels(0)[:1] if folder == "masks" else np.arange(192, dtype=np.int16).reshape(1, 12, 16)
        write_volume(root / folder / "v04.nii.gz", array[None], Grid((1, 12, 16), (1.0, 1.0, 1.0)))


def named(root, *spellings):
    """The masks as .seg.nrrd, which call the segments by these names and numbers in turn."""
    for index in range(COUNT):
        (root / f"masks/v{index:02}.nii.gz").unlink()
        said = spellings[index % len(spellings)]
        number_of = np.array([0, *(number for _, number in said)], np.uint8)
        header = "NRRD0004\ntype: uint8\ndimension: 3\nspace: LPS\nsizes: 16 12 3\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
        header += "space origin: (0,0,0)\nencoding: raw\n"
        for place, (name, number) in enumerate(said):
            header += f"Segment{place}_Name:={name}\nSegment{place}_LabelValue:={number}\n"
        (root / f"masks/v{index:02}.seg.nrrd").write_bytes(f"{header}\n".encode() + number_of[labels(index)].tobytes())


def swapped(root):
    named(root, (("Liver", 1), ("Tumor", 2)), (("Liver", 2), ("Tumor", 1)))


def spelt(root):
    named(root, (("Liver", 1), ("Tumor", 2)), (("liver", 1), ("Tumor", 2)))


def off_by_one(root):
    each_mask(root, lambda mask: mask + np.int16(1))


def scattered(root):
    each_mask(root, lambda mask: mask * np.int16(40))


def elsewhere(root):
    write_volume(root / "masks/v03.nii.gz", labels(3)[None], Grid(SHAPE, (1.0, 1.0, 2.0)))


def another_size(root):
    write_volume(root / "masks/v03.nii.gz", labels(3)[None, :2], Grid((2, 12, 16), (1.0, 1.0, 1.0)))


def no_mask(root):
    (root / "masks/v03.nii.gz").unlink()


GOES, STAYS = "goes", "stays"
ZOO = [
    (rounded, "rounded-numbers", "note", STAYS),
    (negative, "negative-numbers", "warning", GOES),
    (repeated, "repeated-masks", "note", STAYS),
    (micrometres, "other-units", "note", STAYS),
    (thin, "one-slice", "note", STAYS),
    (swapped, "numbers-by-file", "note", STAYS),
    (spelt, "spellings", "note", STAYS),
    (off_by_one, "off-by-one", "warning", GOES),
    (scattered, "scattered-numbers", "warning", GOES),
    (elsewhere, "affine-mismatch", "error", GOES),
    (another_size, "size-mismatch", "error", GOES),
    (no_mask, "missing-partner", "error", GOES),
]


@pytest.mark.parametrize(("make_ill", "name", "level", "after"), ZOO, ids=[entry[0].__name__ for entry in ZOO])
def test_each_disease_by_its_name_and_after_its_remedy(root, make_ill, name, level, after):
    make_ill(root)
    report = inspect(root)
    found = {finding.name: finding.level for finding in report.findings if finding.name != "few-samples"}
    assert found == {name: level} and name in MEANING
    changes = write_config(report).changes
    assert bool(changes) == (after == GOES)
    again = [finding.name for finding in inspect(root).findings if finding.name != "few-samples"]
    assert again == ([] if after == GOES else [name])
    assert len([*open_dataset(root)]) == COUNT - (level == "error")  # each sample can be read


def test_a_healthy_set_has_no_finding(root):
    assert inspect(root).findings == ()
    named(root, (("Liver", 1), ("Tumor", 2)))
    assert inspect(root).findings == ()


def test_the_numbers_of_a_swap_do_not_matter(root):
    before = [sample.truth.class_map() for sample in open_dataset(root)]
    swapped(root)
    data = open_dataset(root)
    assert all(np.array_equal(sample.truth.class_map(), one) for sample, one in zip(data, before, strict=True))


def test_files_that_cannot_be_read_are_told_elsewhere(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"damaged")
    (tmp_path / "a.nrrd").write_bytes(b"damaged")
    assert about_volumes({"a": (tmp_path / "a.nii.gz", tmp_path / "a.nrrd"), "b": (tmp_path / "a.png", tmp_path / "b")}) == []
