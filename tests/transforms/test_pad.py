import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.transforms.pad import pad, padded_indices

# By hand


def test_mirrored_at_the_end_of_each_axis():
    image = np.array([[[1, 2, 3], [4, 5, 6]]])
    expected = [[[1, 2, 3, 2], [4, 5, 6, 5], [4, 5, 6, 5], [4, 5, 6, 5]]]  # two rows are too few to mirror two more
    np.testing.assert_array_equal(pad(image, (4, 4)), expected)


def test_one_pixel_is_repeated():
    np.testing.assert_array_equal(pad(np.full((2, 1, 1), 3, np.uint8), (2, 2)), np.full((2, 2, 2), 3))


def test_an_image_that_fits_is_returned_as_it_is():
    image = np.zeros((1, 32, 64))
    assert pad(image, (32, 64)) is image


# By a law


@given(
    shape=st.lists(st.integers(1, 20), min_size=2, max_size=3),
    more=st.integers(0, 30),
)
def test_undone_by_slicing(shape, more):
    image = np.random.default_rng(0).integers(0, 255, (2, *shape))
    padded = pad(image, tuple(side + more for side in shape))
    assert padded.shape[1:] == tuple(side + more for side in shape)
    np.testing.assert_array_equal(padded[(slice(None), *map(slice, shape))], image)


# By its messages


def test_another_number_of_axes_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        pad(np.zeros((1, 4, 4)), (4,))


@given(side=st.integers(1, 9), more=st.integers(0, 12), data=st.data())
def test_indices_are_those_of_the_padding(side, more, data):
    start = data.draw(st.integers(0, side + more - 1))
    stop = data.draw(st.integers(start + 1, side + more))
    whole = pad(np.arange(side)[None], (side + more,))[0]
    np.testing.assert_array_equal(padded_indices(start, stop, side, side + more), whole[start:stop])
