import os

import pytest

from segwright.core.errors import FormatError
from segwright.formats.image_index import ImageIndex, found, images_below, natural, safe_key, split_of


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_images_are_listed_in_natural_order(tmp_path):
    touch(tmp_path, "b/frame_10.png", "b/frame_9.JPG", "a.tif", "notes.txt", ".hidden.png", ".git/x.png")
    assert [stem for stem, _ in images_below(tmp_path)] == ["a", "b/frame_9", "b/frame_10"]
    assert natural("a9") < natural("a10")


def test_an_image_is_found_by_its_name_or_by_the_end_of_its_path(tmp_path):
    index = ImageIndex(touch(tmp_path, "train/1.jpg", "val/1.jpg", "val/2.jpg", "masks/2.jpg"))
    assert index.find("2.jpg") == tmp_path / "val" / "2.jpg"  # a folder of masks gives way
    assert index.find("val/1.jpg") == index.find("https://example.org/val/1.jpg") == tmp_path / "val" / "1.jpg"
    assert index.find(r"C:\data\train\1.jpg") == tmp_path / "train" / "1.jpg"
    assert index.find("3.jpg") is index.find("") is None


def test_a_mask_is_no_image(tmp_path):
    index = ImageIndex(touch(tmp_path / "train", "masks/1.png", "annotations/val/2.png", "2.png"))
    assert index.find("1.png") is index.find("val/1.png") is None
    assert index.find("masks/1.png") == tmp_path / "train" / "masks" / "1.png"  # said so
    assert index.find("val/2.png") == index.find("train/2.png") == tmp_path / "train" / "2.png"


def test_no_name_leads_out_of_the_folder(tmp_path):
    touch(tmp_path, "secret.png", "data/here.png")
    index = ImageIndex(tmp_path / "data")
    assert index.find("../secret.png") is index.find(str(tmp_path / "secret.png")) is None


def test_two_files_that_fit_equally(tmp_path):
    index = ImageIndex(touch(tmp_path, "a/1.jpg", "b/1.jpg"))
    with pytest.raises(FormatError, match="'1.jpg' may be .*a.1.jpg or .*b.1.jpg; rename or move one"):
        index.find("1.jpg")


def test_keys_and_their_splits():
    assert safe_key("a/b:c") == "a__b_c" and safe_key("..") == "_"
    assert safe_key(os.fsdecode(b"B\xe4r")) == "B_r"  # from a computer that wrote Latin-1
    assert split_of("train__a__b") == ("train", "a__b") and split_of("Val__x") == ("Val", "x")
    assert split_of("trains__a") == ("", "trains__a") and split_of("train__") == ("", "train__") and split_of("a") == ("", "a")


def test_what_lies_in_a_folder(tmp_path):
    assert found(tmp_path) == "it is empty"
    assert found(touch(tmp_path, "a.jpg", "b.jpg", "c/d.png")) == "2 .jpg and the folder c/"
