"""Pixels by true and predicted class in one pass. Axes: K classes, N pixels, P predicted and G true planes, *S spatial axes.

A label is a number in a map or a plane; -1 stands for none. The true class of a label is 0..K-1, K for none, or K + 1 for void,
which is left out; the predicted class of a label is 0..K-1, or K for none. Classes are given as arrays: those of the labels
-1, 0, 1, ...; a label beyond them has the class of -1.
"""

import numpy as np
from numba import njit

TABLES = 4  # counted into in turn, as adding to the cell that was just written waits for it: noisy maps are 3 times as fast
BLOCK = 1024  # pixels whose places are computed at a time: few enough to stay in the first-level cache until they are counted
CELLS = 2**16  # of the largest table of labels; four of uint32 fill a second-level cache
DTYPES = (np.uint8, np.int32)  # of labels that are counted as they are; others become int32, or int64 where they need it
PIXELS = 2**31  # counted before the tables of uint32 are emptied


def count_labels(
    prediction: np.ndarray, column_of: np.ndarray, truth: np.ndarray, row_of: np.ndarray, num_classes: int
) -> np.ndarray:
    """Pixels by true and predicted class, int64 (K + 2, K + 1), of label maps (*S) of one size and any integer dtype."""
    out = np.zeros((num_classes + 2, num_classes + 1), np.int64)
    dtype = next((each for each in DTYPES if np.can_cast(prediction.dtype, each) and np.can_cast(truth.dtype, each)), np.int64)
    prediction, truth = prediction.ravel().astype(dtype, copy=False), truth.ravel().astype(dtype, copy=False)
    shape = len(row_of) + 1, len(column_of) + 1  # the last place is for labels beyond
    cells = shape[0] * shape[1]
    is_worth_tables = TABLES * cells <= len(truth)  # larger ones take longer to empty than to fill
    if dtype != np.int64 and cells <= CELLS and is_worth_tables:
        row_of, column_of = np.append(row_of, row_of[0]), np.append(column_of, column_of[0])
        for start in range(0, len(truth), PIXELS):
            part = slice(start, start + PIXELS)
            tables = np.zeros((TABLES, *shape), np.uint32)
            _tally_labels(prediction[part], truth[part], tables)
            np.add.at(out, (row_of[:, None], column_of), tables.sum(axis=0, dtype=np.int64))
    else:
        _tally_classes(prediction, column_of, truth, row_of, out)
    return out


def count_layers(
    prediction: np.ndarray, column_of: np.ndarray, truth: np.ndarray, row_of: np.ndarray, num_classes: int
) -> np.ndarray:
    """Correct, true and predicted pixels, float64 (3, K + 2): of each class, of none, and of several at once.

    Planes are int32 (P, *S) and (G, *S); a pixel is of every class that one of them names. It is void where the first plane of
    the truth is of class K + 1. The last column counts pixels of several classes in truth and prediction, none of them correct.
    """
    out = np.zeros((3, num_classes + 2), np.int64)
    guesses, actuals = prediction.reshape(len(prediction), -1), truth.reshape(len(truth), -1)
    _tally_layers(guesses, column_of, actuals, row_of, num_classes, out)
    return out.astype(np.float64)


@njit(cache=True, nogil=True)
def _tally_labels(prediction, truth, tables):
    """Add the pixels of labels (N,) to tables by label, each label one place up. Two steps: the first runs in vectors."""
    cells, columns = np.uint32(tables.shape[1] * tables.shape[2]), np.uint32(tables.shape[2])
    last_row, last_column, one = np.uint32(tables.shape[1] - 1), np.uint32(tables.shape[2] - 1), np.uint32(1)
    counts = tables.reshape(-1)
    places = np.empty(BLOCK, np.uint32)
    for start in range(0, len(truth), BLOCK):
        actual, guess = truth[start : start + BLOCK], prediction[start : start + BLOCK]
        for i in range(len(actual)):
            row, column = np.uint32(actual[i] + one), np.uint32(guess[i] + one)  # as unsigned, a label below -1 is large
            row = row if row < last_row else last_row
            column = column if column < last_column else last_column
            places[i] = row * columns + column
        whole = len(actual) // 4 * 4
        for i in range(0, whole, 4):
            counts[places[i]] += one
            counts[cells + places[i + 1]] += one
            counts[cells + cells + places[i + 2]] += one
            counts[cells + cells + cells + places[i + 3]] += one
        for i in range(whole, len(actual)):
            counts[places[i]] += one


@njit(cache=True, nogil=True)
def _tally_classes(prediction, column_of, truth, row_of, out):
    """Add the pixels of labels (N,) to a table by class, which is looked up for each: for labels too many for a table."""
    columns, rows = np.uint64(len(column_of)), np.uint64(len(row_of))
    for n in range(len(truth)):
        p, t = np.int64(prediction[n]) + 1, np.int64(truth[n]) + 1
        column = column_of[p if np.uint64(p) < columns else 0]  # as unsigned, a negative number is large
        out[row_of[t if np.uint64(t) < rows else 0], column] += 1


@njit(cache=True, nogil=True)
def _tally_layers(prediction, column_of, truth, row_of, none, out):
    """Add the pixels of planes (P, N) and (G, N) run by run: neighbours mostly lie in the same segments."""
    seen = np.full((2, none), -1)  # the last run where a class was true, and predicted
    start = 0
    for n in range(1, truth.shape[1] + 1):
        if n < truth.shape[1] and _is_same(prediction, n) and _is_same(truth, n):
            continue
        if _class_of(truth[0, start], row_of) <= none:
            _add_run(prediction, column_of, truth, row_of, none, start, n - start, seen, out)
        start = n


@njit(cache=True, nogil=True)
def _is_same(planes, n):
    """Whether a pixel of planes (P, N) has the labels of the pixel before."""
    for p in range(len(planes)):  # noqa: SIM110, numba compiles no any() of a generator
        if planes[p, n] != planes[p, n - 1]:
            return False
    return True


@njit(cache=True, nogil=True)
def _class_of(label, classes):
    """The class of a label; that of -1 where it is beyond."""
    return classes[label + 1 if -1 <= label < len(classes) - 1 else 0]


@njit(cache=True, nogil=True)
def _add_run(prediction, column_of, truth, row_of, none, start, length, seen, out):
    """Add a run of equal pixels, each class once."""
    in_truth, in_prediction = 0, 0
    for g in range(len(truth)):
        k = _class_of(truth[g, start], row_of)
        if k < none and seen[0, k] != start:
            seen[0, k] = start
            in_truth += 1
            out[1, k] += length
    for p in range(len(prediction)):
        k = _class_of(prediction[p, start], column_of)
        if k < none and seen[1, k] != start:
            seen[1, k] = start
            in_prediction += 1
            out[2, k] += length
            out[0, k] += length * (seen[0, k] == start)
    out[0, none] += length * (in_truth == 0 and in_prediction == 0)
    out[1, none] += length * (in_truth == 0)
    out[2, none] += length * (in_prediction == 0)
    out[1, none + 1] += length * (in_truth > 1)
    out[2, none + 1] += length * (in_prediction > 1)
