"""Random fields that change slowly from pixel to pixel, for lighting and texture. Axes: *S spatial axes, any number."""

from functools import cache

import numpy as np


def smooth_noise(shape: tuple[int, ...], period: float | tuple[float, ...], generator: np.random.Generator) -> np.ndarray:
    """A random field float32 (*S) of mean about 0 and deviation about 1 that varies over `period` pixels (per axis).

    Random numbers on a coarse grid, one every `period` pixels, are blended by cubic B-splines, one axis after the other.
    """
    periods = period if isinstance(period, tuple) else (period,) * len(shape)
    splines = [_spline(size, float(step)) for size, step in zip(shape, periods, strict=True)]
    field = generator.standard_normal([int(first[-1]) + 4 for first, _ in splines], dtype=np.float32)
    for axis, (first, weights) in enumerate(splines):
        weights = weights.reshape(4, *(-1 if other == axis else 1 for other in range(len(shape))))
        blended = weights[0] * field.take(first, axis)
        for tap in (1, 2, 3):
            blended += weights[tap] * field.take(first + tap, axis)
        field = blended
    return field


@cache
def _spline(size: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Index of the first of the four knots that each pixel blends, and their weights float32 (4, size).

    The squares of the weights of a pixel add up to 1, so that white noise on the knots keeps its deviation.
    """
    position = (np.arange(size) + 0.5) / step
    first = position.astype(np.int64)
    distance = np.abs(position - first - np.arange(-1, 3)[:, None])  # to the knots before, at, after and two after
    near, far = np.clip(1 - distance, 0, None), np.clip(2 - distance, 0, None)
    weights = far**3 - 4 * near**3  # the cubic B-spline, but for its scale
    return first, (weights / np.linalg.norm(weights, axis=0)).astype(np.float32)
