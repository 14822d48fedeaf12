"""Squared distances across a border, against SciPy's."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from segwright.losses._distance_maps import squared_across


def test_by_hand():
    inside = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    known = np.ones((2, 4), bool)
    np.testing.assert_array_equal(squared_across(inside, known), [[2, 1, 1, 4], [1, 1, 2, 5]])


def test_pixels_that_are_not_known_are_on_no_side():
    inside, known = np.array([[1, 1, 1, 0, 0, 0]], bool), np.array([[1, 1, 0, 0, 1, 1]], bool)
    np.testing.assert_array_equal(squared_across(inside, known), [[16, 9, 0, 0, 9, 16]])


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_without_a_border_all_is_zero(shape):
    everything, nothing = np.ones(shape, bool), np.zeros(shape, bool)
    for inside, known in ((everything, everything), (nothing, everything), (everything, nothing)):
        assert not squared_across(inside, known).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (37, 50), (1, 5, 4), (13, 1, 8), (11, 14, 17)])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_equals_scipy(shape, share):
    generator = np.random.default_rng(0)
    for _ in range(5):
        inside, known = generator.random(shape) < share, np.ones(shape, bool)
        if inside.any() and not inside.all():
            expected = distance_transform_edt(inside) ** 2 + distance_transform_edt(~inside) ** 2
            np.testing.assert_array_equal(squared_across(inside, known), np.rint(expected))


def test_turning_the_map_turns_the_distances():
    inside = np.random.default_rng(1).random((12, 19)) < 0.1
    known = np.random.default_rng(2).random((12, 19)) < 0.8
    np.testing.assert_array_equal(squared_across(inside.T, known.T), squared_across(inside, known).T)
    np.testing.assert_array_equal(squared_across(~inside, known), squared_across(inside, known))
