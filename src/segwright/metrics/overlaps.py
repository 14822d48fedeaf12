"""How many pixels the segments of a prediction share with those of a truth. Axes: N predicted, G true segments, M pairs."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError, UsageError

DENSE = 2**22  # cells of a table that is counted into directly, 32 MiB; larger ones are made of runs and would be mostly empty


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Pairs of segments that share pixels, and how large all segments are.

    `predicted` and `true` int64 (M,) number the segments of each pair from 0, in rising order of both; `pixels` int64 (M,)
    says how many they share. `predicted_areas` int64 (N,) and `true_areas` int64 (G,) count all pixels of a segment,
    `predicted_void` int64 (N,) those of a predicted segment where the truth is void.
    """

    predicted: np.ndarray
    true: np.ndarray
    pixels: np.ndarray
    predicted_areas: np.ndarray
    true_areas: np.ndarray
    predicted_void: np.ndarray

    def iou(self) -> np.ndarray:
        """Intersection over union of each pair, float64 (M,)."""
        return self.pixels / (self.predicted_areas[self.predicted] + self.true_areas[self.true] - self.pixels)


def overlaps(prediction: Segmentation, truth: Segmentation) -> Overlaps:
    """All shared pixels of two segmentations of one size, from one pass over each pair of their planes.

    Raises:
        ShapeError: they differ in size.
    """
    check_sizes(prediction.shape, truth.shape)
    rows, columns = len(prediction) + 1, len(truth) + 2  # row 0 is nothing or void; columns 0 and 1 are void and nothing
    predicted, true, pixels = [], [], []
    predicted_areas, true_areas = np.zeros(rows, np.int64), np.zeros(columns, np.int64)
    void = np.zeros(rows, np.int64)
    for p, guess in enumerate(prediction.planes):
        for t, actual in enumerate(truth.planes):
            row, column, count = _joint(guess, actual, rows, columns)
            if t == 0:  # each plane of the prediction is seen once
                predicted_areas += np.bincount(row, count, rows).astype(np.int64)
                is_void = column == 0
                void += np.bincount(row[is_void], count[is_void], rows).astype(np.int64)
            if p == 0:
                true_areas += np.bincount(column, count, columns).astype(np.int64)
            is_pair = (row > 0) & (column > 1)
            predicted.append(row[is_pair] - 1)
            true.append(column[is_pair] - 2)
            pixels.append(count[is_pair])
    pairs = _merged(np.concatenate(predicted), np.concatenate(true), np.concatenate(pixels), columns)
    return Overlaps(*pairs, predicted_areas[1:], true_areas[2:], void[1:])


def check_pair(prediction: Segmentation, truth: Segmentation, classes: Classes) -> None:
    """Refuse what cannot be compared class by class.

    Raises:
        ShapeError: prediction and truth differ in size.
        UsageError: one of them holds a class that `classes` lacks.
    """
    check_sizes(prediction.shape, truth.shape)
    for name, given in (("prediction", prediction), ("truth", truth)):
        highest = int(given.class_ids.max(initial=0))
        if highest >= len(classes):
            raise UsageError(
                f"the {name} holds class {highest} ({given.classes.names[highest]}), the metric knows {len(classes)} "
                "classes; give both the same classes, such as those of the data set"
            )


def check_sizes(prediction: tuple[int, ...], truth: tuple[int, ...]) -> None:
    """Refuse a prediction of another size than its truth.

    Raises:
        ShapeError: they differ.
    """
    if prediction != truth:
        raise ShapeError(
            f"the prediction is {' x '.join(map(str, prediction))} and the truth {' x '.join(map(str, truth))} pixels; "
            "predict at the size of the original image"
        )


def _joint(prediction: np.ndarray, truth: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and pixel counts, int64 each, of the pairs of values that two planes (*S) hold, in rising order."""
    if not truth.size:
        return (np.zeros(0, np.int64),) * 3
    if rows * columns <= DENSE:
        table = np.zeros((rows, columns), np.int64)
        _tally(prediction.ravel(), truth.ravel(), table)
        row, column = np.nonzero(table)
        return row, column, table[row, column]
    row, column, count = _runs(prediction.ravel(), truth.ravel())
    return _merged(row, column, count, columns)


def _merged(row: np.ndarray, column: np.ndarray, count: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries of a table with that many columns, those at the same place added up, in rising order; int64 each."""
    place, which = np.unique(row * columns + column, return_inverse=True)
    return place // columns, place % columns, np.bincount(which, count, len(place)).astype(np.int64)


@njit(cache=True, nogil=True)
def _tally(prediction, truth, table):
    """Add the pixels of two planes (N,) to a table, run by run: neighbours mostly lie in the same two segments."""
    last_p, last_t, start = prediction[0], truth[0], 0
    for n in range(1, len(truth)):
        if prediction[n] != last_p or truth[n] != last_t:
            table[max(last_p, 0), last_t + 1] += n - start
            last_p, last_t, start = prediction[n], truth[n], n
    table[max(last_p, 0), last_t + 1] += len(truth) - start


@njit(cache=True, nogil=True)
def _runs(prediction, truth):
    """Row, column and length of each run of pixels (N,) that lie in the same two segments."""
    count = 1
    for n in range(1, len(truth)):
        count += prediction[n] != prediction[n - 1] or truth[n] != truth[n - 1]
    row, column, length = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    run, start = 0, 0
    for n in range(1, len(truth) + 1):
        if n == len(truth) or prediction[n] != prediction[n - 1] or truth[n] != truth[n - 1]:
            row[run], column[run], length[run] = max(prediction[n - 1], 0), truth[n - 1] + 1, n - start
            run, start = run + 1, n
    return row, column, length
