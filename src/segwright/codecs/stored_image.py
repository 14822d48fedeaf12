"""What the file of an image holds, as its decoder gives it. Axes: C channels, *S spatial axes, (H, W) or (D, H, W)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from segwright.codecs.stored_values import with_nan
from segwright.codecs.whole_numbers import whole_numbers
from segwright.core.errors import FormatError

EXIF_ORIENTATION = 274  # number of the tag, in EXIF and in TIFF
MAX_PIXELS = 178_956_970  # Pillow's own limit, 13377 x 13377: a PNG of a few kB can claim more than any memory holds
_VOID_8_BIT, _VOID_16_BIT = 255, 65535  # in masks, for pixels of which nobody knows what they are


@dataclass(frozen=True, eq=False)
class StoredImage:
    """What a file holds: `values` (C, *S) without alpha, RGB where they are colours, before any rotation.

    `palette` is uint8 (N, 3), the RGB colours that the values stand for, or None; `orientation` is the EXIF number 1..8.
    `white` is the number that is shown as white, None where that is the highest of the dtype or no number is.
    `missing`, bool (C or 1, *S), is where the file says that there is no value; None where there is one everywhere.
    `is_lossy`: the file keeps no exact values, as JPEG and most WebP. `is_alpha_alone`: it has one colour, and alpha differs.
    `transparent` counts pixels that alpha hides or half hides, and that are read all the same; `hidden`, bool (*S), is where
    alpha is 0, None where it is so nowhere.
    `is_turned`: a tag says that white is 0, so that the numbers were turned; some programs write it and keep them as they are.
    """

    values: np.ndarray
    palette: np.ndarray | None = None
    orientation: int = 1
    white: int | None = None
    missing: np.ndarray | None = None
    is_lossy: bool = False
    is_alpha_alone: bool = False
    transparent: int = 0
    hidden: np.ndarray | None = None
    is_turned: bool = False

    def image(self) -> np.ndarray:
        """The image (C, *S) as it is seen: upright, palettes as colours, white as the highest number, NaN where missing."""
        values = self.values
        if self.palette is not None:
            values = np.moveaxis(self.palette[values[0]], -1, 0)
        elif self.white is not None:
            highest = np.iinfo(values.dtype).max
            step, rest = divmod(highest, self.white)
            values = np.rint(values * (highest / self.white)).astype(values.dtype) if rest else values * values.dtype.type(step)
        if self.missing is not None:
            values = with_nan(values, self.missing)
        return np.ascontiguousarray(upright(values, self.orientation))

    def mask(self, path: Path) -> np.ndarray:
        """The numbers of a mask (C, *S), upright: integers as they are stored, void where they are missing.

        Missing numbers but 0, and one below 0, become 255, or 65535 in more than 8 bits: so masks mark what is of no class.

        Raises:
            FormatError: the values are no integers.
        """
        values, missing = self.values, self._unknown
        if missing is not None:
            values = np.where(missing, values.dtype.type(0), values)
        if np.isnan(values).any():
            raise FormatError(
                f"{path}: the mask holds NaN; if it marks pixels that nobody knows, save {_VOID_8_BIT} there, as integers"
            )
        values = whole_numbers(values, path)
        if missing is not None:
            is_narrow = self.values.dtype.itemsize == 1 or self.values.dtype.kind == "f" and values.max() < _VOID_8_BIT
            void = _VOID_8_BIT if is_narrow else _VOID_16_BIT
            values = values.astype(np.uint8 if is_narrow else np.promote_types(values.dtype, np.uint16))
            values[missing] = void
        return np.ascontiguousarray(upright(values, self.orientation))

    def void(self) -> np.ndarray | None:
        """Where the numbers of a mask are missing, bool (*S), upright; None where none is, 0 being never."""
        unknown = self._unknown
        return None if unknown is None or not unknown.any() else upright(np.asarray(unknown.any(axis=0)), self.orientation)

    @cached_property
    def negative(self) -> int | None:
        """The only number below 0 in a mask, which can be no class and is void; None where there is none, or several."""
        if self.values.dtype.kind not in "if" or not (self.values < 0).any():
            return None
        low = self.values.min()
        return int(low) if np.isfinite(low) and (self.values[self.values < 0] == low).all() else None

    @property
    def _unknown(self) -> np.ndarray | None:
        unknown = None if self.missing is None else self.missing & (self.values != 0)
        if self.negative is None:
            return unknown
        return self.values < 0 if unknown is None else unknown | (self.values < 0)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array (..., H, W) turned and mirrored to how it is meant to be seen; `orientation` is the EXIF number 1..8."""
    if orientation in (2, 3):
        array = array[..., ::-1]
    if orientation in (3, 4):
        array = array[..., ::-1, :]
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(-1, -2)
    if orientation in (6, 7):
        array = array[..., ::-1]
    if orientation in (7, 8):
        array = array[..., ::-1, :]
    return array


def bomb(path: Path, pixels: str, size: int) -> FormatError:
    """The error for a packed file of `size` bytes that would unpack to more pixels than the memory may hold."""
    return FormatError(
        f"{path} claims {pixels} pixels in a file of {size:,} bytes; compressed files above {MAX_PIXELS:,} pixels are refused, "
        "because unpacking them could fill the memory; if you trust it, cut it into tiles or save it as an uncompressed TIFF"
    )
