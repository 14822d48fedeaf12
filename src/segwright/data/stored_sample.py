"""One sample on the network's grid, of which samplers and transforms ask for parts, be it in memory or on disk.

Axes: C channels, P planes, K classes, n spatial axes, *M of the grid.
"""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from segwright.core import Grid, Sample, Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import UsageError
from segwright.data.class_locations import ClassLocations
from segwright.transforms.geometric import Centre, Geometric, anywhere
from segwright.transforms.prepare import PixelSource


@dataclass(frozen=True, eq=False)
class StoredSample:
    """A sample whose pixels are `image` (C, *M) and `planes` int32 (P, *M), arrays or what reads parts of them.

    `head` is the sample without pixels: no channels, no planes. On disk, `folder` holds the pixels, and `index` what was found
    out about the classes.
    """

    head: Sample
    image: PixelSource
    planes: PixelSource | None = None
    folder: Path | None = None
    index: ClassLocations | None = None

    @classmethod
    def of(cls, sample: Sample) -> "StoredSample":
        """A sample in memory."""
        return cls(headed(sample, sample.image.dtype), sample.image, None if sample.truth is None else sample.truth.planes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape *M."""
        return self.head.grid.shape

    @property
    def class_ids(self) -> np.ndarray:
        """The class of each segment of the truth, int32 (N,); of no segment where there is no truth."""
        return np.empty(0, np.int32) if self.head.truth is None else self.head.truth.class_ids

    def is_there(self) -> bool:
        """Whether the pixels can be read, which those on disk then can for a day."""
        try:
            if self.folder is not None:
                os.utime(self.folder)  # used now
        except OSError:
            return False
        return True

    def whole(self) -> Sample:
        """The sample with all of its pixels."""
        return self._with(self._everywhere, self.head.grid)

    def part(self, window: tuple[slice, ...]) -> Sample:
        """The sample in a window of its grid, which has no place in the world (`affine`)."""
        return self._with(window, Grid(tuple(here.stop - here.start for here in window), self.head.grid.spacing_mm))

    @property
    def _everywhere(self) -> tuple[slice, ...]:
        return tuple(slice(0, side) for side in self.shape)

    def _with(self, window: tuple[slice, ...], grid: Grid) -> Sample:
        truth = None if self.head.truth is None else self._truth(window)
        return Sample(self.head.key, self.image[:, *window], grid, truth)

    def _truth(self, window: tuple[slice, ...]) -> Segmentation:
        """The truth in a window.

        Raises:
            UsageError: the sample has none.
        """
        if self.head.truth is None or self.planes is None:
            raise UsageError(f"sample {self.head.key!r} has no truth; add its mask, or take it out of the data set")
        return replace(self.head.truth, planes=self.planes[:, *window])

    def without_image(self) -> "StoredSample":
        """The same with an image of no channels (0, *M), of which crops take less time."""
        return replace(self, image=self.head.image)

    def crop(
        self, geometric: Geometric, shape: tuple[int, ...], generator: np.random.Generator, centre: Centre = anywhere
    ) -> Sample:
        """The crop that `geometric` makes of the whole sample; from disk, what it covers is read and nothing else.

        Raises:
            ShapeError: as `geometric` does.
        """
        placement = geometric.placement(self.head.key, self.head.grid, shape, generator, centre)
        if self.folder is None:
            return placement.crop(self.whole())
        window = placement.window()
        return placement.crop(self.part(window), tuple(here.start for here in window))

    @cached_property
    def locations(self) -> ClassLocations:
        """The pixels of each class of the truth.

        Raises:
            UsageError: the sample has none.
        """
        return self.index or ClassLocations.of(self._truth(self._everywhere))

    def foreground(self) -> np.ndarray:
        """The classes that have pixels, but the background, rising, (at most K,); none where there is no truth."""
        if self.head.truth is None:
            return np.empty(0, np.int64)
        present, background = np.flatnonzero(self.locations.counts()), background_of(self.head.truth.classes)
        return present if background is None else present[present != background]

    def pixel(self, k: int, generator: np.random.Generator) -> np.ndarray | None:
        """A random pixel (n,) of class k, in a time that does not grow with the image; None where there is none.

        Raises:
            UsageError: the sample has no truth.
        """
        count = int(self.locations.counts()[k])
        return self.locations.pixel(k, int(generator.integers(count)), self._truth) if count else None


def headed(sample: Sample, dtype: np.dtype, grid: Grid | None = None) -> Sample:
    """A sample on a grid, its own unless it gets another, without pixels: an image of that type, and a truth, of nothing."""
    grid, truth = grid or sample.grid, sample.truth
    if truth is not None:
        truth = replace(truth, planes=np.empty((0, *grid.shape), np.int32))
    return Sample(sample.key, np.empty((0, *grid.shape), dtype), grid, truth)
