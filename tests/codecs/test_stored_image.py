"""What a file holds, as an image and as a mask."""

from pathlib import Path

import numpy as np
import pytest

from segwright.codecs.stored_image import MAX_PIXELS, StoredImage, bomb, upright
from segwright.core.errors import FormatError

PATH = Path("a.png")

# By hand


def test_white_is_the_highest_number_of_images_and_no_other_in_masks():
    for white, shown in ((1, [0, 255]), (15, [0, 17]), (200, [0, 1])):
        stored = StoredImage(np.array([[[0, 1]]], np.uint8), white=white)
        assert stored.image().tolist() == [[shown]] and stored.mask(PATH).tolist() == [[[0, 1]]]
    assert StoredImage(np.array([[[4095]]], np.uint16), white=4095).image().tolist() == [[[65535]]]


def test_a_palette():
    stored = StoredImage(np.array([[[1, 0]]], np.uint8), np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    assert stored.image().tolist() == [[[4, 1]], [[5, 2]], [[6, 3]]] and stored.mask(PATH).tolist() == [[[1, 0]]]


def test_missing_values_are_nan_in_images_and_void_in_masks():
    missing = np.array([[[True, True, False]]])
    stored = StoredImage(np.array([[[0, 7, 8]]], np.uint8), orientation=2, missing=missing)
    assert np.array_equal(stored.image(), [[[8, np.nan, np.nan]]], equal_nan=True)
    assert stored.mask(PATH).tolist() == [[[8, 255, 0]]]
    wide = StoredImage(np.array([[[0, -9999, 8]]], np.int32), missing=missing)
    assert wide.image().dtype == np.float32 and wide.mask(PATH).tolist() == [[[0, 65535, 8]]]
    whole = StoredImage(np.array([[[np.nan, 0.9999, 8.0001]]], np.float32), missing=np.array([[[True, False, False]]]))
    assert whole.mask(PATH).tolist() == [[[255, 1, 8]]]


# By a law


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_back(orientation):
    values = np.arange(12).reshape(1, 3, 4)
    back = {6: 8, 8: 6}.get(orientation, orientation)
    assert np.array_equal(upright(upright(values, orientation), back), values)


# By its messages


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, 1e20])
def test_fractions_are_no_mask(value):
    message = "holds NaN; .*save 255 there, as integers" if np.isnan(value) else "holds fractions such as .* .dtype float32"
    with pytest.raises(FormatError, match=f"a.png: the mask {message}"):
        StoredImage(np.full((1, 2, 2), value, np.float32)).mask(PATH)


def test_a_bomb():
    assert f"a.png claims 9 x 9 pixels in a file of 5 bytes; compressed files above {MAX_PIXELS:,}" in str(
        bomb(PATH, "9 x 9", 5)
    )
