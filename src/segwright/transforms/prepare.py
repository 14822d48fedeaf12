"""What a network sees of a sample, and the way back to the sample's own grid.

Training, validation and prediction all come through here. Axes: C channels, n spatial axes, *S of the sample, *M of the
network's grid, *P of that with padding.
"""

from dataclasses import dataclass, replace

import numpy as np

from segwright.core import Grid, Sample
from segwright.core.errors import SettingError
from segwright.core.missing import nan_where_missing, where_measured
from segwright.transforms.channels import match_channels
from segwright.transforms.normalise import Normalise
from segwright.transforms.pad import pad
from segwright.transforms.resize import resize, scaled

MAX_SCALE = 16  # beyond that an image is all interpolation


@dataclass(frozen=True, eq=False)
class View:
    """An image as a network takes it, float32 (C, *P), whose first `covered` pixels (*M) lie over the whole grid `source`.

    What follows them is padding. Pixels are those of the image in order: no axis is turned, so the way back is a factor per
    axis (`ratio`).
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
        return replace(self, image=pad(self.image, shape))

    def points_to_source(self, points_xy: np.ndarray) -> np.ndarray:
        """Points float64 (..., n) on the source grid from points (..., n) of the view; (x, y) or (x, y, z), centres at +0.5."""
        return np.asarray(points_xy, np.float64) * self.ratio[::-1]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the network's input: as many `channels`, resized, its values normalised, 0 where they are missing.

    `scale` is the factor on the number of pixels, one per axis; without it, images keep their size. `spacing_mm` instead asks
    for pixels of one size in the world, which images that do not know their pixel size cannot follow.
    """

    channels: int = 3
    scale: tuple[float, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None
    normalise: Normalise = Normalise()

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise SettingError(f"channels is {self.channels}; give 1 for grey images, 3 for colour")
        if any(not 0 < factor <= MAX_SCALE for factor in self.scale or ()):
            raise SettingError(
                f"scale is {list(self.scale or ())}; give a factor per axis above 0 and up to {MAX_SCALE}, "
                "for example [0.5, 0.5] to halve the sides"
            )
        if any(not step > 0 for step in self.spacing_mm or ()):
            raise SettingError(f"spacing_mm is {list(self.spacing_mm or ())}; give millimetres above 0 for each axis")
        if self.scale is not None and self.spacing_mm is not None:
            raise SettingError("scale and spacing_mm are given; both say how many pixels there are: leave one of them out")

    def __call__(self, sample: Sample) -> View:
        """The view of a whole sample, without padding.

        Raises:
            ShapeError: the image has channels or axes that the settings are not made for.
            SettingError: its pixel size is not known where it is needed, or the settings are for other axes.
        """
        seen = self.resampled(sample)
        values = self.values if sample.image.dtype.kind == "f" else self._normalised  # nothing is missing among integers
        return View(values(seen.image), seen.grid.shape, sample.grid)

    def resampled(self, sample: Sample) -> Sample:
        """A sample on the network's grid, image and truth: (channels, *M) in the values of the file, missing ones NaN.

        Where the statistics are those of each image (`normalise` has none of its own), its values are normalised here, since a
        part of the image would tell others.
        """
        image = nan_where_missing(match_channels(sample.image, self.channels))
        seen = resize(replace(sample, image=image), self.shape_of(sample.grid, sample.key))
        return replace(seen, image=self.normalise(seen.image)) if self.normalise.mean is None else seen

    def values(self, image: np.ndarray) -> np.ndarray:
        """The normalised values float32 (C, ...) of any part of a resampled image; missing ones get the mean, which is 0."""
        result = self._normalised(image)
        known = where_measured(result)
        return result if known is None else np.where(known, result, np.float32(0))

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
