"""Where the pixels of each class are. Axes: *S spatial axes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.core import VOID, Classes, ClassPositions, Segmentation
from segwright.core.errors import ShapeError

K = 4
class_maps = array_shapes(min_dims=2, max_dims=3, max_side=9).flatmap(
    lambda shape: arrays(np.int32, shape, elements=st.integers(VOID, K - 1))
)

# By hand


def test_three_rows():
    positions = ClassPositions.of_map(np.array([[0, 2, VOID], [2, 2, 0]], np.int32), 3)
    np.testing.assert_array_equal(positions.of(0), [0, 5])
    np.testing.assert_array_equal(positions.of(1), [])
    np.testing.assert_array_equal(positions.of(2), [1, 3, 4])
    np.testing.assert_array_equal(positions.counts(), [2, 0, 3])
    assert positions.order.dtype == np.int32
    assert positions.of(2).base is positions.order  # a view, so that it costs nothing


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (2, 3, 4)])
def test_all_void_and_nothing(shape):
    positions = ClassPositions.of_map(np.full(shape, VOID, np.int32), 2)
    assert positions.counts().tolist() == [0, 0]
    assert len(positions.of(1)) == 0


def test_of_a_segmentation_whose_objects_overlap():
    masks = np.array([[[True, True, False]], [[False, True, False]]])
    positions = Segmentation.instances(masks, [1, 0], classes=Classes.of("abc")).class_positions()
    assert [positions.of(k).tolist() for k in range(3)] == [[1], [0], []]


# By a slow twin


@given(class_maps)
def test_each_class_equals_flatnonzero(class_map):
    positions = ClassPositions.of_map(class_map, K)
    for k in range(K):
        np.testing.assert_array_equal(positions.of(k), np.flatnonzero(class_map == k))


def test_long_runs_and_other_layouts_equal_flatnonzero():
    generator = np.random.default_rng(0)
    class_map = np.repeat(generator.integers(VOID, K, (50, 7)), 83, axis=1)
    for given_map in (class_map, class_map.T, class_map[::2, ::-1]):
        positions = ClassPositions.of_map(given_map, K)
        for k in range(K):
            np.testing.assert_array_equal(positions.of(k), np.flatnonzero(given_map == k))


# By a law


@given(class_maps)
def test_every_known_pixel_has_one_position(class_map):
    positions = ClassPositions.of_map(class_map, K)
    np.testing.assert_array_equal(np.sort(positions.order), np.flatnonzero(class_map != VOID))


# By its messages


@pytest.mark.parametrize("value", [-2, 3])
def test_a_class_that_there_is_not(value):
    with pytest.raises(ShapeError, match=r"the class map holds .*, but there are 3 classes; 0..2 and -1 for void"):
        ClassPositions.of_map(np.array([[0, value]], np.int32), 3)


@pytest.mark.parametrize("k", [-1, 2])
def test_no_such_class(k):
    positions = ClassPositions.of_map(np.zeros((2, 2), np.int32), 2)
    with pytest.raises(ShapeError, match=f"class {k} was asked for, but there are 2 classes; give a number from 0 on"):
        positions.of(k)
