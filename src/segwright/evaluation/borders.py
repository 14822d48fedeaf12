"""How far from the true borders wrong pixels lie. Axes: K classes, B bands, *S spatial, (H, W) or (D, H, W)."""

import numpy as np
from numba import njit

from segwright.core import VOID, Segmentation
from segwright.data.background import Background
from segwright.metrics.accumulators import Sums
from segwright.metrics.overlaps import check_sizes

BANDS = (1, 2, 4, 8, 16)  # pixels, the upper end of each band but the last, which is the interior
NEAR = 4  # pixels, one of the bands: people who draw borders of one image twice are about so far apart


def border_errors(prediction: np.ndarray, truth: np.ndarray, distance: np.ndarray, num_labels: int) -> Sums:
    """All pixels and the wrong ones by true label and band of distance, Sums (2, num_labels, B).

    `prediction` and `truth` are the maps of `labels_of_both`, `distance` is that of `border_distance` of the truth. Void
    pixels are left out.
    """
    table = np.zeros((2, num_labels, len(BANDS) + 1), np.int64)
    _tally(prediction.ravel(), truth.ravel(), distance.ravel(), np.array(BANDS, np.float64), table)
    return Sums(table.astype(np.float64))


@njit(cache=True, nogil=True)
def _tally(prediction, truth, distance, ends, table):
    """Add the pixels (N,) to a table (2, labels, B) of all and of wrong ones."""
    for n in range(len(truth)):
        if truth[n] >= 0:
            band = 0
            while band < len(ends) and distance[n] > ends[band]:
                band += 1
            table[0, truth[n], band] += 1
            table[1, truth[n], band] += prediction[n] != truth[n]


def labels_of_both(prediction: Segmentation, truth: Segmentation) -> tuple[np.ndarray, np.ndarray]:
    """Class of each pixel in prediction and truth, int32 (*S) each: 0..K-1, K for nothing, VOID (-1) in the truth for void.

    Pixels of no segment are background: of the class so called, or label K where all classes are things. Where classes name
    stuff but no background, they are void in the truth, and nothing (K) in the prediction.

    Raises:
        ShapeError: the two differ in size.
    """
    check_sizes(prediction.shape, truth.shape)
    background = Background.of(truth.classes)
    nothing = len(truth.classes) if background is None or background.shift else background.index
    guess, actual = prediction.class_map(), truth.class_map()
    guess[guess == VOID] = nothing
    if background is not None:
        actual[actual == VOID] = nothing
    actual[truth.planes[0] == VOID] = VOID
    return guess, actual


def border_distance(labels: np.ndarray) -> np.ndarray:
    """Distance in pixels of each pixel of a map (*S) from the nearest border between two labels, float32 (*S).

    A pixel that touches one of another label by a side has distance 1; every other has 1 + the Euclidean distance of its
    centre from that of the nearest such pixel. Void (-1) has no borders. Beyond the last of BANDS, infinite: nobody asks.
    """
    at_border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        low, high = (np.moveaxis(labels, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        differs = (low != high) & (low != VOID) & (high != VOID)
        moved = np.moveaxis(at_border, axis, 0)
        moved[:-1] |= differs
        moved[1:] |= differs
    reach = BANDS[-1] - 1
    squared = _along_rows(at_border.reshape(-1, labels.shape[-1]), reach)
    for axis in range(labels.ndim - 1):
        shape = (int(np.prod(labels.shape[:axis])), labels.shape[axis], int(np.prod(labels.shape[axis + 1 :])))
        squared = _across(squared.reshape(shape), reach)
    distance = 1 + np.sqrt(np.arange(reach**2 + 2, dtype=np.float32))
    distance[-1] = np.inf
    return distance[np.minimum(squared, reach**2 + 1)].reshape(labels.shape)


@njit(cache=True, nogil=True)
def _along_rows(marked, reach):
    """Squared distance, int32 (N, W), of each cell from the nearest marked one (N, W) of its row, far more beyond reach."""
    rows, width = marked.shape
    result = np.empty((rows, width), np.int32)
    far = reach + 1
    for n in range(rows):
        steps = far
        for x in range(width):  # from the left
            steps = 0 if marked[n, x] else min(steps + 1, far)
            result[n, x] = steps
        steps = far
        for x in range(width - 1, -1, -1):  # and from the right
            steps = 0 if marked[n, x] else min(steps + 1, far)
            nearest = min(result[n, x], steps)
            result[n, x] = nearest * nearest
    return result


@njit(cache=True, nogil=True)
def _across(squared, reach):
    """The least of squared distances (A, L, B) plus the squared way to them along the middle axis, within reach of it."""
    outer, length, inner = squared.shape
    result = squared.copy()
    for a in range(outer):
        for i in range(length):
            for other in range(max(i - reach, 0), min(i + reach + 1, length)):
                way = (other - i) * (other - i)
                for b in range(inner):
                    result[a, i, b] = min(result[a, i, b], squared[a, other, b] + way)
    return result
