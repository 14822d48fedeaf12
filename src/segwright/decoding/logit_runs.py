"""From coarse logits of masks to the runs of pixels that are above 0; no logit exists at the size of the image.

Bilinear interpolation inside a cell, the square between four neighbouring values, stays between the least and the greatest of
its corners. So where these lie on one side of all thresholds nothing is computed, and a run of such cells is one step; pixels
are interpolated one by one only where a border passes.

Axes: N masks, h, w sides of their logits, H, W of the pixels, R runs.
"""

import numpy as np
from numba import njit

from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.query_pixels import Place
from segwright.decoding.upsample_argmax import in_threads

OFFSET = 1.0  # logits about 0 that a mask which is stable can be cut at, with Segment Anything's authors
MIXED = -1  # the state of a cell that a threshold passes through


def runs_of_logits(logits: np.ndarray, place: Place) -> tuple[MaskRuns, np.ndarray]:
    """The pixels of masks whose logits float32 (N, h, w), brought bilinearly to a place in an image, are above 0.

    With them the stability of each, float32 (N,): its pixels above `OFFSET` as a share of those above -`OFFSET`, which is near
    1 where the border is sharp; 0 where there are none.
    """
    logits = np.ascontiguousarray(logits, np.float32)
    rows, columns = _corners(place.rows), _corners(place.columns)
    parts: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def cut(first: int, stop: int) -> None:
        parts[first] = _cut(logits[first:stop], *rows, *columns)

    in_threads(cut, len(logits), len(logits) * place.shape[0] * place.shape[1])
    found = [parts[first] for first in sorted(parts)]
    masks = MaskRuns.joined([MaskRuns(runs, starts) for runs, starts, _ in found])
    masks.runs[:] += np.array([place.first[0], place.first[1], place.first[1]], np.int32)
    counts = np.concatenate([np.zeros((0, 2), np.int64), *(each for _, _, each in found)])
    return masks, (counts[:, 1] / np.maximum(counts[:, 0], 1)).astype(np.float32)


def _corners(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value before each place, int64, and the share of the one behind it, float32."""
    low = np.floor(places).astype(np.int64)
    return low, (places - low).astype(np.float32)


@njit(cache=True, nogil=True)
def _cut(logits, row_low, row_weight, column_low, column_weight):
    """Runs int32 (R, 3), where those of each mask start, int64 (N + 1,), its pixels above either threshold, int64 (N, 2)."""
    N, h, w = logits.shape
    H, W = len(row_low), len(column_low)
    first_column = np.searchsorted(column_low, np.arange(w + 1))  # of each column of cells
    runs, size = np.empty((1024, 3), np.int32), 0
    starts, counts = np.zeros(N + 1, np.int64), np.zeros((N, 2), np.int64)
    parts = np.empty((w, 3), np.int64)  # state, first and last cell of what a row of cells is made of
    for n in range(N):
        y = 0
        while y < H:
            low = row_low[y]
            high = min(low + 1, h - 1)
            stop = y + 1
            while stop < H and row_low[stop] == low:
                stop += 1
            count = _states(logits[n, low], logits[n, high], first_column, parts)
            if count == 1 and parts[0, 0] == 0:
                y = stop
                continue
            for i in range(y, stop):
                if size + W >= len(runs):
                    longer = np.empty((2 * (size + W), 3), np.int32)
                    longer[:size] = runs[:size]
                    runs = longer
                weight = row_weight[i]
                size = _cut_row(
                    logits[n, low], logits[n, high], weight, column_low, column_weight, first_column,
                    parts[:count], i, runs, size, counts[n],
                )  # fmt: skip
            y = stop
        starts[n + 1] = size
    return runs[:size].copy(), starts, counts


@njit(cache=True, nogil=True)
def _level(value):
    """How many of the three thresholds lie below a value."""
    return int(value > -OFFSET) + int(value > 0) + int(value > OFFSET)


@njit(cache=True, nogil=True)
def _states(upper, lower, first_column, parts):
    """Write how many thresholds lie below all pixels of neighbouring cells, or MIXED, to `parts` (w, 3); how many these are."""
    w, count = len(upper), 0
    for j in range(w):
        if first_column[j] == first_column[j + 1]:
            continue
        k = min(j + 1, w - 1)
        least = min(min(upper[j], upper[k]), min(lower[j], lower[k]))
        greatest = max(max(upper[j], upper[k]), max(lower[j], lower[k]))
        state = _level(least)
        if state != _level(greatest):
            state = MIXED
        if count and parts[count - 1, 0] == state:
            parts[count - 1, 2] = j
        else:
            parts[count, 0], parts[count, 1], parts[count, 2] = state, j, j
            count += 1
    return count


@njit(cache=True, nogil=True)
def _cut_row(upper, lower, weight, column_low, column_weight, first_column, parts, row, runs, size, counts):
    """Add the runs of one row of pixels to `runs`, and its pixels above either threshold to `counts` (2,); the new size."""
    is_open = False
    last = len(upper) - 1
    for p in range(len(parts)):
        start, stop = first_column[parts[p, 1]], first_column[parts[p, 2] + 1]
        if parts[p, 0] != MIXED:
            is_above = parts[p, 0] >= 2
            counts[0] += (stop - start) * (parts[p, 0] >= 1)
            counts[1] += (stop - start) * (parts[p, 0] >= 3)
            if is_above and not is_open:
                runs[size, 0], runs[size, 1] = row, start
            elif is_open and not is_above:
                runs[size, 2] = start
                size += 1
            is_open = is_above
            continue
        for x in range(start, stop):
            j = column_low[x]
            k = min(j + 1, last)
            left = upper[j] + weight * (lower[j] - upper[j])
            right = upper[k] + weight * (lower[k] - upper[k])
            value = left + column_weight[x] * (right - left)
            counts[0] += value > -OFFSET
            counts[1] += value > OFFSET
            if value > 0 and not is_open:
                runs[size, 0], runs[size, 1] = row, x
                is_open = True
            elif is_open and value <= 0:
                runs[size, 2] = x
                size += 1
                is_open = False
    if is_open:
        runs[size, 2] = len(column_low)
        size += 1
    return size
