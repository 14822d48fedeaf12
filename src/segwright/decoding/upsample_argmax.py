"""Logits to labels at the full size in one pass. Axes: K classes, *s spatial axes of the logits, *S of the labels.

Bilinear interpolation inside a cell (the square between four neighbouring logit centres) is a convex combination of its four
corners. So where one class wins all four corners, it wins the whole cell and nothing is computed; in the other cells a class
whose best corner lies below another class's worst corner can win nowhere, and only the rest is interpolated. What is left is
little work on real predictions, and no array (K, *S) ever exists.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numba import njit

from segwright.core.errors import ShapeError

Span = tuple[float, float]

BAND_PIXELS = 2**16  # a band this large takes about a millisecond, ten times what starting a thread costs


def upsample_argmax(logits: np.ndarray, shape: tuple[int, ...], spans: tuple[Span, ...] | None = None) -> np.ndarray:
    """The winning class of each pixel, uint8 (*S) up to 255 classes, else uint16, of float32 logits (K, *s) at size `shape`.

    Equals `argmax(F.interpolate(logits, shape, mode="bilinear", align_corners=False))` (trilinear in 3D) up to ties within
    rounding. `spans` names the part of the logits that the labels cover, from edge to edge per axis in logit pixels: (0, s)
    for each axis unless it is given; less where the image was padded before it went into the network.

    Raises:
        ShapeError: logits and shape differ in their number of axes, which must be 2 or 3, or there are no classes.
    """
    spans = spans or tuple((0.0, float(size)) for size in logits.shape[1:])
    if not len(logits.shape) - 1 == len(shape) == len(spans) or len(shape) not in (2, 3) or 0 in logits.shape:
        raise ShapeError(
            f"logits {logits.shape} cannot become labels {shape} over {len(spans)} spans; "
            "give logits (K, *s) with K >= 1, a shape of the same 2 or 3 axes and one span per axis"
        )
    out = np.empty(shape, dtype=label_dtype(len(logits)))
    where = [places(size, count, span) for size, count, span in zip(shape, logits.shape[1:], spans, strict=True)]
    fill_labels(np.ascontiguousarray(logits, dtype=np.float32), where, out)
    return out


def label_dtype(num_classes: int) -> type[np.unsignedinteger]:
    """uint8 up to 255 classes, which leaves one value for void in a file, else uint16."""
    return np.uint8 if num_classes <= 255 else np.uint16


def places(size: int, count: int, span: Span) -> np.ndarray:
    """Where `size` pixel centres lie on an axis of `count` logits that they cover from edge to edge of `span`, float64.

    Logit i lies at place i; pixels beyond the first or the last logit take its place.
    """
    start, stop = span
    return np.clip(start + (np.arange(size) + 0.5) * ((stop - start) / size) - 0.5, 0.0, count - 1.0)


def fill_labels(logits: np.ndarray, where: list[np.ndarray], out: np.ndarray) -> None:
    """Write the labels of the pixels at the places `where` of logits (K, *s), one array per axis, into `out` (*S)."""
    low = [np.floor(place).astype(np.int64) for place in where]
    weight = [(place - corner).astype(np.float32) for place, corner in zip(where, low, strict=True)]
    if not any(each.any() for each in weight) and all(np.array_equal(each, each[0] + np.arange(len(each))) for each in low):
        front, *rest = (int(each[0]) for each in low)  # at full size: nothing to interpolate
        planes, labels, at = (logits, out, rest) if out.ndim == 3 else (logits[:, :, None], out[:, None], [0, *rest])
        in_threads(lambda first, stop: _winning_classes(planes, (front + first, *at), labels[first:stop]), len(out), out.size)
        return
    others = [array for pair in zip(low[1:], weight[1:], strict=True) for array in pair]
    kernel: Callable[..., None] = _fill_planes if out.ndim == 3 else _fill_rows
    in_threads(
        lambda first, stop: kernel(logits, low[0][first:stop], weight[0][first:stop], *others, out[first:stop]),
        len(out),
        out.size,
    )


def in_threads(work: Callable[[int, int], None], rows: int, pixels: int) -> None:
    """Do `work(first, stop)` for so many rows, which are so many pixels: in bands in threads where they are many."""
    cores = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # those that this process may use
    count = max(1, min(rows, cores, pixels // BAND_PIXELS))
    if count == 1:
        work(0, rows)
        return
    cuts = np.linspace(0, rows, count + 1).astype(int)
    with ThreadPoolExecutor(count) as pool:  # the kernels hold no lock; numba's own threads may not be used from two threads
        list(pool.map(work, cuts[:-1], cuts[1:]))


@njit(cache=True, nogil=True)
def _winning_classes(logits, corner, out):
    """Labels (D, H, W) of the box at `corner` of logits (K, d, h, w), the first of classes that are equal."""
    front, first, left = corner
    D, H, W = out.shape
    top, best = np.empty(W, np.float32), np.empty(W, np.int32)
    for z in range(D):
        for y in range(H):
            top[:] = logits[0, front + z, first + y, left : left + W]
            best[:] = 0
            for k in range(1, len(logits)):
                values = logits[k, front + z, first + y, left : left + W]
                for x in range(W):
                    best[x] = np.int32(k) if values[x] > top[x] else best[x]
                    top[x] = max(values[x], top[x])
            for x in range(W):
                out[z, y, x] = best[x]


@njit(cache=True, nogil=True)
def _fill_planes(logits, plane_low, plane_weight, row_low, row_weight, column_low, column_weight, out):
    """Labels (D, H, W) of logits (K, d, h, w): each plane is mixed from the two logit planes around it, then filled in 2D."""
    last = logits.shape[1] - 1
    for z in range(out.shape[0]):
        low, weight = plane_low[z], plane_weight[z]
        if weight == 0.0:
            plane = np.ascontiguousarray(logits[:, low])
        else:
            plane = logits[:, low] + weight * (logits[:, min(low + 1, last)] - logits[:, low])
        _fill_rows(plane, row_low, row_weight, column_low, column_weight, out[z])


@njit(cache=True, nogil=True)
def _fill_rows(logits, row_low, row_weight, column_low, column_weight, out):
    """Labels (H, W) of logits (K, h, w), one row of cells after the other."""
    K, h, w = logits.shape
    H, W = out.shape
    upper, lower = np.empty((w, K), np.float32), np.empty((w, K), np.float32)  # two rows of logits, classes innermost
    upper_best, lower_best = np.empty(w, np.int32), np.empty(w, np.int32)
    candidates, ends = np.zeros(K, np.int32), np.zeros((2, K), np.float32)
    loaded = -2  # the row of logits in `upper`; none yet
    y = 0
    while y < H:
        row = row_low[y]
        if row == loaded + 1:
            upper, lower, upper_best, lower_best = lower, upper, lower_best, upper_best
        elif row != loaded:
            _load_row(logits, row, upper, upper_best)
        if row != loaded:
            _load_row(logits, min(row + 1, h - 1), lower, lower_best)
            loaded = row
        stop = _end_of_run(row_low, y)
        x = 0
        while x < W:
            left = column_low[x]
            right = min(left + 1, w - 1)
            end = _end_of_run(column_low, x)
            best = upper_best[left]
            if best == upper_best[right] and best == lower_best[left] and best == lower_best[right]:
                out[y:stop, x:end] = best
            else:
                count = _contenders(upper[left], upper[right], lower[left], lower[right], candidates)
                for i in range(y, stop):
                    _mix(upper[left], upper[right], lower[left], lower[right], row_weight[i], candidates[:count], ends)
                    for j in range(x, end):
                        out[i, j] = candidates[_highest(ends, column_weight[j], count)]
            x = end
        y = stop


@njit(cache=True, nogil=True)
def _end_of_run(values, first):
    """The index behind the run of equal values that starts at `first`."""
    end = first + 1
    while end < len(values) and values[end] == values[first]:
        end += 1
    return end


@njit(cache=True, nogil=True)
def _winners(logits, row, best):
    """Write the winning class of each logit in one row of logits (K, h, w) to `best` int32 (w,)."""
    top = logits[0, row].copy()
    best[:] = 0
    for k in range(1, len(logits)):
        values = logits[k, row]
        for x in range(len(top)):
            best[x] = k if values[x] > top[x] else best[x]
            top[x] = max(values[x], top[x])


@njit(cache=True, nogil=True)
def _load_row(logits, row, values, best):
    """Copy one row of logits (K, h, w) into `values` (w, K) and its winners into `best` (w,)."""
    _winners(logits, row, best)
    for k in range(len(logits)):
        for x in range(len(best)):
            values[x, k] = logits[k, row, x]


@njit(cache=True, nogil=True)
def _contenders(a, b, c, d, candidates):
    """How many classes may win somewhere between four corners (K,), written to `candidates` in rising order."""
    floor = min(min(a[0], b[0]), min(c[0], d[0]))
    for k in range(1, len(a)):
        floor = max(floor, min(min(a[k], b[k]), min(c[k], d[k])))
    count = 0
    for k in range(len(a)):
        if max(max(a[k], b[k]), max(c[k], d[k])) >= floor:
            candidates[count] = k
            count += 1
    return count


@njit(cache=True, nogil=True)
def _mix(upper_left, upper_right, lower_left, lower_right, weight, candidates, ends):
    """Write each candidate's logit on the cell's left side, and its rise to the right side, to `ends` (2, K)."""
    for n in range(len(candidates)):
        k = candidates[n]
        ends[0, n] = upper_left[k] + weight * (lower_left[k] - upper_left[k])
        ends[1, n] = upper_right[k] + weight * (lower_right[k] - upper_right[k]) - ends[0, n]


@njit(cache=True, nogil=True)
def _highest(ends, weight, count):
    """The number of the candidate with the highest logit at a place between the two sides of a cell."""
    winner, top = 0, ends[0, 0] + weight * ends[1, 0]
    for n in range(1, count):
        value = ends[0, n] + weight * ends[1, n]
        if value > top:
            winner, top = n, value
    return winner
