"""Values of an image that nobody measured. Axes: C channels, *S spatial axes."""

from collections.abc import Callable

import numpy as np


def where_measured(image: np.ndarray) -> np.ndarray | None:
    """Which values of an image are measurements, bool (C, *S); None where all are, as in every image of integers.

    Readers give NaN where a file says that a value is missing. Infinity, and what float32 cannot hold, is missing too: a
    network would make NaN of it.
    """
    if image.dtype.kind != "f":
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(image.sum(dtype=np.float32)):  # a sum is NaN or infinite with any of its values, and takes less time
            return None
        known = np.isfinite(image.astype(np.float32, copy=False))
    return None if known.all() else known


def missing_pixels(image: np.ndarray) -> np.ndarray | None:
    """Where an image lacks a value, bool (*S); None where it lacks none.

    A pixel is missing where any of its channels is: a network needs them all, and what it would say of a pixel with one that
    was made up is a guess that looks like an answer. There the truth teaches and measures nothing, and predictions are void.
    """
    known = where_measured(image)
    return None if known is None else np.logical_not(known.all(axis=0))


def type_of(image: np.ndarray) -> str:
    """The name of the type of an image's measurements; "uint8" where only holes made them float, and so no type of a file's."""
    known = where_measured(image)
    values = None if known is None else image[known]
    if values is None or not values.size or values.min() < 0 or values.max() > 255 or (values % 1).any():
        return str(image.dtype)
    return "uint8"


def nan_where_missing(image: np.ndarray) -> np.ndarray:
    """An image (C, *S) as float32 in which NaN alone stands for what is missing; as it is where nothing is."""
    known = where_measured(image)
    if known is None:
        return image
    with np.errstate(over="ignore"):
        return np.where(known, image, np.nan).astype(np.float32)


def filter_measured(image: np.ndarray, smooth: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """An image float32 (C, *S) after a linear filter with weights of the sum 1 that gives and takes finite float32 (C, *S).

    Missing values stay missing, and count for nothing: the weights of what was measured are scaled to the sum 1. The filter
    has to give each value a part in its own result.
    """
    known = where_measured(image)
    if known is None:
        return smooth(image)
    sums, weights = (smooth(part.astype(np.float32)) for part in (np.where(known, image, 0), known))
    return np.divide(sums, weights, out=np.full(image.shape, np.nan, np.float32), where=known)
