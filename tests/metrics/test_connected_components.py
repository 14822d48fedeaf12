import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from segwright.core.errors import ShapeError
from segwright.metrics.connected_components import ALL_NEIGHBOURS, FACE_NEIGHBOURS, connected_components, count_components

ORDER = {
    (2, 4): 1,
    (2, 8): 2,
    (3, 6): 1,
    (3, 18): 2,
    (3, 26): 3,
}  # SciPy's word for it: axes in which neighbours may differ


def by_scipy(labels: np.ndarray, neighbours: int) -> tuple[np.ndarray, int]:
    """The pieces of each number by themselves, numbered in the order of their first pixels."""
    around = ndimage.generate_binary_structure(labels.ndim, ORDER[labels.ndim, neighbours])
    pieces, count = np.zeros(labels.shape, int), 0
    for value in np.unique(labels[labels != 0]):
        own, found = ndimage.label(labels == value, around)
        pieces[own > 0] = own[own > 0] + count
        count += found
    values, firsts = np.unique(pieces, return_index=True)
    number = np.zeros(count + 1, int)
    number[[value for _, value in sorted(zip(firsts, values, strict=True)) if value]] = range(1, count + 1)
    return number[pieces], count


# By hand


def test_pieces_are_of_one_number_and_corners_count_where_asked():
    labels = np.array([[1, 1, 0, 2], [0, 2, 2, 0], [1, 0, 0, 2]])
    pieces, count = connected_components(labels, 4)
    assert pieces.tolist() == [[1, 1, 0, 2], [0, 3, 3, 0], [4, 0, 0, 5]] and count == 5
    pieces, count = connected_components(labels, 8)
    assert pieces.tolist() == [[1, 1, 0, 2], [0, 2, 2, 0], [3, 0, 0, 2]] and count == 3
    assert pieces.dtype == np.int32


def test_two_arms_that_meet_below_are_one_piece():
    labels = np.array([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 1, 1, 1, 1]], bool)
    assert connected_components(labels, 4)[1] == 1


@pytest.mark.parametrize(("neighbours", "count"), [(6, 2), (18, 2), (26, 1)])
def test_voxels_at_opposite_corners(neighbours, count):
    labels = np.zeros((2, 2, 2), bool)
    labels[0, 0, 0] = labels[1, 1, 1] = True
    assert count_components(labels, neighbours) == count


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (0, 0, 0), (2, 0, 3)])
def test_nothing_has_no_pieces(shape):
    pieces, count = connected_components(np.zeros(shape, np.uint8), FACE_NEIGHBOURS[len(shape)])
    assert pieces.shape == shape and count == 0


# By a slow twin


@settings(max_examples=150)
@given(st.data())
def test_equals_scipy_number_by_number(data):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7))
    labels = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 3)))
    neighbours = data.draw(st.sampled_from([count for axes, count in ORDER if axes == len(shape)]))
    pieces, count = by_scipy(labels, neighbours)
    found, number = connected_components(labels, neighbours)
    np.testing.assert_array_equal(found, pieces)
    assert number == count == count_components(labels, neighbours)


# By a law


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.uint32, np.int64])
def test_any_whole_numbers_in_any_layout_give_the_same(dtype):
    labels = (np.random.default_rng(0).random((9, 20, 30)) < 0.3).astype(dtype)
    expected = by_scipy(labels, ALL_NEIGHBOURS[3])[0]
    for view in (labels, np.asfortranarray(labels), np.repeat(labels, 2, axis=2)[:, :, ::2]):
        np.testing.assert_array_equal(connected_components(view, ALL_NEIGHBOURS[3])[0], expected)


# By its messages


@pytest.mark.parametrize(("shape", "neighbours"), [((3, 3), 6), ((3, 3, 3), 8), ((3,), 2)])
def test_neighbours_that_pixels_do_not_have_are_refused(shape, neighbours):
    with pytest.raises(ShapeError, match=r"give \(H, W\) and 4 or 8, or \(D, H, W\) and 6, 18 or 26"):
        count_components(np.zeros(shape, bool), neighbours)
