"""Stored numbers to what they mean."""

import numpy as np
import pytest
from PIL import Image

from segwright.codecs.stored_values import cmyk_to_rgb, rescaled, with_nan, ycbcr_to_rgb

# By hand


@pytest.mark.parametrize(
    ("dtype", "highest", "floats"),
    [
        ("u1", 255, "f4"),
        ("i2", 9, "f4"),
        ("i4", 2**24, "f4"),
        ("i4", 2**24 + 1, "f8"),
        ("u8", 9, "f4"),
        ("f2", 9, "f4"),
        ("f8", 9, "f8"),
    ],
)
def test_missing_values(dtype, highest, floats):
    values = with_nan(np.array([[[1, 2]], [[highest, 4]]], dtype), np.array([[[False, True]]]))
    assert values.dtype == floats and np.array_equal(values, [[[1, np.nan]], [[highest, np.nan]]], equal_nan=True)


@pytest.mark.parametrize(
    ("stored", "line", "expected"),
    [
        (np.uint8(7), (1, 0), np.uint8(7)),
        (np.uint16(7), (1, -1024), np.int32(-1017)),
        (np.uint8(7), (2, -3), np.int16(11)),
        (np.int16(7), (0.5, 0), np.float32(3.5)),
        (np.uint16(30), (0.1, 0), np.float32(3)),
        (np.int32(7), (1, 1e9), np.float32(1e9 + 7)),
        (np.float32(7), (2, 1), np.float32(15)),
        (np.float64(7), (2, 1), np.float64(15)),
    ],
)
def test_rescaled_in_the_smallest_dtype_that_holds_all(stored, line, expected):
    ends = (0, 0) if stored.dtype.kind == "f" else (int(np.iinfo(stored.dtype).min), int(np.iinfo(stored.dtype).max))
    values = rescaled(np.array([stored]), *line, ends)
    assert values.dtype == expected.dtype and values[0] == expected


# By a twin


def test_colours_as_pillow_makes_them():
    values = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    for mode, count, convert in (("CMYK", 4, lambda inks: cmyk_to_rgb(inks, 255)), ("YCbCr", 3, ycbcr_to_rgb)):
        given = np.ascontiguousarray(values[..., :count])
        expected = np.array(Image.fromarray(given, mode).convert("RGB")).transpose(2, 0, 1)
        assert np.abs(convert(given.transpose(2, 0, 1)).astype(int) - expected).max() <= 1  # of rounding


def test_inks_of_16_bits():
    inks = np.random.default_rng(0).integers(0, 2**16, (4, 5, 6), dtype=np.uint16)
    inks[:, 0, 0], inks[:, 0, 1] = 0, 65535
    light = (65535.0 - inks) / 65535
    assert np.array_equal(cmyk_to_rgb(inks, 65535), np.rint(light[:3] * light[3] * 65535))
