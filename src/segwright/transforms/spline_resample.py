"""Volumes at another spacing as nnU-Net resamples them: by cubic splines, and between thick slices not at all.

Where spacings differ much, a spline through neighbouring slices would invent structures. Then each slice is resampled by
itself, and a new slice is the nearest old one (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z).

Axes: C channels, *S spatial axes of the old grid, *T of the new.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

THICK = 3  # times the smallest spacing, above which slices are apart
ORDER = 3  # of the splines


def thick_axis(first: Sequence[float], second: Sequence[float]) -> int | None:
    """The axis whose slices are thick at the first of two spacings, or else at the second; None where none, or several, are."""
    for spacing in (first, second):
        if max(spacing) > THICK * min(spacing):
            largest = [axis for axis, step in enumerate(spacing) if step == max(spacing)]
            return largest[0] if len(largest) == 1 else None
    return None


def nearest_slices(old: int, new: int) -> np.ndarray:
    """The old slice that lies nearest to the centre of each new one, int64 (new,)."""
    centres = old / new * (np.arange(new) + 0.5) - 0.5
    return np.clip(np.floor(centres + 0.5), 0, old - 1).astype(np.int64)


def spline_resample(image: np.ndarray, shape: tuple[int, ...], thick: int | None) -> np.ndarray:
    """An image float32 (C, *T) from an image (C, *S); slices along the axis `thick` are resampled each by itself.

    Values stay between the lowest and the highest of the channel, or of the slice.
    """
    if image.shape[1:] == shape:
        return image.astype(np.float32, copy=False)
    result = np.empty((len(image), *shape), np.float32)
    for channel, out in zip(image, result, strict=True):
        if thick is None:
            out[:] = _resized(channel, shape)
            continue
        inside = tuple(side for axis, side in enumerate(shape) if axis != thick)
        slices = np.stack([_resized(part, inside) for part in np.moveaxis(channel, thick, 0)])
        np.moveaxis(out, thick, 0)[:] = slices[nearest_slices(len(slices), shape[thick])]
    return result


def _resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values float64 (*T) from values (*S) of as many axes."""
    if values.shape == shape:
        return values.astype(np.float64)
    zoom = [new / old for new, old in zip(shape, values.shape, strict=True)]
    found = ndimage.zoom(values.astype(np.float64), zoom, order=ORDER, mode="nearest", grid_mode=True)
    return np.clip(found, values.min(), values.max())
