"""What queries say of the pixels of an image, computed row by row from their masks, which are coarser.

Nothing here holds an array (Q, H, W): a band of rows at a time, or a winner for each pixel.
Axes: Q queries, K classes, N objects or kept queries, R runs, h, w sides of masks, H, W of the pixels.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.upsample_argmax import in_threads, label_dtype

BAND_VALUES = 2**21  # of all queries, or of all classes, in a band of cells: 8 MB, which hides what starting on a band costs


@dataclass(frozen=True, eq=False)
class Place:
    """The pixels of an image that masks cover: the `first` row and column of them, and where each lies in the masks.

    `rows` float64 (H,) and `columns` (W,) are in values of the masks: value i lies at i, and pixels beyond the outermost values
    take their place.
    """

    first: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(
        cls,
        corner: tuple[int, ...],
        tile: tuple[int, ...],
        masks: tuple[int, ...],
        ratio: tuple[float, ...],
        shape: tuple[int, ...],
    ) -> "Place":
        """The pixels of an image (H, W) whose centres a tile sees that begins at a corner of what the network sees.

        `masks` (h, w) cover the tile; each of its pixels is `ratio` pixels of the image.
        """
        firsts, places = [], []
        for start, side, count, factor, size in zip(corner, tile, masks, ratio, shape, strict=True):
            first, stop = (int(np.clip(np.ceil(at * factor - 0.5), 0, size)) for at in (start, start + side))
            at = ((np.arange(first, stop) + 0.5) / factor - start) * (count / side) - 0.5
            firsts.append(first)
            places.append(np.clip(at, 0.0, count - 1.0))
        return cls((firsts[0], firsts[1]), places[0], places[1])

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        return len(self.rows), len(self.columns)


def class_labels(class_probs: np.ndarray, mask_logits: np.ndarray, place: Place) -> np.ndarray:
    """The class of each pixel with the highest sum over queries of class times mask probability, uint8 or uint16 (H, W).

    Probabilities are float32 (Q, K), mask logits (Q, h, w); logits are interpolated, and then made probabilities. In a cell,
    the square between four neighbouring values, each is between their least and their greatest, and so is each sum: where a
    class is ahead of all others there anyhow, it has the cell, and only in the other cells pixels are looked at.
    """
    labels = np.empty(place.shape, label_dtype(class_probs.shape[1]))
    probs, weights = np.ascontiguousarray(class_probs, np.float32), np.ascontiguousarray(class_probs.T, np.float32)
    rows, columns = _split(place.rows), _split(place.columns)
    step = max(1, BAND_VALUES // max(max(class_probs.shape) * mask_logits.shape[2], 1))
    for first in range(0, mask_logits.shape[1], step):
        low, high = (
            (weights @ part.reshape(len(part), -1)).T  # (cells, K)
            for part in _limits(mask_logits[:, first : first + step + 1], min(step, mask_logits.shape[1] - first))
        )
        top, stop = np.searchsorted(rows[0], [first, first + step])
        least, limits = low.max(axis=1), np.ascontiguousarray(high)
        here = rows[0][top:stop], rows[1][top:stop], *columns, labels[top:stop]

        def fill(start: int, end: int, least=least, limits=limits, here=here, first=first) -> None:
            low, weight, column_low, column_weight, out = here
            part = low[start:end], weight[start:end], column_low, column_weight, out[start:end]
            _label(probs, mask_logits, least, limits, first, *part)

        in_threads(fill, stop - top, (stop - top) * place.shape[1])
    return labels


def _limits(mask_logits: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest probability in each cell, float32 (Q, rows, w): next to the last value there is none."""
    probs = to_probabilities(mask_logits.copy())
    limits = []
    for bound in (np.minimum, np.maximum):
        found = probs.copy()
        bound(found[:, :, :-1], probs[:, :, 1:], out=found[:, :, :-1])
        bound(found[:, :-1], found[:, 1:].copy(), out=found[:, :-1])
        limits.append(np.ascontiguousarray(found[:, :rows]))
    return limits[0], limits[1]


def to_probabilities(logits: np.ndarray) -> np.ndarray:
    """The logistic function of logits float32 (...), written over them."""
    np.negative(logits, out=logits)
    np.minimum(logits, 80.0, out=logits)  # of which float32 still holds the exponential
    np.exp(logits, out=logits)
    logits += 1
    return np.reciprocal(logits, out=logits)


def mean_probabilities(mask_logits: np.ndarray, masks: MaskRuns, place: Place) -> np.ndarray:
    """The mean probability of the pixels of each object, float32 (N,), whose logits are (N, h, w); 0 where it has none."""
    return _means(mask_logits, masks.runs, masks.starts, np.array(place.first), *_split(place.rows), *_split(place.columns))


def winners(scores: np.ndarray, mask_logits: np.ndarray, place: Place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of N queries has the highest score times probability at each pixel; scores are (N,), mask logits (N, h, w).

    They are an int32 map (H, W), i + 1 where query i wins with a probability of a half at least, else 0; the pixels that each
    wins with whatever probability, int64 (N,); and those where it has a half at least, int64 (N,).
    """
    found, counts = np.zeros(place.shape, np.int32), []
    rows, columns = _split(place.rows), _split(place.columns)

    def fill(first: int, stop: int) -> None:
        part = rows[0][first:stop], rows[1][first:stop]
        counts.append(_winners(np.asarray(scores, np.float32), mask_logits, *part, *columns, found[first:stop]))

    in_threads(fill, len(found), found.size)
    won, half = np.stack(counts).sum(axis=0)
    return found, won, half


def _split(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The value before each place, int64, and the share of the one behind it, float32."""
    low = np.floor(places).astype(np.int64)
    return low, (places - low).astype(np.float32)


@njit(cache=True, nogil=True)
def _mix_rows(mask, low, weight, line):
    """Write the row of a mask (h, w) that lies between row `low` and the next to `line` (w,)."""
    second = min(low + 1, len(mask) - 1)
    for j in range(len(line)):
        line[j] = mask[low, j] + weight * (mask[second, j] - mask[low, j])


@njit(cache=True, nogil=True)
def _label(probs, masks, least, limits, first, row_low, row_weight, column_low, column_weight, out):
    """Write labels of rows (n, W) to `out`; `least` (cells,) and `limits` (cells, K) are of cells from row `first` on.

    The first is what the best class has at least in a cell, and the second what each class has at most.
    """
    Q, K = probs.shape
    h, w = masks.shape[1:]
    candidates, scores = np.empty(K, np.int64), np.empty(K, np.float32)
    lines, loaded = np.empty((Q, w), np.float32), -1
    for y in range(out.shape[0]):
        x = 0
        while x < out.shape[1]:
            left = column_low[x]
            stop = x + 1
            while stop < out.shape[1] and column_low[stop] == left:
                stop += 1
            cell, count = (row_low[y] - first) * w + left, 0
            for k in range(K):
                if limits[cell, k] >= least[cell]:
                    candidates[count] = k
                    count += 1
            if count == 1:
                out[y, x:stop] = candidates[0]
                x = stop
                continue
            if loaded != y:
                for q in range(Q):
                    _mix_rows(masks[q], row_low[y], row_weight[y], lines[q])
                loaded = y
            right = min(left + 1, w - 1)
            for at in range(x, stop):
                scores[:count] = 0
                for q in range(Q):
                    value = lines[q, left] + column_weight[at] * (lines[q, right] - lines[q, left])
                    share = np.float32(1) / (np.float32(1) + np.exp(-value))
                    for n in range(count):
                        scores[n] += probs[q, candidates[n]] * share
                out[y, at] = candidates[np.argmax(scores[:count])]
            x = stop


@njit(cache=True, nogil=True)
def _means(masks, runs, starts, first, row_low, row_weight, column_low, column_weight):
    """See `mean_probabilities`; `first` int64 (2,) is the pixel that places begin with."""
    last = masks.shape[2] - 1
    means, line = np.zeros(len(masks), np.float32), np.empty(masks.shape[2], np.float32)
    for n in range(len(masks)):
        total, count, loaded = 0.0, 0, -1
        for r in range(starts[n], starts[n + 1]):
            y = runs[r, 0] - first[0]
            if y != loaded:
                _mix_rows(masks[n], row_low[y], row_weight[y], line)
                loaded = y
            for x in range(runs[r, 1] - first[1], runs[r, 2] - first[1]):
                low = column_low[x]
                value = line[low] + column_weight[x] * (line[min(low + 1, last)] - line[low])
                total += 1 / (1 + np.exp(-value))
            count += runs[r, 2] - runs[r, 1]
        if count:
            means[n] = total / count
    return means


@njit(cache=True, nogil=True)
def _winners(scores, masks, row_low, row_weight, column_low, column_weight, out):
    """See `winners`; `out` int32 (n, W) are some of the rows, and the counts of both kinds int64 (2, N) come back."""
    N, _, w = masks.shape
    counts, lines = np.zeros((2, N), np.int64), np.empty((N, w), np.float32)
    for y in range(out.shape[0] if N else 0):
        for n in range(N):
            _mix_rows(masks[n], row_low[y], row_weight[y], lines[n])
        for x in range(out.shape[1]):
            low, high, weight = column_low[x], min(column_low[x] + 1, w - 1), column_weight[x]
            winner, top, is_half = 0, np.float32(-1), False
            for n in range(N):
                value = lines[n, low] + weight * (lines[n, high] - lines[n, low])
                counts[1, n] += value >= 0
                if value < 0 and scores[n] <= 2 * top:  # its probability is below a half: it cannot win
                    continue
                product = scores[n] / (1 + np.exp(-value))
                if product > top:
                    winner, top, is_half = n, product, value >= 0
            counts[0, winner] += 1
            if is_half:
                out[y, x] = winner + 1
    return counts
