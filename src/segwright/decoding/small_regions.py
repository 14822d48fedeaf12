"""Small holes and small islands of masks that are runs of pixels. Axes: R, r runs, H, W sides of the image.

Pixels that touch at a corner are of one region, of a mask as of what is beside it, as with Segment Anything's authors.
"""

import numpy as np
from numba import njit

from segwright.decoding.mask_runs import union_of_runs


def without_small_holes(runs: np.ndarray, shape: tuple[int, int], min_area: int) -> np.ndarray:
    """The runs int32 (r, 3) of a mask (R, 3) with all regions beside it filled that have less than `min_area` pixels.

    Regions at the edge of the image count as holes too.
    """
    beside = _complement(runs, shape[0], shape[1])
    region, areas = _regions(beside)
    is_small = areas[region] < min_area
    return union_of_runs([runs, beside[is_small]]) if is_small.any() else runs


def without_small_islands(runs: np.ndarray, min_area: int) -> np.ndarray:
    """The runs int32 (r, 3) of a mask (R, 3) without its regions of less than `min_area` pixels; the largest stays anyhow."""
    if not len(runs):
        return runs
    region, areas = _regions(runs)
    is_kept = areas >= min_area
    is_kept[areas.argmax()] = True
    return runs[is_kept[region]]


@njit(cache=True, nogil=True)
def _complement(runs, height, width):
    """The runs int32 (r, 3), in the order of reading, of all pixels of an image that runs (R, 3) leave out."""
    found, size, r = np.empty((len(runs) + height, 3), np.int32), 0, 0
    for y in range(height):
        x = 0
        while r < len(runs) and runs[r, 0] == y:
            if runs[r, 1] > x:
                found[size, 0], found[size, 1], found[size, 2] = y, x, runs[r, 1]
                size += 1
            x = runs[r, 2]
            r += 1
        if x < width:
            found[size, 0], found[size, 1], found[size, 2] = y, x, width
            size += 1
    return found[:size].copy()


@njit(cache=True, nogil=True)
def _regions(runs):
    """The region of each run int64 (R,), in the order of reading, and the pixels of each region int64."""
    parent = np.arange(len(runs))
    above = 0  # the first run of the row before that a run may touch
    for r in range(len(runs)):
        while above < r and (
            runs[above, 0] < runs[r, 0] - 1 or (runs[above, 0] == runs[r, 0] - 1 and runs[above, 2] < runs[r, 1])
        ):
            above += 1
        k = above
        while k < r and runs[k, 0] == runs[r, 0] - 1 and runs[k, 1] <= runs[r, 2]:
            one, other = _root(parent, k), _root(parent, r)
            parent[max(one, other)] = min(one, other)
            k += 1
    region, areas, count = np.empty(len(runs), np.int64), np.zeros(len(runs), np.int64), 0
    for r in range(len(runs)):
        root = _root(parent, r)
        if root == r:
            region[r] = count
            count += 1
        else:
            region[r] = region[root]
        areas[region[r]] += runs[r, 2] - runs[r, 1]
    return region, areas[:count].copy()


@njit(cache=True, nogil=True)
def _root(parent, run):
    """The first run of a region, and a shorter way to it for the next time."""
    while parent[run] != run:
        parent[run] = parent[parent[run]]
        run = parent[run]
    return run
