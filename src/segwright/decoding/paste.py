"""Masks as networks say them, at the pixels of an image: as runs of pixels, and in planes, never as an array (N, H, W).

Between four values of a mask probabilities are bilinear, so along a row, from one column of values to the next, they rise or fall
in a straight line, which passes the threshold once at most. That place is computed, and what lies on its sure side is one run:
the work grows with the values of the masks and not with their pixels.

Axes: N objects, R runs of pixels, P planes, h, w sides of masks, H, W sides of the image.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from segwright.core.errors import ShapeError

THRESHOLD = 0.5  # probability from which on a pixel belongs to an object
RUNS_PER_OBJECT = 64  # room to begin with; it doubles where it does not suffice
ALL_TAKEN = 255  # eight bits, one for each plane that is taken at a pixel


@dataclass(frozen=True, eq=False)
class MaskRuns:
    """The pixels of N objects as runs: those of object i are `runs[starts[i] : starts[i + 1]]`.

    `runs` int32 (R, 3) are (row, first column, column after the last), in the order of reading; `starts` int64 (N + 1,).
    """

    runs: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, index: int) -> np.ndarray:
        """The runs of one object."""
        return self.runs[self.starts[index] : self.starts[index + 1]]

    def areas(self) -> np.ndarray:
        """Number of pixels of each object, int64 (N,)."""
        upto = np.concatenate([[0], np.cumsum(self.runs[:, 2] - self.runs[:, 1], dtype=np.int64)])
        return upto[self.starts[1:]] - upto[self.starts[:-1]]

    def taken(self, indices: np.ndarray) -> "MaskRuns":
        """The objects with these numbers, in their order."""
        return MaskRuns.joined([self.of(index) for index in indices])

    def planes(self, shape: tuple[int, int]) -> np.ndarray:
        """Planes int32 (P, H, W), in which i + 1 marks object i: each in the first where all of its pixels are free."""
        taken, places = [np.zeros(shape, np.uint8)], np.zeros(len(self), np.int64)
        left = np.arange(len(self))
        while len(left):
            left = left[_place(self.runs, self.starts, left, taken[-1], 8 * (len(taken) - 1), places)]
            if len(left):
                taken.append(np.zeros(shape, np.uint8))
        planes = np.zeros((1 + int(places.max(initial=0)), *shape), np.int32)
        _write(self.runs, self.starts, places, planes)
        return planes

    @classmethod
    def joined(cls, parts: "list[np.ndarray]") -> "MaskRuns":
        """The objects of which each has one of these arrays of runs (r, 3)."""
        runs = np.concatenate([np.empty((0, 3), np.int32), *parts])
        return cls(runs, np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64))


def paste(boxes: np.ndarray, masks: np.ndarray, regions: np.ndarray, is_whole: np.ndarray, shape: tuple[int, int]) -> MaskRuns:
    """The pixels (H, W) whose centres lie in the boxes (N, 4) and have a probability of a half at least.

    Masks (N, h, w) are spread evenly over regions (N, 4); both kinds of boxes are (x1, y1, x2, y2) in pixels, with left and top
    edge inside and right and bottom edge outside. Beyond a region all is 0, so that probabilities fade over the outer half of the
    outermost values, as they do in detectron2; where `is_whole` (N,), there is nothing to fade to, and these values reach on.
    Masks without values (N, 0, 0) fill their boxes.

    Raises:
        ShapeError: the numbers of boxes, masks and regions differ.
    """
    count = len(boxes)
    if boxes.shape != (count, 4) or regions.shape != (count, 4) or masks.ndim != 3 or len(masks) != count:
        raise ShapeError(
            f"boxes are {boxes.shape}, masks {masks.shape} and regions {regions.shape}; give (N, 4), (N, h, w) and (N, 4)"
        )
    runs, starts = _found(
        np.ascontiguousarray(boxes, np.float64),
        np.ascontiguousarray(masks, np.float32),
        np.ascontiguousarray(regions, np.float64),
        np.ascontiguousarray(is_whole, np.bool_),
        *shape,
    )
    return MaskRuns(runs, starts)


def on_whole_pixels(boxes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and regions (N, 4) with which `paste` does what torchvision does with these boxes and masks of `side` values.

    There a mask gets a frame of zeros, the box grows with it, is cut to whole numbers, and holds its last row and column.
    """
    if not side:
        return boxes, boxes
    boxes = np.asarray(boxes, np.float32)  # as torchvision computes them: what is cut off depends on it
    centres = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)
    halves = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * np.float32((side + 2) / side)
    low, high = np.trunc(centres - halves).astype(np.float64), np.trunc(centres + halves).astype(np.float64) + 1
    high = np.maximum(high, low + 1)
    frame = (high - low) / (side + 2)
    return np.concatenate([low, high], axis=1), np.concatenate([low + frame, high - frame], axis=1)


@njit(cache=True, nogil=True)
def _found(boxes, masks, regions, is_whole, height, width):
    """The runs int32 (R, 3) of all objects, and where those of each start, int64 (N + 1,); see `paste`."""
    N, h, w = masks.shape
    starts = np.zeros(N + 1, np.int64)
    runs, count = np.empty((RUNS_PER_OBJECT * max(N, 1), 3), np.int32), 0
    line = np.empty(w + 2, np.float64)  # a row of the mask, with a value more at both ends
    firsts = np.empty(w + 2, np.int64)  # of each of these values, the first column right of it
    for n in range(N):
        left, right = _inside(boxes[n, 0], boxes[n, 2], width)
        top, bottom = _inside(boxes[n, 1], boxes[n, 3], height)
        if left < right and top < bottom:
            x_scale, y_scale = (regions[n, 2] - regions[n, 0]) / max(w, 1), (regions[n, 3] - regions[n, 1]) / max(h, 1)
            is_empty = h * w > 0 and not (x_scale > 0 and y_scale > 0)
            for j in range(w + 2 if h * w > 0 and not is_empty else 0):
                firsts[j] = min(max(_column(regions[n, 0], x_scale, j - 1), left), right)
            for y in range(top, bottom if not is_empty else top):
                room = (right - left + 2) // 2 + 1
                if count + room > len(runs):
                    larger = np.empty((2 * len(runs) + room, 3), np.int32)
                    larger[:count] = runs[:count]
                    runs = larger
                if h * w == 0:
                    runs[count, 0], runs[count, 1], runs[count, 2] = y, left, right
                    count += 1
                    continue
                if _interpolate(masks[n], (y + 0.5 - regions[n, 1]) / y_scale - 0.5, is_whole[n], line):
                    ends = left, right
                    count = _runs_of_row(line, firsts, ends, regions[n, 0], x_scale, y, runs, count)
        starts[n + 1] = count
    return runs[:count].copy(), starts


@njit(cache=True, nogil=True)
def _inside(low, high, size):
    """The first pixel whose centre lies between two edges, and the one after the last, of `size` pixels."""
    return np.int64(min(max(np.ceil(low - 0.5), 0), size)), np.int64(min(max(np.ceil(high - 0.5), 0), size))


@njit(cache=True, nogil=True)
def _column(start, scale, value):
    """The first column whose centre is not left of the centre of a value, of those that begin at `start`."""
    return np.int64(np.ceil(start + (value + 0.5) * scale - 0.5))


@njit(cache=True, nogil=True)
def _interpolate(mask, at, is_whole, line):
    """Fill `line` (w + 2,) with the row of a mask (h, w) at a place, in rows; whether anything reaches the threshold there."""
    h, w = mask.shape
    if is_whole:
        at = min(max(at, 0.0), h - 1.0)
    low = np.int64(np.floor(at))
    share, has_any = at - low, False
    upper = 1 - share if 0 <= low < h else 0.0
    lower = share if 0 <= low + 1 < h else 0.0
    first, second = min(max(low, 0), h - 1), min(max(low + 1, 0), h - 1)
    for j in range(w):
        value = upper * mask[first, j] + lower * mask[second, j]
        line[j + 1] = value
        has_any |= value >= THRESHOLD
    line[0], line[w + 1] = (line[1], line[w]) if is_whole else (0.0, 0.0)
    return has_any


@njit(cache=True, nogil=True)
def _runs_of_row(line, firsts, ends, start, scale, y, runs, count):
    """Write the runs of a row of pixels behind the first `count`, and give their number; `line` (w + 2,) are its values."""
    left, right = ends
    begin = stop = left  # of the run that is being found
    for j in range(len(line) + 1):  # before the first value, between two, behind the last
        low = left if j == 0 else firsts[j - 1]
        high = right if j == len(line) else firsts[j]
        if low >= high:
            continue
        one, other = line[max(j - 1, 0)], line[min(j, len(line) - 1)]
        if one < THRESHOLD and other < THRESHOLD:
            continue
        if one < THRESHOLD or other < THRESHOLD:
            place = start + (j - 1.5 + (THRESHOLD - one) / (other - one)) * scale - 0.5  # `one` is value j - 2
            if one < THRESHOLD:
                low = min(max(np.int64(np.ceil(place)), low), high)
            else:
                high = min(max(np.int64(np.floor(place)) + 1, low), high)
        if low < high:
            if low > stop and stop > begin:
                runs[count, 0], runs[count, 1], runs[count, 2] = y, begin, stop
                count += 1
            if low > stop or stop == begin:
                begin = low
            stop = high
    if stop > begin:
        runs[count, 0], runs[count, 1], runs[count, 2] = y, begin, stop
        count += 1
    return count


@njit(cache=True, nogil=True)
def _place(runs, starts, objects, taken, first_plane, places):
    """Give each of some objects a place in eight planes; whether there was none, for each. `taken` uint8 (H, W) are its bits."""
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
