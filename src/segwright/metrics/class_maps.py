"""Prediction and truth by class, void alike in both. Axes: K classes, P planes, *S spatial axes, n of them."""

from collections.abc import Iterator

import numpy as np
from numba import njit

from segwright.core import VOID, Segmentation

AXES = 3  # of the kernels: an image counts as one slice


def class_maps(prediction: Segmentation, truth: Segmentation, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Class maps (*S) of a prediction and a truth of one plane each: 0..K-1, K for no class, VOID in both alike.

    They are of the dtype that `map_dtype` tells.
    """
    maps = np.empty((2, *truth.shape), map_dtype(num_classes))
    tables = [np.array([num_classes, num_classes, *given.class_ids], maps.dtype) for given in (prediction, truth)]
    _class_maps(prediction.planes[0].ravel(), tables[0], truth.planes[0].ravel(), tables[1], maps.reshape(2, -1))
    return maps[0], maps[1]


def map_dtype(num_classes: int) -> np.dtype:
    """The smallest signed dtype of a map of K classes and K itself: less memory is less time."""
    return np.min_scalar_type(-num_classes - 1)


def class_masks(
    prediction: Segmentation, truth: Segmentation, num_classes: int, margin: int = 0
) -> Iterator[tuple[int, tuple[slice, ...], np.ndarray, np.ndarray]]:
    """Each class that occurs, the region around its pixels, and its known pixels there, predicted and true, bool each.

    The region is the smallest box that holds the class in both, `margin` pixels wider on each side where the image goes on.
    """
    shape = (1,) * (AXES - len(truth.shape)) + truth.shape
    low, high = np.full((num_classes, AXES), max(shape)), np.full((num_classes, AXES), -1)
    tables = [np.array([-1, -1, *given.class_ids], np.int32) for given in (prediction, truth)]  # of void, nothing, segments
    for given, table in zip((prediction, truth), tables, strict=True):
        for plane in given.planes:
            _boxes(plane.reshape(shape), table, low, high)
    for k in np.flatnonzero(high[:, 0] >= 0).tolist():
        region = tuple(slice(max(0, first - margin), last + 1 + margin) for first, last in zip(low[k], high[k], strict=True))
        region = region[AXES - len(truth.shape) :]
        is_known = truth.planes[0][region] != VOID
        masks = [
            np.take(table == k, given.planes[:, *region] + 1).any(axis=0) & is_known
            for given, table in zip((prediction, truth), tables, strict=True)
        ]
        yield k, region, masks[0], masks[1]


@njit(cache=True, nogil=True)
def _class_maps(prediction, predicted_class_of, truth, true_class_of, maps):
    """Look the classes of labels (N,) up, and make both void where the truth is."""
    for n in range(len(truth)):
        if truth[n] < 0:
            maps[0, n] = maps[1, n] = VOID
        else:
            maps[0, n] = predicted_class_of[prediction[n] + 1]
            maps[1, n] = true_class_of[truth[n] + 1]


@njit(cache=True, nogil=True)
def _boxes(plane, class_of, low, high):
    """Widen the boxes (K, 3) of classes by the segments of a plane (D, H, W), looking at the ends of runs only."""
    D, H, W = plane.shape
    for z in range(D):
        for y in range(H):
            for x in range(W):
                k = class_of[plane[z, y, x] + 1]
                is_end = x == 0 or x == W - 1 or plane[z, y, x - 1] != plane[z, y, x] or plane[z, y, x + 1] != plane[z, y, x]
                if k >= 0 and is_end:
                    low[k, 0], high[k, 0] = min(low[k, 0], z), max(high[k, 0], z)
                    low[k, 1], high[k, 1] = min(low[k, 1], y), max(high[k, 1], y)
                    low[k, 2], high[k, 2] = min(low[k, 2], x), max(high[k, 2], x)
