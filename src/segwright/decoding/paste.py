"""Masks as networks say them, at the pixels of an image: as runs of pixels, and in planes, never as an array (N, H, W).

Between four values of a mask probabilities are bilinear. Along a row of pixels, from one column of values to the next, they
rise or fall in a straight line, which passes the threshold once at most. That place is computed, and what lies on one side of
it is a run: the work grows with the values of the masks and the rows of pixels, not with all pixels.

Axes: N objects, R runs of pixels, h, w sides of masks, H, W sides of the image.
"""

import numpy as np
from numba import njit

from segwright.core.errors import ShapeError
from segwright.decoding.image_detections import ImageDetections
from segwright.decoding.mask_runs import MaskRuns

THRESHOLD = 0.5  # probability from which on a pixel belongs to an object
RUNS_PER_OBJECT = 64  # room to begin with; it doubles where it does not suffice


def paste_masks(
    boxes: np.ndarray, masks: np.ndarray, regions: np.ndarray, is_whole: np.ndarray, shape: tuple[int, ...]
) -> MaskRuns:
    """The pixels (H, W) whose centres lie in the boxes (N, 4) and have a probability of a half at least.

    Masks (N, h, w) are spread evenly over regions (N, 4). Boxes and regions are (x1, y1, x2, y2) in pixels; a centre on the
    left or top edge lies inside, on the right or bottom edge outside. Beyond a region all is 0, so that probabilities fade over
    the outer half of the outermost values, as in detectron2. Where `is_whole` (N,), the region is all that the network saw:
    there is nothing to fade to, and the outermost values reach on. Masks without values (N, 0, 0) fill their boxes.

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


def paste_detections(
    found: ImageDetections,
    seen: tuple[int, ...],
    shape: tuple[int, ...],
    *,
    corner: tuple[int, ...] = (0, 0),
    ratio: tuple[float, ...] = (1.0, 1.0),
    whole_pixels: bool = False,
) -> tuple[ImageDetections, MaskRuns]:
    """The objects of one image, without those that have no pixel in (H, W), and the pixels of the others.

    The network saw an image of the shape `seen`, of which the first pixel is the one at `corner` of a larger view; each of its
    pixels is `ratio` pixels of the grid that is pasted to, per axis. With `whole_pixels` masks are pasted as torchvision does.
    """
    offset, factor = (np.tile(np.asarray(each[::-1], np.float32), 2) for each in (corner, ratio))
    boxes, regions = (found.boxes + offset) * factor, (found.regions + offset) * factor
    is_whole = (found.regions == [0, 0, *seen[::-1]]).all(axis=1)
    if whole_pixels:
        boxes, regions = on_whole_pixels(boxes, found.masks.shape[-1])
    pixels = paste_masks(boxes, found.masks, regions, is_whole, shape)
    has_any = np.diff(pixels.starts) > 0
    if has_any.all():
        return found, pixels
    return found.those(has_any), pixels.taken(np.flatnonzero(has_any))


def on_whole_pixels(boxes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and regions (N, 4) with which `paste_masks` does what torchvision does with these boxes and masks of `side` values.

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
    """The runs int32 (R, 3) of all objects, and where those of each start, int64 (N + 1,); see `paste_masks`."""
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
