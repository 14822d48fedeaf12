import numpy as np

from segwright.codecs.image_writer import write_image, write_values
from segwright.formats import mask_folder
from segwright.inspection.unpaired_files import scan


def fill(root, images, masks):
    for name in images:
        write_image(root / "imgs" / name, np.zeros((1, 4, 4), np.uint8))
    for name in masks:
        write_values(root / "labels" / f"{name}.png", np.zeros((4, 4), np.uint8))


def test_pairs_are_those_of_the_reader(tmp_path):
    fill(tmp_path, ["a", "b/c_img", "d-image"], ["a_mask", "b/c", "d_gt"])
    files = scan(tmp_path)
    assert list(files.pairs) == list(mask_folder.read(tmp_path).keys) and not files.without_mask and not files.without_image
    assert files.pairs["b__c_img"][1].name == "c.png"


def test_what_lacks_its_partner(tmp_path):
    fill(tmp_path, ["a", "b", "c"], ["a", "d", "e_mask"])
    files = scan(tmp_path, drop=["c", "d"])
    assert list(files.pairs) == ["a"] and list(files.without_mask) == ["b"] and list(files.without_image) == ["e_mask"]


def test_what_is_no_such_folder(tmp_path):
    assert scan(tmp_path) is None
    fill(tmp_path, ["a"], ["a"])
    write_image(tmp_path / "images" / "a", np.zeros((1, 4, 4), np.uint8))
    assert scan(tmp_path) is None  # two folders of images
    fill(tmp_path / "twice", ["a"], ["a"])
    (tmp_path / "twice" / "imgs" / "a.jpg").write_bytes(b"x")
    assert scan(tmp_path / "twice") is None
