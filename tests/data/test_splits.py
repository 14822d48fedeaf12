"""What is held out, in folds too, and that what was decoded is shared."""

from dataclasses import replace

import pytest

from segwright.core import Classes
from segwright.core.errors import FormatError, SettingError
from segwright.data import splits
from segwright.data.splits import cut, keys_of, open_folds, open_splits, remembered
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


def test_folds_hold_out_each_sample_once_whatever_the_groups():
    keys = [f"k{n:02d}" for n in range(20)]
    scattered = [keys[0::4], keys[1::8], [keys[2], keys[19]]]  # over nearly all folds
    held_out = [cut(keys, scattered, (number, 5))[1] for number in range(5)]
    assert sorted(sum(held_out, [])) == keys
    for group in scattered:
        assert [set(group) <= set(part) for part in held_out].count(True) == 1


def test_folds_that_groups_leave_empty_are_told_and_fewer_work():
    groups = [["a", "b", "c"], ["d", "e", "f"]]
    with pytest.raises(SettingError, match="of 3 folds 1 would be empty, as groups .* ask for fewer folds, at most 2"):
        cut(list("abcdef"), groups, (0, 3))
    assert cut(list("abcdef"), groups, (1, 2)) == (["a", "b", "c"], ["d", "e", "f"])


@pytest.mark.parametrize("fold", [(5, 5), (-1, 5), (0, 1), (0, 7)])
def test_folds_that_cannot_be_are_refused(fold):
    with pytest.raises(SettingError, match="of 6 samples; ask for 2 to 6 folds|counted from 0: give 0 to"):
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


def test_all_folds_are_those_that_are_opened_one_by_one_and_share_what_was_decoded(data):
    (data / "dataset.toml").write_text('groups = [["train__cells_0000", "train__cells_0001", "val__cells_0000"]]\n')
    folds = open_folds(data, 3)
    for number, fold in enumerate(folds):
        alone = open_splits(data, fold=(number, 3))
        assert (fold.train.keys, fold.val.keys) == (alone.train.keys, alone.val.keys)
    held_out = folds[0].val.keys[0]
    assert folds[0].val.load(held_out) is folds[1].train.load(held_out)


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


@pytest.mark.parametrize("count", [-3, 0, 1, 7])
def test_so_many_folds_that_cannot_be_are_refused(data, count):
    with pytest.raises(SettingError, match=f"{count} folds were asked for, of 6 samples; ask for 2 to 6 folds"):
        open_folds(data, count)


def test_validating_on_what_is_trained_is_refused_where_it_is_all_and_told_where_it_is_some(data, tmp_path, caplog):
    for val in (data / "val", data, data / "train" / ".." / "val"):
        with pytest.raises(SettingError, match=r"all \d images of .*, to validate with, are among those .* leave it out"):
            open_splits(data, val)
    assert len(open_splits(data).val) == 2  # what the message advises
    mask_folder.write(tmp_path / "other", synthetic.cells(2, shape=(16, 16), seed=3))
    (tmp_path / "other" / "images" / "cells_0000.png").unlink()
    (tmp_path / "other" / "images" / "cells_0000.png").symlink_to(data / "train" / "images" / "cells_0000.png")
    assert len(open_splits(data / "train", tmp_path / "other").val) == 2
    assert "1 of 2 images to validate with, such as 'cells_0000', are trained with too" in caplog.text
