"""Masks of many objects as runs of pixels: small, whatever the size of the image, and quick to compare and to draw.

Axes: N objects, R runs, E pairs of objects, P planes, H, W sides of the image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

ALL_TAKEN = 255  # eight bits, one for each plane that is taken at a pixel
ROW = np.int64(2**32)  # more than any column, so that places are in the order of reading


@dataclass(frozen=True, eq=False)
class MaskRuns:
    """The pixels of N objects as runs: those of object i are `runs[starts[i] : starts[i + 1]]`.

    `runs` int32 (R, 3) are (row, first column, column after the last), in the order of reading; `starts` int64 (N + 1,).
    """

    runs: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, objects: Sequence[np.ndarray]) -> "MaskRuns":
        """The objects that have these runs (r, 3) each."""
        runs = np.concatenate([np.empty((0, 3), np.int32), *objects])
        return cls(runs, np.cumsum([0, *map(len, objects)], dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence["MaskRuns"]) -> "MaskRuns":
        """The objects of all parts, one part after the other."""
        sizes = np.concatenate([[0], *(np.diff(part.starts) for part in parts)])
        return cls(
            np.concatenate([np.empty((0, 3), np.int32), *(part.runs for part in parts)]), np.cumsum(sizes, dtype=np.int64)
        )

    @classmethod
    def of_map(cls, segment_map: np.ndarray, count: int, first: tuple[int, int] = (0, 0)) -> "MaskRuns":
        """The `count` objects of a map int32 (h, w), in which i + 1 marks object i, and whose first pixel is at `first`."""
        runs, starts = _runs_of_map(segment_map, count)
        runs += np.array([first[0], first[1], first[1]], np.int32)
        return cls(runs, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The runs (r, 3) of one object."""
        return self.runs[self.starts[index] : self.starts[index + 1]]

    def taken(self, numbers: np.ndarray) -> "MaskRuns":
        """The objects with these numbers, in their order."""
        return MaskRuns.of([self[number] for number in numbers])

    def areas(self) -> np.ndarray:
        """Number of pixels of each object, int64 (N,)."""
        upto = np.concatenate([[0], np.cumsum(self.runs[:, 2] - self.runs[:, 1], dtype=np.int64)])
        return upto[self.starts[1:]] - upto[self.starts[:-1]]

    def extents(self) -> np.ndarray:
        """The smallest box around each object, none empty, int64 (N, 4): (top, left, bottom, right), the last two outside."""
        if not len(self):
            return np.zeros((0, 4), np.int64)
        first, last = self.starts[:-1], self.starts[1:] - 1
        left, right = np.minimum.reduceat(self.runs[:, 1], first), np.maximum.reduceat(self.runs[:, 2], first)
        return np.stack([self.runs[first, 0], left, self.runs[last, 0] + 1, right], axis=1).astype(np.int64)

    def planes(self, shape: tuple[int, ...]) -> np.ndarray:
        """Planes int32 (P, H, W), in which i + 1 marks object i: each in the first where all of its pixels are free.

        For each pixel, a byte tells which of eight planes are taken there, so that all of them are looked at in one pass.
        """
        places, waiting, first = np.zeros(len(self), np.int64), np.arange(len(self)), 0
        while len(waiting):
            has_none = _place(self.runs, self.starts, waiting, np.zeros(shape, np.uint8), first, places)
            waiting, first = waiting[has_none], first + 8
        planes = np.zeros((1 + int(places.max(initial=0)), *shape), np.int32)
        _write(self.runs, self.starts, places, planes)
        return planes

    def painted(self, shape: tuple[int, ...]) -> np.ndarray:
        """One map int32 (H, W), in which i + 1 marks object i; later objects cover earlier ones, and 0 marks what is left."""
        plane = np.zeros((1, *shape), np.int32)
        _write(self.runs, self.starts, np.zeros(len(self), np.int64), plane)
        return plane[0]


def union_of_runs(objects: Sequence[np.ndarray]) -> np.ndarray:
    """The runs int32 (r, 3) of all pixels of some objects, each of runs of its own."""
    runs = np.concatenate(objects).astype(np.int64)
    first, stop = runs[:, 0] * ROW + runs[:, 1], runs[:, 0] * ROW + runs[:, 2]
    order = np.argsort(first, kind="stable")
    first, stop = first[order], np.maximum.accumulate(stop[order])
    begins = np.concatenate([[True], first[1:] > stop[:-1]])  # a run that meets the one before it goes on
    ends = np.concatenate([begins[1:], [True]])
    return np.stack([first[begins] // ROW, first[begins] % ROW, stop[ends] % ROW], axis=1).astype(np.int32)


def mask_overlaps(
    masks: MaskRuns, extents: np.ndarray, some: range, others: range, window: tuple[int, int, int, int]
) -> np.ndarray:
    """The pairs of objects whose extents meet in a window, int64 (E, 5).

    Columns are the number of one among `some`, of one among `others`, and the pixels of the window that are in both, in the
    first and in the second. The `window` is (top, left, bottom, right), the last two outside. `extents` int64 (N, 4) are those
    of the masks, or wider ones, which find pairs that are only close.
    """
    limits = np.array([some.start, some.stop, others.start, others.stop])
    return _overlaps(masks.runs, masks.starts, extents, limits, np.array(window))


def surest_masks(masks: MaskRuns, order: np.ndarray, iou: float) -> np.ndarray:
    """The numbers of the masks that stay, int64 (n,), in an `order` of all, the best first, in which each drops its like.

    A mask goes where its overlap (IoU) with one that stays is above `iou`; a mask without a pixel goes.
    """
    areas = masks.areas()
    order = np.asarray(order, np.int64)[areas[order] > 0]
    extents = np.zeros((len(masks), 4), np.int64)
    extents[order] = masks.taken(order).extents()
    return _surest(masks.runs, masks.starts, extents, areas, order, iou)


@njit(cache=True, nogil=True)
def _surest(runs, starts, extents, areas, order, iou):
    """See `surest_masks`. What areas and boxes alone tell is asked first: few pairs are compared run by run."""
    kept, count = np.empty(len(order), np.int64), 0
    window = np.empty(4, np.int64)
    for n in order:
        is_new = True
        for k in range(count):
            other = kept[k]
            for side in range(2):
                window[side] = max(extents[n, side], extents[other, side])
                window[side + 2] = min(extents[n, side + 2], extents[other, side + 2])
            box = max(window[2] - window[0], 0) * max(window[3] - window[1], 0)
            both = areas[n] + areas[other]
            most = min(min(areas[n], areas[other]), box)
            if most <= iou * (both - most):
                continue
            shared = _shared(runs[starts[n] : starts[n + 1]], runs[starts[other] : starts[other + 1]], window)
            if shared > iou * (both - shared):
                is_new = False
                break
        if is_new:
            kept[count] = n
            count += 1
    return kept[:count].copy()


@njit(cache=True, nogil=True)
def _overlaps(runs, starts, extents, limits, window):
    """See `mask_overlaps`; `limits` int64 (4,) are those of both ranges."""
    found, count = np.empty((64, 5), np.int64), 0
    near = np.empty(limits[3] - limits[2], np.int64)  # of the others, those in the window
    size = 0
    for b in range(limits[2], limits[3]):
        if _do_meet(extents[b], window):
            near[size] = b
            size += 1
    for a in range(limits[0], limits[1]):
        if not _do_meet(extents[a], window):
            continue
        for k in range(size):
            b = near[k]
            if not _do_meet(extents[a], extents[b]):
                continue
            one, other = runs[starts[a] : starts[a + 1]], runs[starts[b] : starts[b + 1]]
            if count == len(found):
                larger = np.empty((2 * count, 5), np.int64)
                larger[:count] = found
                found = larger
            found[count, 0], found[count, 1], found[count, 2] = a, b, _shared(one, other, window)
            found[count, 3], found[count, 4] = _area(one, window), _area(other, window)
            count += 1
    return found[:count].copy()


@njit(cache=True, nogil=True)
def _do_meet(extent, window):
    """Whether two boxes (top, left, bottom, right) have a pixel in common."""
    return extent[0] < window[2] and extent[2] > window[0] and extent[1] < window[3] and extent[3] > window[1]


@njit(cache=True, nogil=True)
def _area(runs, window):
    """The pixels of an object that lie in a window."""
    total = np.int64(0)
    for r in range(len(runs)):
        if window[0] <= runs[r, 0] < window[2]:
            total += max(min(runs[r, 2], window[3]) - max(runs[r, 1], window[1]), 0)
    return total


@njit(cache=True, nogil=True)
def _shared(one, other, window):
    """The pixels of a window that two objects have in common."""
    total, r, q = np.int64(0), 0, 0
    while r < len(one) and q < len(other):
        if one[r, 0] < other[q, 0]:
            r += 1
        elif one[r, 0] > other[q, 0]:
            q += 1
        else:
            if window[0] <= one[r, 0] < window[2]:
                low, high = max(one[r, 1], other[q, 1], window[1]), min(one[r, 2], other[q, 2], window[3])
                total += max(high - low, 0)
            if one[r, 2] < other[q, 2]:
                r += 1
            else:
                q += 1
    return total


@njit(cache=True, nogil=True)
def _place(runs, starts, objects, taken, first_plane, places):
    """Give some objects a place in eight planes; whether there was none, for each. `taken` uint8 (H, W) are bits."""
    is_left = np.zeros(len(objects), np.bool_)
    for k in range(len(objects)):
        n = objects[k]
        used = np.uint64(0)  # for bytes, numba writes no vector instructions
        for r in range(starts[n], starts[n + 1]):
            below = taken[runs[r, 0], runs[r, 1] : runs[r, 2]]
            for i in range(len(below)):
                used |= below[i]
        if used == ALL_TAKEN:
            is_left[k] = True
            continue
        plane = 0
        while used >> plane & 1:
            plane += 1
        places[n] = first_plane + plane
        for r in range(starts[n], starts[n + 1]):
            below = taken[runs[r, 0], runs[r, 1] : runs[r, 2]]
            for i in range(len(below)):
                below[i] |= np.uint8(1 << plane)
    return is_left


@njit(cache=True, nogil=True)
def _write(runs, starts, places, planes):
    """Write n + 1 at the pixels of each object n into its plane of planes int32 (P, H, W) that are empty."""
    for n in range(len(places)):
        for r in range(starts[n], starts[n + 1]):
            planes[places[n], runs[r, 0], runs[r, 1] : runs[r, 2]] = n + 1


@njit(cache=True, nogil=True)
def _runs_of_map(segment_map, count):
    """The runs int32 (R, 3) of the objects of a map int32 (h, w), and where those of each start, int64 (count + 1,)."""
    height, width = segment_map.shape
    starts = np.zeros(count + 1, np.int64)
    for y in range(height):
        last = 0
        for x in range(width):
            value = segment_map[y, x]
            if value > 0 and value != last:
                starts[value] += 1
            last = value
    starts = np.cumsum(starts)
    runs, at = np.empty((starts[count], 3), np.int32), starts.copy()  # of each object, the run to come
    for y in range(height):
        last = 0
        for x in range(width):
            value = segment_map[y, x]
            if value > 0 and value != last:
                runs[at[value - 1], 0], runs[at[value - 1], 1] = y, x
                at[value - 1] += 1
            if value > 0:
                runs[at[value - 1] - 1, 2] = x + 1
            last = value
    return runs, starts
