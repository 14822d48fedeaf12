"""Samples that are read when they are asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.core import Classes, Dataset, Sample
from segwright.core.errors import UsageError

KEYS = ("a", "b", "c", "d")


def make(read=None):
    """Four samples; each key that is read is appended to `read`."""

    def load(key):
        if read is not None:
            read.append(key)
        return Sample.of(key, np.zeros((1, 2, 2), np.uint8))

    return Dataset("memory", Classes.of(["one"]), KEYS, load)


def test_nothing_is_read_before_it_is_asked_for():
    read = []
    dataset = make(read)
    assert len(dataset) == 4
    subset = dataset.subset(["c", "a"])
    assert read == []
    assert subset[0].key == "c"
    assert dataset[-1].key == "d"
    assert read == ["c", "d"]


def test_iteration_reads_one_after_the_other():
    read = []
    first = next(iter(make(read)))
    assert first.key == "a"
    assert read == ["a"]
    assert [sample.key for sample in make()] == list(KEYS)


class Whole:
    """Loads a sample with its image, or without."""

    def __call__(self, key):
        return Sample.of(key, np.zeros((3, 2, 2), np.uint8))

    def without_image(self, key):
        return Sample.of(key, np.zeros((0, 2, 2), np.uint8))


def test_images_are_left_out_where_they_can_be():
    data = Dataset("memory", Classes.of(["one"]), KEYS, Whole())
    assert data.without_images().subset(["b"])[0].image.shape == (0, 2, 2)
    assert data[0].image.shape == (3, 2, 2)
    assert make().without_images()[0].image.shape == (1, 2, 2)  # a reader that cannot gives what it has


def test_past_the_end():
    with pytest.raises(IndexError):
        make()[4]


@given(st.lists(st.sampled_from(KEYS)), st.data())
def test_a_subset_of_a_subset_is_a_subset(keys, data):
    smaller = data.draw(st.lists(st.sampled_from(keys))) if keys else []
    dataset = make()
    assert dataset.subset(keys).subset(smaller).keys == dataset.subset(smaller).keys == tuple(smaller)
    assert dataset.keys == KEYS


def test_a_key_that_is_not_there():
    with pytest.raises(UsageError, match="memory has no sample 'x'; its keys are a, b, c, d"):
        make().subset(["a", "x"])
