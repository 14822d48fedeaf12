import numpy as np
import pytest

from segwright.core.missing import filter_measured, missing_pixels, nan_where_missing, type_of, where_measured

# By hand


def test_a_pixel_is_missing_where_any_channel_is():
    image = np.array([[[1, np.nan, 3]], [[1, 2, np.inf]]], np.float32)
    assert where_measured(image).tolist() == [[[True, False, True]], [[True, True, False]]]
    assert missing_pixels(image).tolist() == [[False, True, True]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, np.float32, np.float64])
def test_where_nothing_is_missing_there_is_no_map(dtype):
    image = np.full((2, 3, 4), 100, dtype)
    assert where_measured(image) is None and missing_pixels(image) is None
    assert missing_pixels(np.zeros((0, 3, 4), dtype)) is None  # no channel lacks a value


def test_what_float32_cannot_hold_is_missing_and_large_numbers_are_not():
    assert missing_pixels(np.array([[[-1.7e308, 1.0]]])).tolist() == [[True, False]]  # an old mark of nodata
    assert missing_pixels(np.full((1, 64, 64), 3.3e38, np.float32)) is None  # though their sum is infinite
    assert missing_pixels(np.array([[[np.inf, -np.inf]]])).all()  # though their sum is no number


def test_nan_alone_stands_for_what_is_missing():
    image = np.array([[[1, np.nan, np.inf, -1.7e308]]])
    result = nan_where_missing(image)
    assert result.dtype == np.float32 and np.array_equal(result, [[[1, np.nan, np.nan, np.nan]]], equal_nan=True)
    whole = image[:, :, :1]
    assert nan_where_missing(whole) is whole and np.isinf(image[0, 0, 2])


def test_holes_make_numbers_of_8_bits_float_and_nothing_else():
    holey = np.array([[[0, 255, np.nan]]], np.float32)
    assert type_of(holey) == "uint8" and type_of(holey[:, :, :2]) == "float32"
    for value in (-1, 256, 0.5):
        assert type_of(np.array([[[value, np.nan]]], np.float64)) == "float64"
    assert type_of(np.full((1, 2, 2), np.nan, np.float32)) == "float32"
    assert type_of(np.zeros((1, 2, 2), np.int16)) == "int16" and type_of(np.zeros((1, 2, 2), bool)) == "bool"


# By a slow twin


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_it_equals_isfinite(dtype):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(3, 9, 11)).astype(dtype)
    image[rng.random(image.shape) < 0.1] = np.nan
    np.testing.assert_array_equal(where_measured(image), np.isfinite(image))
    np.testing.assert_array_equal(missing_pixels(image), np.isnan(image).any(axis=0))


def test_a_filter_takes_nothing_from_what_is_missing():
    def box(values):  # the mean of each value and its right neighbour; the last is its own
        return (values + np.concatenate([values[..., 1:], values[..., -1:]], axis=-1)) / 2

    image = np.array([[[1, 3, np.nan, 5, 7]]], np.float32)
    np.testing.assert_array_equal(filter_measured(image, box), [[[2, 3, np.nan, 6, 7]]])
    whole = image[..., :2]
    np.testing.assert_array_equal(filter_measured(whole, box), box(whole))
    nothing = np.full((1, 1, 3), np.nan, np.float32)
    assert np.isnan(filter_measured(nothing, box)).all() and filter_measured(nothing, box).dtype == np.float32
