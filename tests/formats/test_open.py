"""Tests of the functions in formats/__init__.py."""

import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segwright.core import Dataset
from segwright.core.errors import FormatError, UnknownNameError
from segwright.data.splits import open_splits
from segwright.formats import mask_folder, open_dataset, readers, synthetic
from segwright.formats.resume_journal import UNFINISHED

MASK = np.array([[0, 1], [2, 2]], dtype=np.uint8)


def folder_of(root, *names, mask=MASK, below=""):
    for name in names:
        for kind in ("images", "masks"):
            (root / kind / below).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / kind / below / f"{name}.png")
    return root


# By hand


def test_the_format_is_recognised_or_named(tmp_path):
    folder_of(tmp_path, "a", "b")
    assert open_dataset(tmp_path).keys == open_dataset(str(tmp_path), "mask_folder").keys == ("a", "b")
    assert "mask_folder" in readers() and "image_file" not in readers()


def test_a_users_own_format(monkeypatch, tmp_path):
    module = types.ModuleType("mine.format")
    module.read = lambda path: mask_folder.read(path)
    monkeypatch.setitem(sys.modules, "mine", types.ModuleType("mine"))
    monkeypatch.setitem(sys.modules, "mine.format", module)
    assert isinstance(open_dataset(folder_of(tmp_path, "a"), "mine.format"), Dataset)


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (11, 1), (12, 2), (24, 4)])
def test_the_last_sixth_is_held_out_in_one_piece(tmp_path, count, held_out):
    train, val = open_splits(folder_of(tmp_path, *map(str, range(count))))
    assert val.keys == tuple(map(str, range(count)))[-held_out:]
    assert train.keys + val.keys == tuple(map(str, range(count)))


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "test"])
def test_subfolders_are_the_splits(tmp_path, name):
    folder_of(tmp_path / "train", "a", "b")
    folder_of(tmp_path / name, "c")
    train, val = open_splits(tmp_path)
    assert train.keys == ("train__a", "train__b") and val.keys == (f"{name}__c",) == (val[0].key,)
    assert open_dataset(tmp_path).keys == train.keys + val.keys


def test_subfolders_below_images_and_masks_are_the_splits(tmp_path):
    folder_of(tmp_path, "a", "b", below="train")
    folder_of(tmp_path, "c", below="val")
    train, val = open_splits(tmp_path)
    assert train.keys == ("train__a", "train__b") and val.keys == ("val__c",)


def test_a_train_folder_alone_and_a_val_elsewhere(tmp_path):
    folder_of(tmp_path / "data" / "train", "a", "b")
    assert open_splits(tmp_path / "data")[1].keys == ("train__b",)
    folder_of(tmp_path / "other", "c")
    train, val = open_splits(tmp_path / "data" / "train", tmp_path / "other")
    assert train.keys == ("a", "b") and val.keys == ("c",)


@pytest.mark.parametrize("larger", ["train", "val"])
def test_guessed_classes_are_made_equal(tmp_path, larger):
    folder_of(tmp_path / "train", "a", "b")
    folder_of(tmp_path / "val", "c")
    folder_of(tmp_path / larger, "d", mask=MASK + 3)
    train, val = open_splits(tmp_path)
    assert train.classes == val.classes == train[0].truth.classes == val[0].truth.classes
    assert len(train.classes) == 6


# By its messages


def test_unknown_formats_offer_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="no format 'mask_foldr', did you mean 'mask_folder'?"):
        open_dataset(tmp_path, "mask_foldr")
    with pytest.raises(UnknownNameError, match="no format 'image_file'"):
        open_dataset(tmp_path, "image_file")


def test_a_place_that_nothing_recognises(tmp_path):
    with pytest.raises(FormatError, match="nowhere does not exist; check the spelling"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FormatError, match="notes.txt is a file; give the folder"):
        open_dataset(tmp_path / "notes.txt")
    with pytest.raises(FormatError, match=r"is not laid out as a data set \(1 .txt\). Segwright reads\n.*"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("place", ["images", "masks", "images/0.png"])
def test_a_place_inside_a_data_set_is_answered_with_that(tmp_path, place):
    mask_folder.write(tmp_path / "data", synthetic.cells(2, shape=(8, 8)))
    inside = next((tmp_path / "data" / "images").iterdir()) if "/" in place else tmp_path / "data" / place
    with pytest.raises(FormatError, match=f"of the data set {tmp_path / 'data'}; give that one"):
        open_dataset(inside)
    assert len(open_dataset(tmp_path / "data")) == 2  # the remedy


def test_a_data_set_whose_writing_was_stopped(tmp_path):
    mask_folder.write(tmp_path / "data", synthetic.cells(2, shape=(8, 8)))
    (tmp_path / "data" / UNFINISHED).touch()
    for path in (tmp_path / "data", tmp_path / "data" / "masks"):
        with pytest.raises(FormatError, match="data is unfinished: writing it was stopped; call that command again"):
            open_dataset(path)


def test_two_formats_that_recognise_a_place(tmp_path, monkeypatch):
    twin = types.SimpleNamespace(matches=lambda path: True, read=mask_folder.read)
    monkeypatch.setattr("segwright.formats.readers", lambda: {"left": twin, "right": twin, "mask_folder": mask_folder})
    with pytest.raises(
        FormatError, match='can be read as left and as right; name one: --format left, or format = "left" in .*toml'
    ):
        open_dataset(folder_of(tmp_path, "a"))
    (tmp_path / "dataset.toml").write_text('format = "right"')
    assert open_dataset(tmp_path).keys == ("a",)
    (tmp_path / "dataset.toml").write_text('format = "evil.module"')
    with pytest.raises(UnknownNameError, match="dataset.toml: there is no format 'evil.module'"):
        open_dataset(tmp_path)


def test_whatever_a_reader_fails_with_names_the_place(tmp_path, monkeypatch):
    data = open_dataset(folder_of(tmp_path, "a", "b"))

    def fail(path):
        return replace(data, load=lambda key: [][1])

    monkeypatch.setattr(mask_folder, "read", fail)
    with pytest.raises(FormatError, match="sample 'a' cannot be read .IndexError: list index out of range.; it may be damaged"):
        open_dataset(tmp_path)[0]
    monkeypatch.setattr(mask_folder, "read", lambda path: {}["a"])
    with pytest.raises(FormatError, match="cannot be read .KeyError: 'a'.; it may be damaged: copy or export it again"):
        open_dataset(tmp_path)


def test_one_sample_cannot_be_split(tmp_path):
    with pytest.raises(FormatError, match="holds 1 sample, two are needed to train and to validate; add more"):
        open_splits(folder_of(tmp_path, "a"))


def test_classes_that_differ(tmp_path):
    folder_of(tmp_path / "train", "a")
    folder_of(tmp_path / "val", "b")
    (tmp_path / "val" / "classes.json").write_text(json.dumps(["x", "y", "z"]))
    with pytest.raises(
        FormatError, match="has the classes class_0, .* x, y, z .*put one classes.json into the folder above both"
    ):
        open_splits(tmp_path)
    (tmp_path / "val" / "classes.json").rename(tmp_path / "classes.json")
    assert open_splits(tmp_path)[0].classes.names == ("x", "y", "z")


def test_classes_that_only_begin_alike_are_not_guessed_equal(tmp_path):
    for part, names in (("train", ["a", "b", "c"]), ("val", ["a", "b", "c", "d"])):
        folder_of(tmp_path / part, "one")
        (tmp_path / part / "classes.json").write_text(json.dumps(names))
    with pytest.raises(FormatError, match="put one classes.json"):
        open_splits(tmp_path)


def test_camvid(shared_data):
    train, val = open_splits(shared_data / "camvid")
    assert (len(train), len(val)) == (367, 101) and train.classes == val.classes
