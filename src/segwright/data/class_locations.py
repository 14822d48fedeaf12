"""Where the pixels of each class are, told by how many of them each band of rows holds.

So the index of a volume takes no memory to speak of, and of a volume on disk one band is read for each pixel that is asked for.
Axes: K classes, B bands, n spatial axes, *S of the grid, P planes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from segwright.core import Segmentation
from segwright.core.errors import ShapeError

BAND_PIXELS = 1 << 15  # looked through for one pixel in some 30 microseconds, and few enough bands to keep them all


@dataclass(frozen=True, eq=False)
class ClassLocations:
    """Bands of whole rows of a grid *S, in the order of memory; `ends` int64 (K, B) is how many pixels of a class there are up
    to the end of each."""

    ends: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, truth: Segmentation) -> "ClassLocations":
        """The locations of the classes of `truth.class_map()`, of which one band at a time is made."""
        counts = [_counts(_class_map(truth, window), len(truth.classes)) for window in _windows(truth.shape)]
        return cls(np.cumsum(np.stack(counts, axis=1), axis=1), truth.shape)

    def counts(self) -> np.ndarray:
        """The number of pixels of each class, int64 (K,)."""
        return self.ends[:, -1]

    def pixel(self, k: int, number: int, read: Callable[[tuple[slice, ...]], Segmentation]) -> np.ndarray:
        """Where a pixel of class k lies, int64 (n,): that of a `number` from 0 on, in the order of memory.

        `read` gives the truth in a window of the grid.

        Raises:
            ShapeError: the class has no such pixel.
        """
        if not 0 <= k < len(self.ends) or not 0 <= number < self.ends[k, -1]:
            raise ShapeError(
                f"pixel {number} of class {k} was asked for, but classes have {self.counts().tolist()} pixels; "
                "give numbers from 0 on"
            )
        band = int(np.searchsorted(self.ends[k], number, side="right"))
        before = int(self.ends[k, band - 1]) if band else 0
        window = _window(self.shape, band)
        class_map = read(window).class_map()
        place = np.unravel_index(np.flatnonzero(class_map == k)[number - before], class_map.shape)
        return np.array(place) + [here.start for here in window]


def _rows(shape: tuple[int, ...]) -> int:
    """The rows of a band; the last of a slice may have fewer."""
    return max(1, BAND_PIXELS // max(1, shape[-1]))


def _window(shape: tuple[int, ...], band: int) -> tuple[slice, ...]:
    """The pixels of a band: some rows of one slice."""
    rows = _rows(shape)
    outer, place = divmod(band, -(-shape[-2] // rows))
    inside = slice(place * rows, min((place + 1) * rows, shape[-2])), slice(0, shape[-1])
    return (slice(outer, outer + 1), *inside) if len(shape) == 3 else inside


def _windows(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """All bands, in the order of memory."""
    return (_window(shape, band) for band in range(math.prod(shape[:-2]) * -(-shape[-2] // _rows(shape))))


def _class_map(truth: Segmentation, window: tuple[slice, ...]) -> np.ndarray:
    return replace(truth, planes=truth.planes[:, *window]).class_map()


def _counts(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """The pixels of each class in a map of classes and VOID, int64 (K,)."""
    return np.bincount(class_map.reshape(-1) + 1, minlength=num_classes + 1)[1:]
