"""Passes over the pixels of segments, by runs of equal ones. Axes: P planes, N segments, K classes, n pixels, (H, W) pixels.

Only the methods that need it import this module, when they are called: compiled code takes longer to load than all of core.
"""

import numpy as np
from numba import njit

ONE = np.uint64(1)
BLOCK = np.uint64(64)  # pixels that are compared at once, in a few vectors: twice as fast as 16, and runs are mostly longer
BYTES = 256  # of a mask that are looked through at once
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
def masks(planes, found):
    """Set the pixels of each segment of planes (P, n) in masks (N, n) that are empty."""
    for p in range(len(planes)):
        plane = planes[p]
        start = 0
        while start < len(plane):
            end, segment = _run_end(plane, start), plane[start]
            if 0 < segment <= len(found):
                found[segment - 1, start:end] = True
            start = end


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
def extent(mask):
    """The first pixel of a mask (n,) of bytes and the one after its last; 0 and 0 if it is empty."""
    first = 0
    while first + BYTES <= len(mask) and not _has_any(mask, first):
        first += BYTES
    while first < len(mask) and not mask[first]:
        first += 1
    if first == len(mask):
        return 0, 0
    end = len(mask)
    while end - BYTES >= 0 and not _has_any(mask, end - BYTES):
        end -= BYTES
    while not mask[end - 1]:
        end -= 1
    return first, end


@njit(cache=True, nogil=True)
def _has_any(mask, start):
    """Whether a block of a mask (n,) of bytes has a pixel."""
    block, union = mask[start : start + BYTES], np.uint8(0)
    for i in range(BYTES):
        union |= block[i]
    return union != 0


@njit(cache=True, nogil=True)
def bits_below(mask, taken):
    """All bits of `taken` uint8 (n,) that are set at a pixel of a mask (n,) of bytes."""
    union = np.uint64(0)  # for bytes, numba writes no vector instructions
    for i in range(len(mask)):
        union |= taken[i] * np.uint64(mask[i] != 0)
    return np.uint8(union)


@njit(cache=True, nogil=True)
def set_below(mask, bits, taken):
    """Set these bits in `taken` uint8 (n,) at the pixels of a mask (n,) of bytes."""
    for i in range(len(mask)):
        taken[i] |= bits if mask[i] else np.uint8(0)


@njit(cache=True, nogil=True)
def write_below(mask, number, plane):
    """Write a number into a plane int32 (n,) at the pixels of a mask (n,) of bytes."""
    for i in range(len(mask)):
        if mask[i]:
            plane[i] = number


@njit(cache=True, nogil=True)
def positions(class_map, starts, order):
    """Fill `order` (M,) with the places of the pixels of a class map (n,), class after class, each rising.

    `starts` int64 (K + 1,) are where each class begins; afterwards each holds where its class ends.
    """
    start = 0
    while start < len(class_map):
        end, k = _run_end(class_map, start), class_map[start]
        if k >= 0:
            place = starts[k]
            for i in range(end - start):
                order[place + i] = start + i
            starts[k] = place + end - start
        start = end


@njit(cache=True, nogil=True)
def class_counts(class_map, counts):
    """Add the pixels of each class of a class map (n,) to counts int64 (K,); whether each class is VOID or has a count."""
    is_known, start = True, 0
    while start < len(class_map):
        end, k = _run_end(class_map, start), class_map[start]
        if 0 <= k < len(counts):
            counts[k] += end - start
        elif k != VOID:
            is_known = False
        start = end
    return is_known
