"""What the numbers of the training images were, and whether those of another image mean the same. Axes: C channels, *S.

A network that normalises by fixed numbers knows its images on one scale. The same picture as 8-bit integers, as 16-bit ones and
as floats is the same to the eye and another to the network, and its type tells which:

* uint8 is full at 255. uint16 is full at 65535 where that is used: one value in a thousand has the highest bit, which cameras
  and scanners of 10, 12 and 14 bits in 16-bit files leave empty, or all values are 8-bit ones times 256 or 257, as programs
  that widen write them, however dark the picture. bool, and floats that all lie from 0 to 1, are full at 1.
* Where the training images and an image are full at different values, it is certain what to multiply by.
* Else the values stay as they are, and are said to be unlike those of training where they cannot be the same: beyond what is
  full in training (floats by a quarter, as interpolation overshoots), or, where nothing says what is full, beyond three times
  the range of the training images on either side; in another type that cannot hold what the training images held; below a 16th
  of full where that is 65535 (12 bits or fewer in a 16-bit file), or full at 65535 where training saw no 15th bit; or fractions
  between -10 and 10, as normalised images are, where training saw a range of more than four times that.

A dark, a bright or an empty picture of the right type is none of this: uint8 beside uint8 is never looked at. Holes make no
other type of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segwright.core import Dataset
from segwright.core.missing import type_of
from segwright.data.fingerprint import Fingerprint, IntensityStatistics, intensities, known_values

EIGHT_BIT, SIXTEEN_BIT = 255.0, 65535.0
WIDENED = (256, 257)  # what 8-bit values are multiplied by to fill 16 bits: shifted, or so that 255 becomes 65535
TOP_SHARE = 0.001  # of the values: fewer may be hot pixels
NARROW = 16  # 12 of 16 bits are a 16th
OVERSHOOT = 0.25  # of what is full, by which floats may lie beyond: cubic interpolation of a sharp edge stays within
FAR = 3  # times the range of training; bits are gained in steps of a factor of 4
FAR_SHARE = 0.005  # of the values: metal in a scan and hot pixels are fewer
SLACK = 1 / 8  # of the range of training, that a type need not hold: noise around 0
NORMALISED = 10.0  # standard deviations hardly go beyond
LOOKED_AT, PIXELS = 24, 20_000  # images, and pixels of each: enough for a range, in the time of a few training steps


@dataclass(frozen=True, kw_only=True)
class ValueRange:
    """Types of the training images, and statistics of each of their channels, in the values of the files."""

    dtypes: tuple[str, ...]
    channels: tuple[IntensityStatistics, ...]

    @classmethod
    def of(cls, found: Fingerprint) -> "ValueRange":
        """That of the images of a fingerprint."""
        return cls(dtypes=tuple(sorted(found.dtypes)), channels=found.intensity)

    @classmethod
    def measured(cls, dataset: Dataset) -> "ValueRange":
        """That of some images of a data set, evenly spread over it.

        Raises:
            FormatError: a channel has no value. An image that cannot be read raises its reader's error.
        """
        generator = np.random.default_rng(0)
        images = [dataset.load(key).image for key in dataset.keys[:: -(-len(dataset) // LOOKED_AT)]]
        values = [known_values(image, None, PIXELS, generator) for image in images]
        return cls(dtypes=tuple(sorted(set(map(type_of, images)))), channels=intensities(values, dataset.source))

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> "ValueRange":
        """What `dataclasses.asdict` made of it, through JSON."""
        return cls(dtypes=tuple(table["dtypes"]), channels=tuple(IntensityStatistics(**each) for each in table["channels"]))

    @property
    def full(self) -> float | None:
        """The value at which the training images are full, where their type tells."""
        if set(self.dtypes) == {"uint8"}:
            return EIGHT_BIT
        if set(self.dtypes) == {"uint16"}:
            return SIXTEEN_BIT if max(channel.high for channel in self.channels) > SIXTEEN_BIT / 2 else None
        is_open = all(np.dtype(dtype).kind in "fb" for dtype in self.dtypes)
        return 1.0 if is_open and _lies_within(self._lowest, self._highest, 0, 1) else None

    @property
    def ends(self) -> tuple[float, float]:
        """The darkest and the brightest value that training knows: 0 and what is full, or what was seen."""
        return (self._lowest, self._highest) if self.full is None else (0.0, self.full)

    @property
    def text(self) -> str:
        """The range and the types, such as "0 to 255 (uint8)"."""
        return f"{self.ends[0]:.6g} to {self.ends[1]:.6g} ({', '.join(self.dtypes)})"

    def factor(self, image: np.ndarray) -> float:
        """What the values of an image (C, *S) have to be multiplied by, where their type makes that certain; else 1."""
        if self.full is None or self.dtypes == (type_of(image),) == ("uint8",):
            return 1.0
        return self.full / (full_scale(image) or self.full)

    def is_unlike(self, image: np.ndarray) -> bool:
        """Whether the values of an image (C, *S), whose factor is 1, cannot mean the same as those of training."""
        if self.dtypes == (type_of(image),) == ("uint8",):
            return False
        low, high = ends_of(image)
        first, last = self.ends
        is_float = image.dtype.kind == "f"
        if is_float and low < high and last - first > 4 * NORMALISED and _is_normalised(image):
            return True
        if self.full is not None:
            beyond = OVERSHOOT * self.full if is_float else 0.0
            is_narrow = self.full == SIXTEEN_BIT and 0 < high < SIXTEEN_BIT / NARROW
            return is_narrow or not _lies_within(low, high, -beyond, self.full + beyond)
        is_wider = full_scale(image) == SIXTEEN_BIT and last < SIXTEEN_BIT / 4
        return is_wider or self._lies_far(image) or not self._is_held_by(image.dtype)

    def _lies_far(self, image: np.ndarray) -> bool:
        """Whether some values of a channel lie far beyond those that it, or any, had in training."""
        lowest = np.array([channel.lowest for channel in self.channels])
        highest = np.array([channel.highest for channel in self.channels])
        if len(image) != len(self.channels):
            lowest, highest = lowest.min(keepdims=True), highest.max(keepdims=True)
        reach = FAR * (highest - lowest)
        each = (-1, *[1] * (image.ndim - 1))
        is_far = (image < (lowest - reach).reshape(each)) | (image > (highest + reach).reshape(each))
        return bool((is_far.reshape(len(image), -1).mean(axis=1) > FAR_SHARE).any())

    def _is_held_by(self, dtype: np.dtype) -> bool:
        """Whether a type can hold most of what the training images held; one of theirs did."""
        if dtype.kind not in "iu" or str(dtype) in self.dtypes:
            return True
        low, high = (min(channel.low for channel in self.channels), max(channel.high for channel in self.channels))
        slack = SLACK * (high - low)
        return _lies_within(low + slack, high - slack, np.iinfo(dtype).min, np.iinfo(dtype).max)

    @property
    def _lowest(self) -> float:
        return min(channel.lowest for channel in self.channels)

    @property
    def _highest(self) -> float:
        return max(channel.highest for channel in self.channels)


def full_scale(image: np.ndarray) -> float | None:
    """The value at which an image (C, *S) is full, where its type tells."""
    if type_of(image) == "uint8":
        return EIGHT_BIT
    if image.dtype == np.uint16:
        is_used = (image > SIXTEEN_BIT / 2).mean() > TOP_SHARE
        is_widened = image.max() > EIGHT_BIT and any(not (image % step).any() for step in WIDENED)
        return SIXTEEN_BIT if is_used or is_widened else None
    if image.dtype.kind in "fb":
        low, high = ends_of(image)
        return 1.0 if low < high and _lies_within(low, high, 0, 1) else None
    return None


def ends_of(image: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest number in an image; NaN and infinities are none, and 0 and 0 stand for no number at all."""
    values = image[np.isfinite(image)] if image.dtype.kind == "f" else image
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _is_normalised(image: np.ndarray) -> bool:
    """Whether nearly all values of a float image lie around 0, and some are fractions."""
    with np.errstate(invalid="ignore"):  # of infinities
        return bool((np.abs(image) > NORMALISED).mean() <= FAR_SHARE and (image % 1 > 0).any())


def _lies_within(low: float, high: float, first: float, last: float) -> bool:
    return first <= low and high <= last
