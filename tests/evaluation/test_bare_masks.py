"""Predictions that are masks and nothing else."""

import numpy as np
import pytest
from PIL import Image

from segwright.codecs.volume_file import write_volume
from segwright.core import Classes
from segwright.core.errors import FormatError
from segwright.core.grid import Grid
from segwright.evaluation.bare_masks import bare_masks, bare_truth

STREET = Classes.of(["sky", "road", "car"], is_thing=[False, False, True])
CELLS = Classes.of(["cell"], is_thing=[True])


def save(folder, name, values, dtype=np.uint8):
    folder.mkdir(exist_ok=True)
    Image.fromarray(np.array(values).astype(dtype)).save(folder / name)


def test_numbers_are_the_classes_of_the_truth(tmp_path):
    save(tmp_path, "a.png", [[0, 1], [2, 255]])
    save(tmp_path, "a_overlay.png", [[9, 9], [9, 9]])
    save(tmp_path, "a_uncertainty.tif", [[9, 9], [9, 9]])
    save(tmp_path, "a_disagreement.tif", [[9, 9], [9, 9]])
    data = bare_masks(tmp_path, STREET)
    assert data.keys == ("a",) and data.classes.names == STREET.names
    assert data.load("a").truth.class_map().tolist() == [[0, 1], [2, -1]]


def test_numbers_of_regions_lie_in_several(tmp_path):
    classes = Classes.of(["whole", "core"], regions=[[1, 3], [3]])
    save(tmp_path, "a.png", [[0, 1, 3, 255]])
    [found] = bare_masks(tmp_path, classes)
    assert found.truth.classes.names == classes.names
    assert found.truth.masks()[:, 0].astype(int).tolist() == [[0, 1, 1, 0], [0, 0, 1, 0]]
    assert found.truth.planes[0, 0, 3] == -1


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


def test_segments_are_read_by_their_names(tmp_path, caplog):
    organs = Classes.of(["background", "liver", "tumour"])
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 3 2 1\nencoding: raw\n"
    said = "Segment0_Name:=Tumour\nSegment0_LabelValue:=1\nSegment1_Name:=Liver\nSegment1_LabelValue:=2\n\n"
    (tmp_path / "a.seg.nrrd").write_bytes((header + said).encode() + bytes([0, 1, 2, 0, 0, 0]))
    data = bare_masks(tmp_path, organs)
    assert data[0].truth.class_map().tolist() == [[[0, 2, 1], [0, 0, 0]]]
    said = "Segment2_Name:=Vessel\nSegment2_LabelValue:=3\n" + said  # no voxel shows it
    (tmp_path / "a.seg.nrrd").write_bytes((header + said).encode() + bytes([0, 1, 2, 0, 0, 0]))
    assert bare_masks(tmp_path, organs)[0].truth.class_map().tolist() == [[[0, 2, 1], [0, 0, 0]]]
    (tmp_path / "a.seg.nrrd").write_bytes((header + said).encode() + bytes([0, 1, 2, 3, 0, 0]))
    with pytest.raises(FormatError, match="names a segment 'Vessel', but the classes are background, liver, tumour"):
        bare_masks(tmp_path, organs)[0]
    (tmp_path / "a.seg.nrrd").write_bytes((header + said).encode() + bytes([0, 1, 2, 0, 0, 0]))
    data = bare_masks(tmp_path, Classes.of(["class_0", "class_1", "class_2", "class_3"]))
    assert data[0].truth.class_map().tolist() == [[[0, 1, 2], [0, 0, 0]]]
    assert "names 'Tumour', 'Liver', 'Vessel', no class of the truth: its numbers count" in caplog.text


# Of a truth


def test_a_truth_alone_has_the_numbers_of_both_sides(tmp_path):
    save(tmp_path / "truth", "a.tif", [[0, 1], [1, 1]])
    save(tmp_path / "found", "a.png", [[0, 1], [3, 1]])
    truth = bare_truth(tmp_path / "truth", tmp_path / "found")
    assert truth.keys == ("a",) and truth.classes.names == ("class_0", "class_1", "class_2", "class_3")
    assert bare_truth(tmp_path / "truth", tmp_path / "elsewhere").classes.names == ("background", "foreground")


def test_black_and_white_stays_so_beside_other_numbers(tmp_path):
    save(tmp_path / "truth", "a.png", [[0, 255]])
    save(tmp_path / "found", "a.png", [[0, 3], [1, 2]])
    truth = bare_truth(tmp_path / "truth", tmp_path / "found")
    assert truth.load("a").truth.class_map().tolist() == [[0, 1]]


@pytest.mark.parametrize("place", ["masks", "labels", "gt", "city/aachen"])
def test_masks_may_lie_in_a_folder_of_the_folder(tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    save(tmp_path / place, "a.png", [[0, 1, 2]])
    (tmp_path / "classes.json").write_text('["sky", "road", "car"]')
    truth = bare_truth(tmp_path, tmp_path / "elsewhere")
    assert truth.keys == (("city__aachen__a",) if "/" in place else ("a",)) and truth[0].truth.class_map().tolist() == [
        [0, 1, 2]
    ]
    assert "/" in place or truth.classes.names == ("sky", "road", "car")  # from the folder above the masks


def test_black_and_white_jpegs_are_a_truth(tmp_path):
    save(tmp_path, "a.jpg", np.kron([[0, 255]], np.ones((8, 8))))
    assert np.unique(bare_truth(tmp_path, tmp_path)[0].truth.class_map()).tolist() == [0, 1]


@pytest.mark.parametrize("place", ["labelsTs", "predicted"])
def test_nnu_net_names_the_numbers(tmp_path, place):
    (tmp_path / place).mkdir()
    said = '{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}'
    (tmp_path / (f"{place}/dataset.json" if place == "predicted" else "dataset.json")).write_text(said)
    write_volume(tmp_path / place / "case.nii.gz", np.array([[[[0, 1, 1]]]], np.uint8), Grid((1, 1, 3)))
    truth = bare_truth(tmp_path / place, tmp_path)
    assert truth.classes.names == ("background", "liver") and truth[0].truth.class_map().tolist() == [[[0, 1, 1]]]


def test_one_file_is_one_mask(tmp_path):
    save(tmp_path, "a.png", [[0, 1, 2]])
    write_volume(tmp_path / "case.nii.gz", np.array([[[[0, 1, 2]]]], np.uint8), Grid((1, 1, 3)))
    assert bare_truth(tmp_path / "a.png", tmp_path).keys == ("a",)
    assert bare_truth(tmp_path / "case.nii.gz", tmp_path).keys == ("case",)
    assert bare_masks(tmp_path / "a.png", STREET, key="b").load("b").truth.class_map().tolist() == [[0, 1, 2]]
