"""Predictions that are masks and nothing else."""

import numpy as np
import pytest
from PIL import Image

from segwright.codecs.volume_file import write_volume
from segwright.core import Classes
from segwright.core.errors import FormatError
from segwright.core.grid import Grid
from segwright.evaluation.bare_masks import bare_masks

STREET = Classes.of(["sky", "road", "car"], is_thing=[False, False, True])
CELLS = Classes.of(["cell"], is_thing=[True])


def save(folder, name, values, dtype=np.uint8):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.array(values).astype(dtype)).save(folder / name)


def test_numbers_are_the_classes_of_the_truth(tmp_path):
    save(tmp_path, "a.png", [[0, 1], [2, 255]])
    save(tmp_path, "a_overlay.png", [[9, 9], [9, 9]])
    data = bare_masks(tmp_path, STREET)
    assert data.keys == ("a",) and data.classes.names == STREET.names
    assert data.load("a").truth.class_map().tolist() == [[0, 1], [2, -1]]


@pytest.mark.parametrize("high", [1, 128, 255])
def test_of_two_classes_any_number_is_the_second(tmp_path, high):
    save(tmp_path / "masks", "a.png", [[0, high]])
    data = bare_masks(tmp_path, CELLS)
    assert data.classes.names == ("background", "cell")
    assert data.load("a").truth.class_map().tolist() == [[0, 1]]


def test_smoothed_masks_count_by_the_nearest(tmp_path):
    steps = [0] * 20 + [30, 70] + [100] * 20 + [130, 170] + [200] * 20
    save(tmp_path, "a.png", [steps] * 9)
    class_map = bare_masks(tmp_path, STREET).load("a").truth.class_map()
    assert class_map[0].tolist() == [0] * 21 + [1] * 22 + [2] * 21
    wide = [0] * 20 + [100, 200] + [255] * 20
    save(tmp_path / "two", "a.png", [wide] * 9)
    assert bare_masks(tmp_path / "two", CELLS).load("a").truth.class_map()[0].tolist() == [0] * 21 + [1] * 21


def test_grey_palettes_count_by_what_is_shown(tmp_path):
    picture = Image.fromarray(np.array([[1, 0, 0]], np.uint8))
    picture.putpalette([255, 255, 255, 0, 0, 0])
    picture.save(tmp_path / "a.png")
    assert bare_masks(tmp_path, CELLS).load("a").truth.class_map().tolist() == [[0, 1, 1]]


def test_numbers_of_16_bits_are_objects(tmp_path):
    save(tmp_path, "a.png", [[0, 7, 900]], np.uint16)
    truth = bare_masks(tmp_path, CELLS).load("a").truth
    assert sorted(truth.instance_ids[truth.class_ids == 1].tolist()) == [7, 900]


def test_volumes_keep_their_grid(tmp_path):
    write_volume(tmp_path / "case.nii.gz", np.array([[[[0, 1, 2]]]], np.uint8), Grid((1, 1, 3), (2.0, 1.0, 1.0)))
    sample = bare_masks(tmp_path, STREET).load("case")
    assert sample.grid.spacing_mm == pytest.approx((2, 1, 1)) and sample.truth.class_map().tolist() == [[[0, 1, 2]]]


def test_photographs_and_empty_folders_are_no_masks(tmp_path):
    save(tmp_path, "a.jpg", [[0, 1]])
    assert bare_masks(tmp_path, STREET) is None and bare_masks(tmp_path / "none", STREET) is None
    save(tmp_path / "images", "a.png", [[0, 1]])
    assert bare_masks(tmp_path / "images", STREET) is None


def test_a_number_that_is_no_class_is_told(tmp_path):
    save(tmp_path, "a.png", [[0, 1, 3]])
    with pytest.raises(FormatError, match=r"a.png holds the number 3 at 1 of 3 pixels, but the truth, as no classes.json"):
        bare_masks(tmp_path, STREET).load("a")


def test_segments_are_read_by_their_names(tmp_path):
    organs = Classes.of(["background", "liver", "tumour"])
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 3 2 1\nencoding: raw\n"
    said = "Segment0_Name:=Tumour\nSegment0_LabelValue:=1\nSegment1_Name:=Liver\nSegment1_LabelValue:=2\n\n"
    (tmp_path / "a.seg.nrrd").write_bytes((header + said).encode() + bytes([0, 1, 2, 0, 0, 0]))
    data = bare_masks(tmp_path, organs)
    assert data[0].truth.class_map().tolist() == [[[0, 2, 1], [0, 0, 0]]]
