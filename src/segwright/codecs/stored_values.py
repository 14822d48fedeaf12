"""Stored numbers to what they mean: rescaled, as RGB, NaN where missing. Axes: C channels, *S spatial axes."""

import numpy as np

RED, BLUE = 1.402, 1.772  # ITU-R BT.601: how far the differences of red and blue reach, as JPEG, TIFF and DICOM have them
GREEN = 0.344136, 0.714136
EXACT = 2**24  # up to here float32 has all integers


def with_nan(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The values (C, *S) as floats, NaN where `missing`, bool (C or 1, *S); float64 where float32 would round integers."""
    missing = np.broadcast_to(missing, values.shape)
    dtype = np.promote_types(values.dtype, np.float32)
    if values.dtype.kind in "iu" and dtype == np.float64:
        whole = np.where(missing, 0, values)
        dtype = np.dtype(np.float32 if whole.min() >= -EXACT and whole.max() <= EXACT else np.float64)
    values = values.astype(dtype)
    values[missing] = np.nan
    return values


def rescaled(stored: np.ndarray, slope: float, intercept: float, ends: tuple[int, int]) -> np.ndarray:
    """Stored * slope + intercept, in the smallest of int16, int32 and float32 that holds it for whatever may be stored.

    `ends` are the lowest and the highest number that may be stored.
    """
    if (slope, intercept) == (1, 0):
        return stored
    if stored.dtype.itemsize == 8:
        return stored * np.float64(slope) + np.float64(intercept)
    low, high = sorted(end * slope + intercept for end in ends)
    if (
        stored.dtype.kind == "f"
        or not float(slope).is_integer()
        or not float(intercept).is_integer()
        or max(-low, high) >= 2**31
    ):
        return (stored * np.float64(slope) + np.float64(intercept)).astype(np.float32)
    is_narrow = low >= -(2**15) and high < 2**15
    return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(np.int16 if is_narrow else np.int32)


def cmyk_to_rgb(inks: np.ndarray, top: int) -> np.ndarray:
    """RGB (3, *S) of four inks (4, *S), of which `top`, up to 65535, is all and 0 nothing; in their dtype."""
    light = np.uint32(top) - inks
    return ((light[:3] * light[3] + np.uint32(top // 2)) // np.uint32(top)).astype(inks.dtype)


def ycbcr_to_rgb(values: np.ndarray) -> np.ndarray:
    """RGB uint8 (3, *S) of brightness and differences of blue and red, uint8 (3, *S)."""
    y, cb, cr = values.astype(np.float32)
    cb, cr = cb - np.float32(128), cr - np.float32(128)
    rgb = np.stack([y + RED * cr, y - GREEN[0] * cb - GREEN[1] * cr, y + BLUE * cb])
    return np.rint(rgb).clip(0, 255).astype(np.uint8)
