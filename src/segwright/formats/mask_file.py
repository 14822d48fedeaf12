"""What a mask file holds, before anybody says what it means: numbers, indices of a palette, or a picture of colours.

Axes: C channels, N entries of a palette, *S spatial axes, (H, W), or (D, H, W) for TIFF volumes.

A file of black and white alone has no numbers of its own: one bit per pixel, a palette of both, or a JPEG whose values lie near
both, as JPEG blurs numbers. Its white stands for whatever the other masks, or who named the classes, call the second.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from segwright.codecs.image_file import are_colors, stored_image
from segwright.codecs.stored_image import upright
from segwright.codecs.tiff_axes import MASK, Axes
from segwright.core.errors import FormatError
from segwright.formats.smoothed_values import COVERS, count_values

WHITE = 255
BLURRED_BLACK, BLURRED_WHITE = 32, 224  # what a blurred 0 reaches, what a blurred 255 keeps
MAX_BETWEEN = 0.1  # share of pixels between them: borders are less, photographs and class numbers more
FLAT = 16  # levels that JPEG puts between neighbours inside a region
TINGE = 32  # as far apart as blurring throws the channels of a grey pixel in files that are not exact
MAX_NUMBER = 2**31 - 1  # of an object, which a Segmentation holds
SEVERAL = 8  # colours of a palette: of fewer, most may be thin classes


@dataclass(frozen=True, eq=False)
class MaskFile:
    """The content of a mask file: integers `values` (C, *S), which are indices where there is a `palette` uint8 (N, 3).

    `white` is the number that is shown as white, where that is not the highest of the type. Where the file `is_lossy`, values
    are only near those that were saved. `missing`, bool (*S), is where the file says that there is no number, None where there
    is one everywhere. Where it `is_turned`, it calls white 0, and the numbers were turned for that. `hidden`, bool (*S),
    is where alpha hides what is read all the same. `negative` is a number below 0 that counts as missing.
    """

    path: Path
    values: np.ndarray
    palette: np.ndarray | None = None
    white: int | None = None
    is_lossy: bool = False
    missing: np.ndarray | None = None
    is_turned: bool = False
    hidden: np.ndarray | None = None
    negative: int | None = None

    @cached_property
    def is_picture(self) -> bool:
        """Whether these are colours and no numbers: the channels differ, or the palette is one of a painting."""
        return are_colors(self.values) or self._is_painted

    @property
    def _is_painted(self) -> bool:
        """Whether a palette has many colours of which most cover no area, as one has that was made for a smoothed picture."""
        if self.palette is None or self.greys is not None or len(self.used) <= SEVERAL:
            return False
        return 2 * int(count_values(self.values[0]).covers.sum()) < len(self.used)

    @property
    def num_hidden(self) -> int:
        """How many pixels alpha hides that are not black underneath."""
        return 0 if self.hidden is None else int(np.count_nonzero(self.hidden & (self.picture != 0).any(axis=0)))

    @property
    def void(self) -> int | None:
        """The number that stands where numbers are missing; None where none is, or a palette shows it."""
        return None if self.missing is None or self.palette is not None else int(self.values[0][self.missing][0])

    @cached_property
    def greys(self) -> np.ndarray | None:
        """The grey of each entry of the palette, int64 (N,), where all its entries are grey."""
        if self.palette is None or (self.palette != self.palette[:, :1]).any():
            return None
        return self.palette[:, 0].astype(np.int64)

    @cached_property
    def used(self) -> np.ndarray:
        """The indices of the palette that occur, sorted, int64 (M,)."""
        return np.flatnonzero(np.bincount(self.values[0].ravel()))

    @cached_property
    def is_white(self) -> np.ndarray | None:
        """Where a file of black and white alone is white, bool (*S); None for any other."""
        grey = self.values[0]
        if self.greys is not None:
            return (self.greys == WHITE)[grey] if np.isin(self.greys, (0, WHITE)).all() else None
        if self.palette is None and self.white == 1:
            return grey > 0
        if not self.is_lossy or self.is_picture or self._share_between > MAX_BETWEEN or 0 < grey.max(initial=0) < BLURRED_WHITE:
            return None
        if self._has_areas_between:
            return None
        return grey >= 128  # the middle of 0 and 255

    @property
    def picture(self) -> np.ndarray:
        """The file as it is shown, in colours (C, *S) of at least three channels."""
        if self.palette is not None:
            return np.moveaxis(self.palette[self.values[0]], -1, 0)
        shown = self.values if self.white is None else self.values * self.values.dtype.type(WHITE // self.white)
        return shown if len(shown) > 2 else np.repeat(shown[:1], 3, axis=0)

    @property
    def _is_between(self) -> np.ndarray:
        grey = self.values[0]
        return np.asarray((grey > BLURRED_BLACK) & (grey < BLURRED_WHITE))

    @property
    def _share_between(self) -> float:
        return float(self._is_between.mean())

    @property
    def _has_areas_between(self) -> bool:
        """Whether values between black and white fill areas, as a third class does, and not slopes along borders."""
        is_between = self._is_between
        if not is_between.any():
            return False
        grey = self.values[0].reshape(-1, self.values.shape[-1]).astype(np.uint8)  # of a volume, slice below slice
        around = np.ones((3, 3), np.uint8)
        is_flat = (cv2.dilate(grey, around) - cv2.erode(grey, around) <= FLAT).reshape(is_between.shape)
        return bool((is_flat & is_between).sum() > COVERS * is_between.sum())

    def blurred(self) -> FormatError:
        """The error to raise where the values of a lossy file cannot be told."""
        kind = "lossy WebP" if self.path.suffix.lower() == ".webp" else "JPEG"
        return FormatError(
            f"{self.path} is a {kind} whose values are not black and white ({self._share_between:.0%} lie between, the highest "
            f"is {self.values.max(initial=0)}); {kind} blurs class numbers: export the masks as PNG, or, where classes were "
            'painted as grey levels far apart, write these into classes.json as "values", with "nearest": true'
        )


def read_mask_file(path: Path, axes: Axes = MASK) -> MaskFile:
    """The content of a mask file, upright, without alpha; `axes` tells what stacks without names hold.

    Raises:
        FormatError: as `read_mask_channels`; or the mask lies in the alpha channel, or numbers are negative or too high.
    """
    stored = stored_image(path, axes)
    if stored.is_alpha_alone:
        raise FormatError(
            f"{path} has one colour everywhere and differs in its transparency alone; save that channel as a grey picture"
        )
    values = stored.mask(path)
    low, high = values.min(initial=0), values.max(initial=0)
    if low < 0 or high > MAX_NUMBER:
        raise FormatError(
            f"{path} holds the numbers {low}..{high}; object numbers are 0..{MAX_NUMBER}; number the objects again"
        )
    if stored.values.dtype.kind == "f":  # whole numbers in a type that says nothing of what they mean
        values = values.astype(np.min_scalar_type(int(high)))
    if stored.is_lossy and np.ptp(values.astype(np.int16), axis=0).max(initial=0) <= TINGE:
        values = values[len(values) // 2 :][:1]  # green, which such files keep best
    missing = stored.void()
    if missing is not None and stored.palette is not None:  # there stands a number that may be another colour
        values = np.where(missing, values[:, ~missing].min(initial=high), values)
    hidden = None if stored.hidden is None else upright(stored.hidden, stored.orientation)
    return MaskFile(
        path, values, stored.palette, stored.white, stored.is_lossy, missing, stored.is_turned, hidden, stored.negative
    )


def read_object_numbers(path: Path, axes: Axes = MASK) -> np.ndarray:
    """The number of the object at each pixel of a file of objects, integer (C, *S); grey palettes count by their greys.

    Raises:
        FormatError: as `read_mask_file`; or the file keeps no exact values.
    """
    file = read_mask_file(path, axes)
    if file.is_lossy:
        raise FormatError(f"{path} keeps no exact numbers (it is a JPEG or the like); export object numbers as PNG or TIFF")
    return file.values if file.greys is None else file.greys[file.values]
