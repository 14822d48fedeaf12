"""Image values to mean 0 and standard deviation 1. Axes: C channels, N pixels, *S spatial axes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numba import njit

from segwright.core.errors import SettingError, ShapeError
from segwright.core.missing import where_measured

FLAT = 1e-6  # of the mean: a channel that deviates less is constant but for rounding, and is only shifted to 0


@dataclass(frozen=True, kw_only=True)
class Normalise:
    """Subtract the mean and divide by the standard deviation of each channel, in the values of the file (0..255 for 8 bit).

    Where both are None they are measured on each image: MRI and electron microscopy have no common scale.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise SettingError(
                f"mean is {self.mean} and std {self.std}; give one value per channel for both, or neither to measure each image"
            )
        if any(value <= 0 for value in self.std or ()):
            raise SettingError(f"std is {self.std}; a standard deviation to divide by is above 0, use 1 for a constant channel")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """A normalised float32 image (C, *S) from an image (C, *S) of any real dtype; a constant channel becomes 0.

        Missing values (NaN) stay missing, and count for nothing.

        Raises:
            ShapeError: the image has another number of channels than mean and std.
        """
        if self.mean is None or self.std is None:
            mean, std, _, _ = channel_statistics(image)
            scale = np.divide(1.0, std, out=np.ones_like(std), where=std > FLAT * np.abs(mean))
        elif len(image) == len(self.mean):
            mean, scale = np.array(self.mean), 1 / np.array(self.std)
        else:
            raise ShapeError(
                f"the image has {len(image)} channels, mean and std are for {len(self.mean)}; "
                "convert it with segwright.transforms.channels.match_channels"
            )
        each = (-1, *[1] * (image.ndim - 1))
        result = np.subtract(image, mean.reshape(each).astype(np.float32), dtype=np.float32)
        result *= scale.reshape(each).astype(np.float32)
        return result


def measured(parts: Iterable[np.ndarray]) -> Normalise:
    """What brings an image to mean 0 and standard deviation 1, of the parts (C, ...) that make it up; some may lack values."""
    counts, means, variances = [], [], []
    for part in parts:
        mean, std, _, _ = channel_statistics(part)
        known = where_measured(part)
        counts.append([part[0].size] * len(part) if known is None else known.reshape(len(part), -1).sum(axis=1))
        means.append(mean)
        variances.append(std**2)
    shares = np.array(counts) / np.maximum(np.sum(counts, axis=0), 1)
    mean = (shares * means).sum(axis=0)
    std = np.sqrt((shares * (np.array(variances) + (np.array(means) - mean) ** 2)).sum(axis=0))
    return Normalise(mean=tuple(map(float, mean)), std=tuple(map(float, np.where(std > FLAT * np.abs(mean), std, 1.0))))


def channel_statistics(image: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, minimum and maximum of each channel of an image (C, *S), float64 (4, C).

    Missing values are left out; a channel that lacks all has 0 for each.
    """
    values = image if image.dtype.name in ("uint8", "uint16", "int16", "float32", "float64") else image.astype(np.float64)
    return np.array([_statistics(np.ravel(channel)) for channel in values]).T


@njit(cache=True, nogil=True)
def _statistics(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, standard deviation, minimum and maximum of the known of (N,) in one pass; sums are taken from the first one on.

    Shifting by a value of the data keeps the difference of squares from cancelling where the mean is large.
    """
    first = 0
    while first < len(values) and not np.isfinite(values[first]):
        first += 1
    if first == len(values):
        return 0.0, 0.0, 0.0, 0.0
    origin = np.float64(values[first])
    count, total, squares, low, high = 0, 0.0, 0.0, origin, origin
    for value in values[first:]:
        if np.isfinite(value):
            offset = value - origin
            count += 1
            total += offset
            squares += offset * offset
            low, high = min(low, value), max(high, value)
    mean = total / count
    return origin + mean, math.sqrt(max(squares / count - mean * mean, 0.0)), low, high
