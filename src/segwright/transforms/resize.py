"""Another number of pixels for the same field of view.

Axes: C channels, P planes, n = 2 or 3 spatial axes, *S of the old grid, *T of the new, W weights.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numba import njit

from segwright.core import Grid, Sample
from segwright.core.errors import SettingError
from segwright.core.missing import where_measured
from segwright.transforms.geometric import KERNEL_DTYPES

TINY = 1e-6  # below the weight of any pixel at the centre of another, so that it only keeps 0 / 0 from occurring


def resize(sample: Sample, shape: tuple[int, ...]) -> Sample:
    """The sample with so many pixels over the same field of view: spacing and affine follow; its own shape changes nothing.

    The image keeps its dtype. It is averaged when it shrinks, so that fine texture does not turn into false patterns, and
    linear when it grows; the truth takes the label at each new pixel centre.
    """
    if shape == sample.grid.shape:
        return sample
    truth = sample.truth
    if truth is not None:
        truth = replace(truth, planes=resize_labels(truth.planes, shape))
    return Sample(sample.key, resize_image(sample.image, shape), resize_grid(sample.grid, shape), truth)


def scaled(shape: tuple[int, ...], scale: tuple[float, ...]) -> tuple[int, ...]:
    """The shape *T that a factor per axis gives, one pixel at least along each axis.

    Raises:
        SettingError: a factor is not above 0.
    """
    if not all(factor > 0 for factor in scale):
        raise SettingError(f"scale is {scale}; give numbers above 0, such as 0.5 for half as many pixels along an axis")
    return tuple(max(1, round(side * factor)) for side, factor in zip(shape, scale, strict=True))


def resize_image(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An image (C, *T) from an image (C, *S) by a triangle filter, one axis after the other; dtype kept, integers rounded.

    Missing values (NaN) count for nothing in it. A new pixel lacks its value where the old one at its centre does.
    """
    whole = tuple(slice(0, side) for side in shape)
    return resize_part(lambda part: image[:, *part], image.shape[1:], shape, whole)


def resize_part(
    read: Callable[[tuple[slice, ...]], np.ndarray], old: tuple[int, ...], new: tuple[int, ...], part: tuple[slice, ...]
) -> np.ndarray:
    """A `part` (C, *n) of what `resize_image` makes, with the shape `new`, of an image of the spatial shape `old`.

    `read` gives the values of a part of that image, and is asked for no more of it than counts.
    """
    needed: list[slice] = []
    filters: list[tuple[np.ndarray, np.ndarray] | None] = []
    centres: list[np.ndarray] = []
    for before, after, here in zip(old, new, part, strict=True):
        if before == after:
            needed.append(here)
            filters.append(None)
        else:
            first, weights = (each[here] for each in _triangles(before, after))
            needed.append(slice(int(first[0]), int(first[-1]) + weights.shape[1]))
            filters.append((first - first[0], weights))
        centres.append(_nearest(before, after)[here] - needed[-1].start)
    values = read(tuple(needed))
    result = _filtered(values, filters)
    if where_measured(result) is None or (known := where_measured(values)) is None:
        return result
    sums, weights = (_filtered(each.astype(np.float32), filters) for each in (np.where(known, values, 0), known))
    for axis, centre in enumerate(centres, start=1):
        known = known.take(centre, axis=axis)
    return np.where(known, sums / np.maximum(weights, TINY), np.nan).astype(values.dtype)


def _filtered(image: np.ndarray, filters: list[tuple[np.ndarray, np.ndarray] | None]) -> np.ndarray:
    """An image (C, *S) filtered along each axis by first source indices and weights, as of `_triangles`; None leaves it."""
    values = image if image.dtype.name in KERNEL_DTYPES else image.astype(np.float32)
    for axis, each in enumerate(filters, start=1):
        if each is not None:
            flat = values.reshape(math.prod(values.shape[:axis]), values.shape[axis], -1)
            filtered = np.empty((len(flat), len(each[0]), flat.shape[2]), np.float32)
            (_blend if flat.shape[2] > 1 else _blend_last)(flat, *each, filtered)
            values = filtered.reshape(*values.shape[:axis], len(each[0]), *values.shape[axis + 1 :])
    return (values if image.dtype.kind == "f" else np.rint(values)).astype(image.dtype, copy=False)


def resize_labels(planes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Labels (P, *T) at the pixel centres of the new grid, from labels (P, *S) of any dtype."""
    for axis, (old, new) in enumerate(zip(planes.shape[1:], shape, strict=True), start=1):
        planes = planes.take(_nearest(old, new), axis=axis)
    return planes


def _nearest(old: int, new: int) -> np.ndarray:
    """The source index int64 (new,) at the centre of each new pixel."""
    return np.floor((np.arange(new) + 0.5) * old / new).astype(np.int64)


def resize_grid(grid: Grid, shape: tuple[int, ...]) -> Grid:
    """The grid of shape *T over the same field of view: index j of the new grid is index (j + 0.5) S / T - 0.5 of the old."""
    ratio = np.array(grid.shape) / shape
    spacing_mm = tuple(float(s) for s in grid.spacing_mm * ratio) if grid.spacing_mm else None
    if grid.affine is None:
        return Grid(shape, spacing_mm)
    step = np.diag([*ratio, 1.0])
    step[:-1, -1] = ratio / 2 - 0.5
    return Grid(shape, spacing_mm, grid.affine @ step)


@lru_cache(maxsize=8)  # of the axes of two images: parts of one ask again and again
def _triangles(old: int, new: int) -> tuple[np.ndarray, np.ndarray]:
    """First source index int64 (new,) and weights float32 (new, W) of each new pixel.

    The triangle is as wide as two new pixels when the axis shrinks, and two old ones, which is linear, when it grows.
    Beyond the border there is nothing; the weights that remain are scaled to the sum 1.
    """
    ratio = old / new
    reach = max(ratio, 1.0)
    centre = (np.arange(new) + 0.5) * ratio - 0.5
    taps = min(math.ceil(2 * reach) + 1, old)
    first = np.clip(np.ceil(centre - reach), 0, old - taps).astype(np.int64)
    weights = np.maximum(reach - np.abs(first[:, None] + np.arange(taps) - centre[:, None]), 0)
    return first, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@njit(cache=True, nogil=True)
def _blend(values: np.ndarray, first: np.ndarray, weights: np.ndarray, filtered: np.ndarray) -> None:
    """Weighted sums along the middle axis: (outer, old, inner) to (outer, new, inner), whole lines of `inner` at a time."""
    for o in range(len(values)):
        for j in range(len(first)):
            line = filtered[o, j]
            line[:] = 0
            for t in range(weights.shape[1]):
                if weights[j, t] > 0:
                    weight, source = weights[j, t], values[o, first[j] + t]
                    for i in range(len(line)):
                        line[i] += weight * np.float32(source[i])


@njit(cache=True, nogil=True)
def _blend_last(values: np.ndarray, first: np.ndarray, weights: np.ndarray, filtered: np.ndarray) -> None:
    """As blend, where `inner` is one value."""
    for o in range(len(values)):
        for j in range(len(first)):
            total = np.float32(0)
            for t in range(weights.shape[1]):
                total += weights[j, t] * np.float32(values[o, first[j] + t, 0])
            filtered[o, j, 0] = total
