import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from segwright.metrics import joint_histogram
from segwright.metrics.joint_histogram import count_labels, count_layers

NONE = 3  # classes, and the column of no class


def twin(prediction, column_of, truth, row_of):
    """The table by a loop over the pixels."""
    out = np.zeros((NONE + 2, NONE + 1), int)
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        row = row_of[t + 1] if -1 <= t < len(row_of) - 1 else row_of[0]
        out[row, column_of[p + 1] if -1 <= p < len(column_of) - 1 else column_of[0]] += 1
    return out


# By hand


def test_by_hand():
    prediction, truth = np.array([[1, 1, 0, 7]], np.int32), np.array([[1, 2, 0, -1]], np.int32)
    found = count_labels(prediction, np.array([3, 3, 2]), truth, np.array([4, 3, 0, 2]), NONE)
    assert_array_equal(found, [[0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]])


def test_layers_by_hand():
    """Four pixels: a and b in both; a in the truth; nothing, but b is predicted; void."""
    truth = np.array([[[1, 1, 0, -1]], [[2, 0, 0, 2]]], np.int32)
    prediction = np.array([[[2, 0, 2, 2]], [[1, 0, 2, 1]]], np.int32)
    of = np.array([4, 3, 0, 1])
    found = count_layers(prediction, np.array([3, 3, 0, 1]), truth, of, NONE)
    assert_array_equal(found, [[1, 1, 0, 0, 0], [2, 1, 0, 1, 1], [1, 2, 0, 1, 1]])


def test_no_pixels():
    assert not count_labels(np.zeros((0, 4), np.uint8), np.array([3, 0]), np.zeros((0, 4), np.uint8), np.array([4, 0]), 3).any()


# By a slow twin


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1, 5, 1023, 1024, 1025, 3001]),  # around a block, whole and not whole fours
    dtypes=st.tuples(*[st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64])] * 2),
    labels=st.sampled_from([2, 9, 40]),
)
def test_equals_a_loop_over_the_pixels(seed, size, dtypes, labels):
    generator = np.random.default_rng(seed)
    prediction, truth = (generator.integers(-3, labels + 3, size).astype(dtype) for dtype in dtypes)
    column_of, row_of = generator.integers(0, NONE + 1, labels + 1), generator.integers(0, NONE + 2, labels + 1)
    found = count_labels(prediction, column_of, truth, row_of, NONE)
    assert_array_equal(found, twin(prediction, column_of, truth, row_of))


@pytest.mark.parametrize("extreme", [-(2**31), 2**31 - 1])
def test_the_ends_of_the_range_are_no_labels(extreme):
    labels = np.full(3000, extreme, np.int32)
    assert count_labels(labels, np.array([3, 0]), labels, np.array([2, 0]), NONE)[2, 3] == 3000


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), planes=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_layers_equal_masks_of_each_class(seed, planes):
    generator = np.random.default_rng(seed)
    prediction, truth = (generator.integers(-1, 5, (count, 6, 7)).astype(np.int32) for count in planes)
    column_of, row_of = np.array([3, 3, 0, 1, 2, 1]), np.array([4, 3, 0, 0, 1, 2])
    known = row_of[truth[0] + 1] <= NONE
    actual = np.array([(row_of[truth + 1] == k).any(axis=0) & known for k in range(NONE)])
    guess = np.array([(column_of[prediction + 1] == k).any(axis=0) & known for k in range(NONE)])
    found = count_layers(prediction, column_of, truth, row_of, NONE)
    assert_array_equal(found[:, :NONE], [(actual & guess).sum((1, 2)), actual.sum((1, 2)), guess.sum((1, 2))])
    several = [0, (actual.sum(0) > 1).sum(), (guess.sum(0) > 1).sum()]
    assert_array_equal(found[:, NONE + 1], several)
    none = [(~actual.any(0) & ~guess.any(0) & known).sum(), (~actual.any(0) & known).sum(), (~guess.any(0) & known).sum()]
    assert_array_equal(found[:, NONE], none)


# By a law


def test_tables_that_are_emptied_in_between_give_the_same(monkeypatch):
    generator = np.random.default_rng(0)
    prediction, truth = generator.integers(-1, 3, (2, 5000)).astype(np.uint8)
    of = np.array([3, 0, 1, 2])
    whole = count_labels(prediction, of, truth, of, NONE)
    monkeypatch.setattr(joint_histogram, "PIXELS", 1000)
    assert_array_equal(count_labels(prediction, of, truth, of, NONE), whole)


def test_many_labels_are_counted_by_class():
    generator = np.random.default_rng(0)
    prediction, truth = generator.integers(-1, 400, (2, 3000)).astype(np.int32)
    of = np.concatenate([[3, 3], np.arange(399) % 3])
    assert_array_equal(count_labels(prediction, of, truth, of, NONE), twin(prediction, of, truth, of))
