"""What a network sees of a sample, and the way back to the sample's own grid.

Training, validation and prediction all come through here. Axes: C channels, n spatial axes, *S of the sample, *M of the
network's grid, *P of that with padding.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Protocol

import numpy as np

from segwright.core import Grid, Sample
from segwright.core.errors import SettingError
from segwright.core.missing import nan_where_missing, where_measured
from segwright.transforms.channels import match_channels
from segwright.transforms.normalise import Normalise, measured
from segwright.transforms.pad import pad, padded_indices
from segwright.transforms.resize import resize, resize_image, resize_part, scaled

MEASURED_AT_ONCE = 2**24  # pixels of a band that is read for its statistics
PRESENT = 0.5  # of a class: a pixel between others is of it where most of its weight is, as nnU-Net resamples
MAX_SCALE = 16  # beyond that an image is all interpolation


class PixelSource(Protocol):
    """An image (C, *P) of which parts are taken: an array, or what reads or computes them when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *P)."""

    def __getitem__(self, part: Any, /) -> np.ndarray:
        """The values (C, *n) of a part, given by a slice for the channels and one per axis."""


@dataclass(frozen=True, eq=False)
class View:
    """An image as a network takes it, float32 (C, *P), whose first `covered` pixels (*M) lie over the whole grid `source`.

    What follows them is padding. Pixels are those of the image in order: no axis is turned, so the way back is a factor per
    axis (`ratio`). The image of `Preprocess.in_parts` is no array but `_ViewParts`, of which parts are taken.
    """

    image: np.ndarray
    covered: tuple[int, ...]
    source: Grid

    @property
    def ratio(self) -> tuple[float, ...]:
        """Pixels of the source per pixel of the view, along each axis."""
        return tuple(side / seen for side, seen in zip(self.source.shape, self.covered, strict=True))

    def padded(self, shape: tuple[int, ...]) -> "View":
        """The view with its image padded to the shape *P by its mirror image."""
        if isinstance(self.image, _ViewParts):
            return replace(self, image=self.image.padded(shape))  # type: ignore[arg-type]  # see above
        return replace(self, image=pad(self.image, shape))

    def points_to_source(self, points_xy: np.ndarray) -> np.ndarray:
        """Points float64 (..., n) on the source grid from points (..., n) of the view; (x, y) or (x, y, z), centres at +0.5."""
        return np.asarray(points_xy, np.float64) * self.ratio[::-1]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the network's input: as many `channels`, resized, its values normalised, 0 where they are missing.

    `scale` is the factor on the number of pixels, one per axis; without it, images keep their size. `spacing_mm` instead asks
    for pixels of one size in the world, which images that do not know their pixel size cannot follow.

    Images may have `class_channels` behind their own, which tell what an earlier network found; they are 0 or 1 in the input.
    """

    channels: int = 3
    scale: tuple[float, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    normalise: Normalise = Normalise()
    class_channels: int = 0

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise SettingError(f"channels is {self.channels}; give 1 for grey images, 3 for colour")
        if self.class_channels < 0:
            raise SettingError(f"class_channels is {self.class_channels}; give 0, or the number of classes of a first network")
        if any(not 0 < factor <= MAX_SCALE for factor in self.scale or ()):
            raise SettingError(
                f"scale is {list(self.scale or ())}; give a factor per axis above 0 and up to {MAX_SCALE}, "
                "for example [0.5, 0.5] to halve the sides"
            )
        if any(not step > 0 for step in self.spacing_mm or ()):
            raise SettingError(f"spacing_mm is {list(self.spacing_mm or ())}; give millimetres above 0 for each axis")
        if self.scale is not None and self.spacing_mm is not None:
            raise SettingError("scale and spacing_mm are given; both say how many pixels there are: leave one of them out")

    @property
    def all_channels(self) -> int:
        """The channels of the network's input."""
        return self.channels + self.class_channels

    def __call__(self, sample: Sample) -> View:
        """The view of a whole sample, without padding.

        Raises:
            ShapeError: the image has channels or axes that the settings are not made for.
            SettingError: its pixel size is not known where it is needed, or the settings are for other axes.
        """
        seen = self.resampled(sample)
        if sample.image.dtype.kind == "f" or self.class_channels:
            return View(self.values(seen.image), seen.grid.shape, sample.grid)
        return View(self._normalised(seen.image), seen.grid.shape, sample.grid)  # nothing is missing among integers

    def in_parts(self, pixels: PixelSource, grid: Grid, key: str) -> View:
        """The same of an image (C, *S) on a grid, of which parts are read and computed when they are asked for.

        Raises:
            ShapeError: as above, when the first part is asked for.
            SettingError: as above.
        """
        shape = self.shape_of(grid, key)
        return View(_ViewParts(self, pixels, shape), shape, grid)  # type: ignore[arg-type]  # see there

    def resampled(self, sample: Sample) -> Sample:
        """A sample on the network's grid, image and truth: (channels, *M) in the values of the file, missing ones NaN.

        Where the statistics are those of each image (`normalise` has none of its own), its values are normalised here, since a
        part of the image would tell others. Channels of classes follow.
        """
        measured, classes = self._parts(sample.image)
        image = nan_where_missing(match_channels(measured, self.channels))
        shape = self.shape_of(sample.grid, sample.key)
        seen = resize(replace(sample, image=image), shape)
        seen = replace(seen, image=self.normalise(seen.image)) if self.normalise.mean is None else seen
        if not self.class_channels:
            return seen
        is_there = resize_image(classes.astype(np.float32), shape) >= PRESENT
        return replace(seen, image=np.concatenate([seen.image, is_there.astype(seen.image.dtype)]))

    def values(self, image: np.ndarray) -> np.ndarray:
        """The normalised values float32 (C, ...) of any part of a resampled image; missing ones get the mean, which is 0."""
        measured, classes = self._parts(image)
        result = self._normalised(measured)
        known = where_measured(result)
        result = result if known is None else np.where(known, result, np.float32(0))
        return np.concatenate([result, (classes >= PRESENT).astype(np.float32)]) if self.class_channels else result

    def _parts(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The channels of an image and, behind them, those of classes."""
        if not self.class_channels:
            return image, image[:0]
        return image[: -self.class_channels], image[-self.class_channels :]

    def _normalised(self, image: np.ndarray) -> np.ndarray:
        return np.asarray(image, np.float32) if self.normalise.mean is None else self.normalise(image)

    def shape_of(self, grid: Grid, key: str) -> tuple[int, ...]:
        """The shape *M that an image on a grid gets."""
        wanted = self.scale or self.spacing_mm
        if wanted is None:
            return grid.shape
        if len(wanted) != len(grid.shape):
            raise SettingError(
                f"{'scale' if self.scale else 'spacing_mm'} is {list(wanted)} and sample {key!r} has {len(grid.shape)} axes; "
                "give one number per axis"
            )
        if self.scale is not None:
            return scaled(grid.shape, self.scale)
        if grid.spacing_mm is None:
            raise SettingError(
                f"sample {key!r} does not know the size of its pixels, and spacing_mm is {list(wanted)}; "
                "give files that hold it, such as NIfTI, or scale instead of spacing_mm"
            )
        return scaled(grid.shape, tuple(has / wants for has, wants in zip(grid.spacing_mm, wanted, strict=True)))


class _ViewParts:
    """The image float32 (C, *P) of a view of which only parts exist: `parts[:, *window]` reads and computes one.

    `pixels` are the values (C', *S) of the file, and `covered` is the shape *M that `preprocess` gives them; padding follows.
    """

    def __init__(
        self, preprocess: Preprocess, pixels: PixelSource, covered: tuple[int, ...], shape: tuple[int, ...] | None = None
    ) -> None:
        self.preprocess, self.pixels, self.covered = preprocess, pixels, covered
        self.shape = (preprocess.channels, *(shape or covered))

    def padded(self, shape: tuple[int, ...]) -> "_ViewParts":
        """The same with its mirror image behind it up to the spatial shape *P."""
        return _ViewParts(self._measured, self.pixels, self.covered, shape)

    def __getitem__(self, part: tuple[slice, ...]) -> np.ndarray:
        """The values (C, *n) of a window, given by slices without steps, of all channels."""
        indices = [
            padded_indices(*here.indices(wanted)[:2], side, wanted)
            for here, wanted, side in zip(part[1:], self.shape[1:], self.covered, strict=True)
        ]
        window = tuple(slice(int(each.min()), int(each.max()) + 1) for each in indices)
        values = self._measured.values(self._resampled(window))
        for axis, (each, here) in enumerate(zip(indices, window, strict=True), start=1):
            if len(each) != here.stop - here.start or each[0] != here.start:
                values = values.take(each - here.start, axis=axis)
        return values

    def _resampled(self, window: tuple[slice, ...]) -> np.ndarray:
        """The values of the file in a window of the grid *M, (C, *n), missing ones NaN."""
        channels = self.preprocess.channels
        return resize_part(
            lambda part: nan_where_missing(match_channels(self.pixels[:, *part], channels)),
            self.pixels.shape[1:],
            self.covered,
            window,
        )

    @cached_property
    def _measured(self) -> Preprocess:
        """The settings with the statistics of this image, if it is normalised by its own."""
        normalise = self.preprocess.normalise
        if normalise.mean is not None:
            return self.preprocess
        rows = max(1, MEASURED_AT_ONCE // max(1, prod(self.covered[1:])))
        rest = tuple(slice(0, side) for side in self.covered[1:])
        bands = (slice(first, min(first + rows, self.covered[0])) for first in range(0, self.covered[0], rows))
        return replace(self.preprocess, normalise=measured(self._resampled((band, *rest)) for band in bands))
