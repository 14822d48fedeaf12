"""Class and object numbers out of stored values: floats that are whole but for rounding become integers, others are refused."""

from pathlib import Path

import numpy as np

from segwright.core.errors import FormatError

LARGE = 2.0**62  # numbers beyond are none of classes or objects
ROUNDED = 1e-3  # from a whole number: what resampling and float arithmetic leave of one; probabilities lie anywhere


def whole_numbers(values: np.ndarray, path: Path, *, slope: float = 0.0) -> np.ndarray:
    """The integers that the values of a mask file stand for, in their own dtype where that is one, else int32 or int64.

    `slope` is the step that its header multiplies stored integers by. Where that is below 1, a number may have been rounded by
    half a step when it was stored. Missing values (NaN) become -1, as nobody knows what is there.

    Raises:
        FormatError: values lie further from whole numbers, are infinite, too large or complex.
    """
    if values.dtype.kind in "iu":
        return values
    if values.dtype.kind != "f":
        raise FormatError(f"{path}: the mask holds {values.dtype}, whole class numbers are needed; save it with integers")
    slack = max(ROUNDED, abs(slope) / 2 * (1 + ROUNDED)) if abs(slope) < 1 else ROUNDED
    given = np.where(np.isnan(values), -1, values)
    is_off = ~(np.abs(given) < LARGE)  # infinite, too
    whole = np.rint(np.where(is_off, 0, given))
    is_off |= np.abs(np.where(is_off, 0, given) - whole) > slack
    if is_off.any():
        raise FormatError(
            f"{path}: the mask holds fractions such as {given[is_off].flat[0]:.4g} (dtype {values.dtype}), whole class numbers "
            "are needed; if these are probabilities, threshold them or take the argmax first"
        )
    return whole.astype(np.int32 if float(np.abs(whole).max(initial=0)) < 2**31 else np.int64)
