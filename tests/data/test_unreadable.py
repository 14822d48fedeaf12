"""Samples that cannot be read are named and left out, and nothing else is."""

import logging

import pytest

from segwright.core.errors import UsageError
from segwright.data.splits import open_folds, open_splits
from segwright.data.unreadable import unreadable_keys
from segwright.formats import mask_folder, synthetic


@pytest.fixture
def data(tmp_path):
    for part, count in (("train", 4), ("val", 2)):
        mask_folder.write(tmp_path / "data" / part, synthetic.cells(count, shape=(16, 24), seed=count))
    return tmp_path / "data"


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_image_and_a_damaged_mask_are_named_with_their_reason(data, caplog):
    assert unreadable_keys(data) == ()
    cut_short(data / "train" / "images" / "cells_0001.png")
    cut_short(data / "val" / "masks" / "cells_0000.png")
    with caplog.at_level(logging.WARNING):
        assert unreadable_keys(data) == ("train__cells_0001", "val__cells_0000")
    told = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("sample 'train__cells_0001' is left out: ") and "cells_0001.png" in text for text in told)


def test_what_is_skipped_is_in_no_part_and_in_no_fold(data):
    skip = ("train__cells_0001", "val__cells_0000")
    train, val = open_splits(data, skip=skip)
    assert train.keys == ("train__cells_0000", "train__cells_0002", "train__cells_0003") and val.keys == ("val__cells_0001",)
    for number, fold in enumerate(open_folds(data, 2, skip=skip)):
        alone = open_splits(data, fold=(number, 2), skip=skip)
        assert (fold.train.keys, fold.val.keys) == (alone.train.keys, alone.val.keys)
        assert not {*fold.train.keys, *fold.val.keys} & {*skip} and len(fold.train) + len(fold.val) == 4
    apart = open_splits(data / "train", data / "val", skip=("cells_0001",))  # a key that both have
    assert [len(part) for part in apart] == [3, 1]


def test_both_of_two_data_sets_are_read(data):
    cut_short(data / "val" / "images" / "cells_0001.png")
    assert unreadable_keys(data / "train", data / "val") == ("cells_0001",)


def test_where_nothing_can_be_read_that_is_said(data):
    for path in data.rglob("images/*"):
        cut_short(path)
    with pytest.raises(UsageError, match="none of the 6 samples in .*data can be used, such as 'train__cells_0000' .*inspect"):
        unreadable_keys(data)
