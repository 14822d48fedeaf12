"""What is held out, in folds too, and that what was decoded is shared."""

from dataclasses import replace

import pytest

from segwright.core import Classes
from segwright.core.errors import FormatError, SettingError
from segwright.data import splits
from segwright.data.splits import cut, keys_of, open_splits, remembered
from segwright.formats import mask_folder, synthetic


def test_the_last_sixth_is_held_out_and_one_at_least():
    assert cut(list("abcdefghijklm"), ()) == (list("abcdefghijk"), ["l", "m"])
    assert cut(["a", "b"], ()) == (["a"], ["b"])


def test_folds_hold_out_each_sample_once():
    keys = [f"k{n}" for n in range(13)]
    held_out = [cut(keys, (), (number, 5))[1] for number in range(5)]
    assert sorted(sum(held_out, [])) == sorted(keys) and {len(part) for part in held_out} == {2, 3}
    for number in range(5):
        train, val = cut(keys, (), (number, 5))
        assert sorted(train + val) == sorted(keys)


def test_groups_stay_together_in_folds():
    train, val = cut(list("abcdef"), [["b", "c", "d"]], (0, 3))
    assert val == ["a"] and set(train) == set("bcdef")  # two thirds of the group lie outside of the fold a, b


@pytest.mark.parametrize("fold", [(5, 5), (-1, 5), (0, 1), (0, 7)])
def test_folds_that_cannot_be_are_refused(fold):
    with pytest.raises(SettingError, match="there are 6 samples; give a number from 0"):
        cut(list("abcdef"), (), fold)


def test_parts_are_found_by_their_names():
    assert keys_of(["val__a", "train__b", "train__c"], ("train", "training")) == ["train__b", "train__c"]
    assert keys_of(["a", "b"], ("train",)) == []


@pytest.fixture
def data(tmp_path):
    mask_folder.write(tmp_path / "train", synthetic.cells(4, shape=(16, 16), seed=1))
    mask_folder.write(tmp_path / "val", synthetic.cells(2, shape=(16, 16), seed=2))
    return tmp_path


def test_parts_of_the_data_are_used_and_folds_are_cut_from_all(data):
    opened = open_splits(data)
    assert [len(opened.train), len(opened.val)] == [4, 2] and all(key.startswith("val__") for key in opened.val.keys)
    folded = open_splits(data, fold=(0, 3))
    assert [len(folded.train), len(folded.val)] == [4, 2] and all(key.startswith("train__") for key in folded.val.keys)
    apart = open_splits(data / "train", data / "val")
    assert [len(apart.train), len(apart.val)] == [4, 2]
    with pytest.raises(SettingError, match="a fold is cut from one data set: leave one of them out"):
        open_splits(data / "train", data / "val", fold=(0, 2))


def test_what_was_decoded_is_remembered_as_memory_allows(data, monkeypatch):
    opened = remembered(open_splits(data))
    assert opened.train[0] is opened.train[0]
    monkeypatch.setattr(splits, "CACHE_BYTES", 0)
    opened = remembered(open_splits(data))
    assert opened.train[0] is not opened.train[0]


def test_keys_of_both_parts_do_not_meet(data):
    apart = remembered(open_splits(data / "train", data / "val"))
    assert apart.train.keys[0] == apart.val.keys[0]  # both count from the same number
    assert (apart.train[0].image != apart.val[0].image).any()


def test_one_sample_is_too_few(tmp_path):
    mask_folder.write(tmp_path / "one", synthetic.cells(1, shape=(16, 16)))
    with pytest.raises(FormatError, match="holds 1 sample, two are needed"):
        open_splits(tmp_path / "one")


def test_other_classes_are_refused(data, tmp_path):
    other = synthetic.cells(2, shape=(16, 16))
    classes = Classes.of(["this", "that"])
    renamed = (replace(sample, truth=replace(sample.truth, classes=classes)) for sample in other)
    mask_folder.write(tmp_path / "other", replace(other, classes=classes, load=dict(zip(other.keys, renamed, strict=True)).get))
    with pytest.raises(FormatError, match="put one classes.json into the folder above both"):
        open_splits(data / "train", tmp_path / "other")
