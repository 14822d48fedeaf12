"""Coarser levels of an image in a Zarr group, each made of the level before part by part: mean for images, nearest for labels.

Axes are halved that have the smallest pixels, or up to twice as large, until no side is longer than a thumbnail's: a stack of
thick slices loses none of them before its pixels are as wide as the slices are apart. Pixels along an odd side's end are
averaged with themselves. NaN spreads: what is not known of a part is not known of the whole.

Axes: C channels, *S spatial axes, (D, H, W) or (H, W).
"""

from collections.abc import Sequence
from itertools import pairwise, product
from math import ceil
from typing import Any

import numpy as np

from segwright.core import Grid

SMALL = 256  # pixels along the longest side of the coarsest level
WIDE = 2  # bytes of whole numbers of which float32 holds the mean


def factors_of_levels(grid: Grid) -> list[tuple[int, ...]]:
    """How many pixels of the grid lie along each side of one pixel, for each level; the first is the grid itself."""
    sides, spacing = np.array(grid.shape), np.array(grid.spacing_mm or (1.0,) * len(grid.shape))
    factors = np.ones(len(sides), int)
    found = [factors]
    while (-(-sides // factors)).max() > SMALL:
        is_open = -(-sides // factors) > 1
        sizes = spacing * factors
        factors = np.where(is_open & (sizes < 2 * sizes[is_open].min()), 2 * factors, factors)
        found.append(factors)
    return [tuple(each.tolist()) for each in found]


def shape_of_level(grid: Grid, factors: Sequence[int]) -> tuple[int, ...]:
    """The sides (*S) of a level; a last pixel may lie partly beyond the grid."""
    return tuple(ceil(side / factor) for side, factor in zip(grid.shape, factors, strict=True))


def fill_levels(arrays: Sequence[Any], grid: Grid, *, is_label: bool) -> None:
    """Fill all but the first of these arrays (C, *S) or (*S), one per level, from the one before; rows of chunks are held."""
    front = arrays[0].ndim - len(grid.shape)
    for level, ((fine, coarse), (before, now)) in enumerate(
        zip(pairwise(arrays), pairwise(factors_of_levels(grid)), strict=True)
    ):
        steps = [after // earlier for after, earlier in zip(now, before, strict=True)]
        high = coarse.chunks[front]
        for index in product(*(range(side) for side in coarse.shape[:front])):
            for first in range(0, coarse.shape[front], high):
                part = np.asarray(fine[(*index, slice(first * steps[0], (first + high) * steps[0]))])
                found = _picked(part, steps, level % 2) if is_label else _mean(part, steps)
                coarse[(*index, slice(first, first + len(found)))] = found


def _picked(values: np.ndarray, steps: Sequence[int], offset: int) -> np.ndarray:
    """Of each pair along the axes with a step of 2 the first or the second, in turn, which keeps to the middle over levels."""
    for axis, step in enumerate(steps):
        values = _even(values, axis)[_each(axis, offset)] if step == 2 else values
    return values


def _mean(values: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """The mean of each pair along the axes with a step of 2, in the type of the values; whole numbers are rounded."""
    dtype = values.dtype
    is_wide = dtype.itemsize > WIDE and dtype.kind != "f" or dtype.itemsize > np.float32().itemsize
    found: np.ndarray = values.astype(np.dtype("f8" if is_wide else "f4"))
    for axis, step in enumerate(steps):
        if step == 2:
            found = _even(found, axis)
            found = (found[_each(axis, 0)] + found[_each(axis, 1)]) / 2
    if dtype.kind in "iu":
        found = np.clip(np.rint(found), *_ends(dtype))
    return found.astype(dtype)


def _ends(dtype: np.dtype) -> tuple[float, float]:
    """The lowest and highest floats that a type of whole numbers holds: float64 rounds the highest of 64 bits up."""
    low, high = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return low, high if high < 2.0**53 else float(np.nextafter(high, 0))


def _even(values: np.ndarray, axis: int) -> np.ndarray:
    """Values with the last along an axis twice where its side is odd."""
    if values.shape[axis] % 2 == 0:
        return values
    return np.concatenate([values, values.take([-1], axis=axis)], axis=axis)


def _each(axis: int, offset: int) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(offset, None, 2))
