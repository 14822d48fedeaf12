import numpy as np
import pytest
from numpy.testing import assert_array_equal

from segwright.metrics.accumulators import Sums, mean, ratio


def test_sums_add_up_and_weigh():
    one, other = Sums(np.array([[1.0, 2.0], [3.0, 4.0]])), Sums(np.array([[10.0, 20.0], [30.0, 40.0]]))
    assert_array_equal((one + other).values, [[11, 22], [33, 44]])
    many = Sums.weighted([one, other], np.array([[1, 1], [0, 3], [0, 0]]))
    assert_array_equal(many.values, [(one + other).values, 3 * other.values, 0 * one.values])


def test_pixel_counts_stay_exact():
    large = Sums(np.array([2.0**52 - 1]))
    assert (large + Sums(np.array([1.0]))).values[0] == 2**52
    assert Sums.weighted([large, Sums(np.array([1.0]))], np.array([[1, 1]])).values[0, 0] == 2**52


def test_ratio_of_nothing_is_unknown():
    assert_array_equal(ratio(np.array([1, 0, 2]), np.array([2, 0, 4])), [0.5, np.nan, 0.5])
    assert ratio(np.float64(1), np.float64(4)) == 0.25


def test_mean_of_what_is_known():
    assert_array_equal(mean(np.array([[1.0, np.nan, 3.0], [np.nan] * 3])), [2, np.nan])
    assert mean(np.array([0.25, 0.75])) == pytest.approx(0.5)
