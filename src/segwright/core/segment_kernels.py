"""Passes over the pixels of segments, by runs of equal ones. Axes: P planes, N segments, K classes, n pixels, (H, W) pixels.

Only the methods that need it import this module, when they are called: compiled code takes longer to load than all of core.
"""

import numpy as np
from numba import njit

ONE = np.uint64(1)
BLOCK = np.uint64(64)  # pixels that are compared at once, in a few vectors: twice as fast as 16, and runs are mostly longer
WORD = 8  # bytes of a mask that are read at once
LOOK = 512  # bytes of a mask that are looked through before the next decision: fewer are slower by a fifth
STRETCH = 4096  # pixels that all planes give before the next: few enough to stay in the first-level cache
VOID = -1


@njit(cache=True, nogil=True)
def _run_end(line, start):
    """Where the run of equal pixels that begins at `start` in a line (n,) ends.

    All places are unsigned: a place that might be negative is looked up in a way that no vector instruction does.
    """
    value, end, size = line[start], np.uint64(start) + ONE, np.uint64(len(line))
    if end < size and line[end] != value:
        return np.int64(end)
    while end + BLOCK <= size:
        differs = value ^ value
        for i in range(BLOCK):
            differs |= line[end + i] ^ value
        if differs:
            break
        end += BLOCK
    while end < size and line[end] == value:
        end += ONE
    return np.int64(end)


@njit(cache=True, nogil=True)
def areas(planes, counts):
    """Add the pixels of each segment in planes (P, n) to counts (N,)."""
    for p in range(len(planes)):
        plane = planes[p]
        start = 0
        while start < len(plane):
            end, segment = _run_end(plane, start), plane[start]
            if 0 < segment <= len(counts):
                counts[segment - 1] += end - start
            start = end


@njit(cache=True, nogil=True)
def boxes(planes, low, high):
    """Widen the boxes from `low` to `high` (N, 2), both inclusive and as (x, y), by the segments of planes (P, H, W)."""
    for p in range(len(planes)):
        plane = planes[p]
        for y in range(len(plane)):
            line, start = plane[y], 0
            while start < len(line):
                end, segment = _run_end(line, start), line[start]
                if 0 < segment <= len(low):
                    i = segment - 1
                    low[i, 0], high[i, 0] = min(low[i, 0], start), max(high[i, 0], end - 1)
                    low[i, 1], high[i, 1] = min(low[i, 1], y), max(high[i, 1], y)
                start = end


@njit(cache=True, nogil=True)
def masks(plane, first, end, found):
    """Set pixels first..end-1 of each segment of a plane (n,) in masks (N, n) that are empty."""
    part, start = plane[first:end], 0
    while start < len(part):
        stop, segment = _run_end(part, start), part[start]
        if 0 < segment <= len(found):
            found[segment - 1, first + start : first + stop] = True
        start = stop


@njit(cache=True, nogil=True)
def class_map(planes, class_of, result):
    """Fill a map (n,) with the class of each pixel of planes (P, n); whether all segments have one.

    `class_of` (N + 2,) are the classes of void, nothing and the segments. A later plane covers an earlier one.
    """
    is_known = True
    for first in range(0, len(result), STRETCH):
        for p in range(len(planes)):
            line, out, start = planes[p, first : first + STRETCH], result[first : first + STRETCH], 0
            while start < len(line):
                end, segment = _run_end(line, start), line[start]
                if segment < VOID or segment + 2 > len(class_of):
                    is_known = False
                elif p == 0 or segment > 0:
                    out[start:end] = class_of[segment + 1]
                start = end
    return is_known


@njit(cache=True, nogil=True)
def classes_present(labels, is_there):
    """Mark the values -1..K-1 that occur in labels (n,) in `is_there` (K + 1,), one place up."""
    start = 0
    while start < len(labels):
        is_there[np.int64(labels[start]) + 1] = True
        start = _run_end(labels, start)


@njit(cache=True, nogil=True)
def look_up(labels, table, result):
    """Fill `result` (n,) with the entry of a table (K + 1,) for each of labels (n,), the values -1..K-1."""
    start = 0
    while start < len(labels):
        end = _run_end(labels, start)
        result[start:end] = table[np.int64(labels[start]) + 1]
        start = end


@njit(cache=True, nogil=True)
def extents(masks, words, first, end, found):
    """Fill found int64 (N, 4) for the masks first..end-1: rows and columns (top, bottom, left, right), the second exclusive.

    Masks (N, H, W) are of bytes and contiguous; `words` uint64 are the same memory, eight bytes each, without a rest. All that
    lies outside of an extent is read once and nothing inside twice. An empty mask has zeros.
    """
    N, H, W = masks.shape
    pixels = masks.reshape(N * H * W)
    for index in range(first, end):
        low, high = index * H * W, (index + 1) * H * W
        start, stop = _first_set(pixels, words, low, high), high
        if start == high:
            found[index] = 0
            continue
        stop = _after_last_set(pixels, words, start, high)
        top, bottom = (start - low) // W, (stop - 1 - low) // W + 1
        left, right = (start - low) % W, (start - low) % W + 1
        for row in range(low + top * W, low + bottom * W, W):
            left = _first_set(pixels, words, row, row + left) - row
            right = _after_last_set(pixels, words, row + right, row + W) - row
        found[index, 0], found[index, 1], found[index, 2], found[index, 3] = top, bottom, left, right


@njit(cache=True, nogil=True)
def _first_set(pixels, words, start, end):
    """The first of the pixels start..end-1 (bytes) that is set, `end` without one."""
    while start < end and start % WORD:
        if pixels[start]:
            return start
        start += 1
    while start + LOOK <= end and not _has_any(words, start // WORD):
        start += LOOK
    while start + WORD <= end and not words[start // WORD]:
        start += WORD
    while start < end and not pixels[start]:
        start += 1
    return start


@njit(cache=True, nogil=True)
def _after_last_set(pixels, words, start, end):
    """One after the last of the pixels start..end-1 (bytes) that is set, `start` without one."""
    while end > start and end % WORD:
        if pixels[end - 1]:
            return end
        end -= 1
    while end - LOOK >= start and not _has_any(words, (end - LOOK) // WORD):
        end -= LOOK
    while end - WORD >= start and not words[end // WORD - 1]:
        end -= WORD
    while end > start and not pixels[end - 1]:
        end -= 1
    return end


@njit(cache=True, nogil=True)
def _has_any(words, start):
    """Whether one of the words (m,) of a block is not zero."""
    block, union = words[start : start + LOOK // WORD], np.uint64(0)
    for i in range(len(block)):
        union |= block[i]
    return union != 0


@njit(cache=True, nogil=True)
def bits_below(mask, extent, taken):
    """All bits of `taken` uint8 (H, W) that are set at a pixel of a mask (H, W) of bytes, which has this extent."""
    union = np.uint64(0)  # for bytes, numba writes no vector instructions
    for y in range(extent[0], extent[1]):
        line, below = mask[y, extent[2] : extent[3]], taken[y, extent[2] : extent[3]]
        for i in range(len(line)):
            union |= below[i] * np.uint64(line[i] != 0)
    return np.uint8(union)


@njit(cache=True, nogil=True)
def set_below(mask, extent, bits, taken):
    """Set these bits in `taken` uint8 (H, W) at the pixels of a mask (H, W) of bytes, which has this extent."""
    for y in range(extent[0], extent[1]):
        line, below = mask[y, extent[2] : extent[3]], taken[y, extent[2] : extent[3]]
        for i in range(len(line)):
            below[i] |= bits if line[i] else np.uint8(0)


@njit(cache=True, nogil=True)
def write_below(mask, extent, number, plane):
    """Write a number into a plane int32 (H, W) at the pixels of a mask (H, W) of bytes, which has this extent."""
    for y in range(extent[0], extent[1]):
        line, below = mask[y, extent[2] : extent[3]], plane[y, extent[2] : extent[3]]
        for i in range(len(line)):
            if line[i]:
                below[i] = number
