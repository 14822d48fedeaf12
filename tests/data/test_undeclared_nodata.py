import numpy as np
import pytest

from segwright.data.undeclared_nodata import undeclared_nodata


def heights(dtype=np.float32, low=294, high=310, shape=(64, 64)):
    return np.random.default_rng(0).uniform(low, high, (1, *shape)).astype(dtype)


# By hand


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        *(("f4", -9999), ("f4", -3.4028234663852886e38), ("f4", 1e20), ("f4", 0), ("f8", -3e38), ("i2", -32768)),
        *(("i2", -9999), ("u2", 65535), ("i4", -(2**31)), ("f2", 65504)),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_areas_of_a_number_far_off_all_others(dtype, number, channels):
    image = np.repeat(heights(dtype, 1000, 1100), channels, axis=0)
    image[-1, :, :9] = number
    assert undeclared_nodata(image) == image[-1, 0, 0]


def test_in_a_volume():
    volume = heights(np.int16, 0, 900, (9, 20, 20))
    volume[0, 3:5] = -32768
    assert undeclared_nodata(volume) == -32768


# Healthy twins


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint16])
def test_heights_alone(dtype):
    assert undeclared_nodata(heights(dtype)) is None


def test_a_black_background_is_no_nodata():
    scan = heights(np.float32, 5, 900)  # a skull-stripped brain: 0 around it, and dark places in it
    scan[0, :, :20] = 0
    assert undeclared_nodata(scan) is None
    ct = heights(np.int16, -1000, 900)
    ct[0, :, :20] = -2000  # the corners of a round field of view
    assert undeclared_nodata(ct) is None


def test_dead_pixels_are_no_areas():
    image = heights()
    image[0].flat[:: 64 * 3 + 1] = -9999
    assert undeclared_nodata(image) is None


def test_few_values_and_eight_bits_tell_nothing():
    two = np.zeros((1, 64, 64), np.uint16)
    two[0, :, :9] = 65535
    assert undeclared_nodata(two) is None
    picture = heights(np.uint8, 200, 250)
    picture[0, :, :9] = 0
    assert undeclared_nodata(picture) is None
    holey = picture.astype(np.float32)
    holey[0, :, 50:] = np.nan
    assert undeclared_nodata(holey) is None
    assert undeclared_nodata(holey + 0.5) == 0.5  # no picture of 8 bits


def test_what_is_declared_is_not_told_again():
    image = heights(np.float64)
    for missing in (np.nan, np.inf, -1.7e308):
        image[0, :, :9] = missing
        assert undeclared_nodata(image) is None
    for nothing in (np.zeros((0, 5, 5), np.float32), np.full((1, 5, 5), np.nan, np.float32), np.zeros((1, 1, 1), np.uint16)):
        assert undeclared_nodata(nothing) is None


def test_the_image_is_left_as_it_was():
    image = heights()
    image[0, :, :9] = -9999
    before = image.copy()
    undeclared_nodata(image)
    np.testing.assert_array_equal(image, before)


def test_a_flat_coast_in_whole_metres_is_enough():
    image = heights(np.int16, -2, 5)
    image[0, :, :9] = -9999
    assert undeclared_nodata(image) == -9999
