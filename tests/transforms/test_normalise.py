import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.core.errors import SettingError, ShapeError
from segwright.transforms.channels import match_channels
from segwright.transforms.normalise import Normalise, channel_statistics, measured

# By hand


def test_given_values_are_subtracted_and_divided():
    image = np.array([[[10, 20]], [[5, 7]]], np.uint8)
    result = Normalise(mean=(10.0, 5.0), std=(5.0, 2.0))(image)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [[[0, 2]], [[0, 1]]])


def test_without_values_each_image_is_measured():
    np.testing.assert_allclose(Normalise()(np.array([[[1, 3], [1, 3]]], np.int16)), [[[-1, 1], [-1, 1]]])


@pytest.mark.parametrize("value", [0, 255, 0.1, 1e9, -3e-7])
def test_a_constant_image_becomes_zero(value):
    result = Normalise()(np.full((2, 5, 7), value, np.float32))
    np.testing.assert_array_equal(result, np.zeros((2, 5, 7)))


def test_missing_values_stay_missing_and_count_for_nothing():
    image = np.array([[[np.nan, 1, 3, np.nan]], [[7, 7, 7, np.nan]], [[np.nan] * 4]], np.float32)
    expected = [[[np.nan, -1, 1, np.nan]], [[0, 0, 0, np.nan]], [[np.nan] * 4]]
    np.testing.assert_allclose(Normalise()(image), expected)
    np.testing.assert_allclose(Normalise(mean=(2.0, 7.0, 5.0), std=(1.0, 1.0, 2.0))(image), expected)


# By a slow twin


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 40, 31), (2, 9, 10, 11)])
def test_statistics_equal_numpy(dtype, shape):
    image = np.random.default_rng(0).normal(1000 if dtype != np.uint8 else 100, 20, shape).astype(dtype)
    exact = image.astype(np.float64).reshape(len(image), -1)
    expected = [exact.mean(1), exact.std(1), exact.min(1), exact.max(1)]
    np.testing.assert_allclose(channel_statistics(image), expected, rtol=1e-9)
    np.testing.assert_allclose(channel_statistics(np.moveaxis(np.moveaxis(image, 0, -1).copy(), -1, 0)), expected, rtol=1e-9)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_statistics_equal_those_of_numpy_without_nan(share):
    rng = np.random.default_rng(1)
    image = rng.normal(300, 2, (2, 50, 60)).astype(np.float32)
    image[rng.random(image.shape) < share] = np.nan
    image[:, 0, :2] = (np.nan, np.inf)
    flat = np.where(np.isfinite(image), image, np.nan).reshape(2, -1).astype(np.float64)
    expected = [np.nanmean(flat, 1), np.nanstd(flat, 1), np.nanmin(flat, 1), np.nanmax(flat, 1)]
    np.testing.assert_allclose(channel_statistics(image), expected, rtol=1e-6)


def test_a_far_mean_costs_no_precision():
    image = np.random.default_rng(0).normal(3e4, 0.5, (1, 200, 200)).astype(np.float32)
    assert channel_statistics(image)[1, 0] == pytest.approx(image.astype(np.float64).std(), rel=1e-6)


# By a law


@given(gain=st.floats(0.01, 1000), offset=st.floats(-50, 50))
def test_the_unit_of_the_file_does_not_matter(gain, offset):
    image = np.random.default_rng(1).normal(0, 1, (2, 30, 30))
    np.testing.assert_allclose(Normalise()((image + offset) * gain), Normalise()(image), atol=1e-4)


# By its messages


def test_half_a_setting_is_refused():
    with pytest.raises(SettingError, match="one value per channel for both"):
        Normalise(mean=(1.0,))
    with pytest.raises(SettingError, match="above 0"):
        Normalise(mean=(1.0,), std=(0.0,))


def test_another_number_of_channels_is_refused_with_a_remedy_that_works():
    grey, normalise = np.ones((1, 4, 4), np.uint8), Normalise(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    with pytest.raises(ShapeError, match="1 channels.*match_channels"):
        normalise(grey)
    assert normalise(match_channels(grey, 3)).shape == (3, 4, 4)


@pytest.mark.parametrize("cuts", [[], [3], [1, 2, 9]])
def test_parts_are_measured_as_the_whole(cuts):
    image = np.random.default_rng(0).normal(1000, 3, (3, 12, 7)).astype(np.float32)
    image[0, 2:5, 1] = np.nan
    image[1], image[2, 9:] = 5, np.nan  # a constant channel, and a part without any value
    found = measured(np.split(image, cuts, axis=1))
    np.testing.assert_allclose(found(image), Normalise()(image), atol=1e-4)
    assert found.std[1] == 1


def test_integers_are_measured_by_hand():
    found = measured([np.array([[[1, 3]]], np.int16), np.array([[[5, 7], [5, 3]]], np.int16)])
    assert found.mean == pytest.approx((4.0,))
    assert found.std == pytest.approx(((22 / 6) ** 0.5,))  # squares 9, 1, 1, 9, 1, 1
