"""How far each point of one set on a grid is from the nearest of another. Axes: M points, N sites; points are (z, y, x).

Around each point, cells are looked at in rising order of distance: the first that holds a site is the nearest. That ends after
a few cells where both sets are close, as the borders of a good prediction are. No more cells are looked at than an exact
distance transform would cost; points that have found nothing by then go through the transform. So the time grows with the
points and the box around both sets, never with points times sites.

Source of the transform: Felzenszwalb and Huttenlocher 2012, doi 10.4086/toc.2012.v008a019, here evaluated at the points only.
"""

from functools import lru_cache

import numpy as np
from numba import njit

CELLS = 4096  # looked at around one point at most: 10 steps in 3D, 36 in 2D; beyond, the transform is faster
FEW_CELLS = 64  # looked at in any case: 2 steps in 3D, 4 in 2D
LOOKS_PER_CELL = 8  # in the time that the transform takes for one cell of the box


def nearest(points: np.ndarray, sites: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance in mm from each point to its nearest site, float64 (M,); infinite without sites.

    Points int32 (M, 3) and sites int32 (N, 3) are grid positions (z, y, x), the sites in rising order of z, then y, then x;
    `spacing_mm` is the size of a step along z, y and x. Of a 2D grid, z is 0.
    """
    if not len(sites) or not len(points):
        return np.full(len(points), np.inf)
    low, high = np.minimum(points.min(axis=0), sites.min(axis=0)), np.maximum(points.max(axis=0), sites.max(axis=0))
    looks = max(FEW_CELLS, LOOKS_PER_CELL * int(np.prod(high - low + 1.0)) // len(points))
    offsets, offsets_squared = neighbourhood(spacing_mm, low[0] == high[0])
    offsets, offsets_squared = offsets[:looks], offsets_squared[:looks]
    margin = np.abs(offsets).max(axis=0)  # of cells that may be looked at, and hold nothing
    shape, origin = high - low + 1 + 2 * margin, low - margin
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    has_site = np.zeros(np.prod(shape), np.bool_)
    has_site[(sites - origin) @ strides] = True
    squared = _search((points - origin) @ strides, has_site, offsets @ strides, offsets_squared)
    far = np.flatnonzero(np.isinf(squared))
    if len(far):
        squared[far] = transformed(points[far], sites, spacing_mm)
    return np.sqrt(squared)


@lru_cache(maxsize=8)  # the images of a data set share a few spacings
def neighbourhood(spacing_mm: tuple[float, float, float], is_flat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Steps (z, y, x) to the cells around one in rising order of distance, int64 (N, 3), and their squared distances (N,).

    There are about `CELLS` of them, all within the largest of the distances; of a flat grid, all with z = 0.
    """
    steps = np.array(spacing_mm)
    fine = np.sort(steps[1:] if is_flat else steps)
    line, disc, ball = CELLS * fine[0] / 2, CELLS * fine[:2].prod() / np.pi, CELLS * fine.prod() * 3 / (4 * np.pi)
    reach = (
        min(line, disc ** (1 / 2)) if is_flat else min(line, disc ** (1 / 2), ball ** (1 / 3))
    )  # the radius of so many cells
    counts = np.floor(reach / steps).astype(int) * ([0, 1, 1] if is_flat else [1, 1, 1])
    offsets = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in counts), indexing="ij"), axis=-1).reshape(-1, 3)
    squared = ((offsets * steps) ** 2).sum(axis=1)
    order = np.argsort(squared, kind="stable")
    order = order[: np.searchsorted(squared[order], reach * reach, side="right")]
    return offsets[order], squared[order]


@njit(cache=True, nogil=True)
def _search(places, has_site, offsets, offsets_squared):
    """Squared distances (M,) from places in a grid to the first of their neighbours with a site, infinite without one."""
    squared = np.full(len(places), np.inf)
    for n in range(len(places)):
        for i in range(len(offsets)):
            if has_site[places[n] + offsets[i]]:
                squared[n] = offsets_squared[i]
                break
    return squared


def transformed(points: np.ndarray, sites: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Squared distance from each point to its nearest site, float64 (M,), as `nearest` has them, by a distance transform.

    Rows are those of the box around the sites, columns those of the points: its time grows with their product.
    """
    low, high = sites[:, :2].min(axis=0), sites[:, :2].max(axis=0)  # the first and the last row
    rows, columns = row_starts(sites, low, high), np.ascontiguousarray(sites[:, 2])
    order = np.lexsort((points[:, 0], points[:, 1], points[:, 2]))  # by x, then y, then z
    squared = np.empty(len(points))
    _transform(points[order], columns, rows, low, high, np.array(spacing_mm), squared)
    answers = np.empty(len(points))
    answers[order] = squared
    return answers


@njit(cache=True, nogil=True)
def row_starts(sites: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where each row (z, y) from low (2,) to high (2,) begins among sites (N, 3) in rising order, int64 (rows + 1,)."""
    height = high[1] - low[1] + 1
    starts = np.zeros((high[0] - low[0] + 1) * height + 1, np.int64)
    for n in range(len(sites)):
        starts[(sites[n, 0] - low[0]) * height + sites[n, 1] - low[1] + 1] += 1
    for row in range(1, len(starts)):
        starts[row] += starts[row - 1]
    return starts


@njit(cache=True, nogil=True)
def _transform(points, columns, rows, low, high, spacing, squared):
    """Squared distances of points in rising order of x, y, z: one plane of equal x after the other, each along y, then z."""
    depth, height = high[0] - low[0] + 1, high[1] - low[1] + 1
    cursors = rows[:-1].copy()
    across = np.full((depth, height), np.inf)  # squared, from each row to the column at hand
    lowest, highest = points[:, 1].min(), points[:, 1].max()
    in_slice = np.empty((highest - lowest + 1, depth))  # squared, within each slice, of the rows of the points
    peaks, breaks = np.empty(max(depth, height), np.int64), np.empty(max(depth, height) + 1)
    wanted = np.empty(highest - lowest + 1, np.int64)
    n = 0
    while n < len(points):
        end, count = n, 0
        while end < len(points) and points[end, 2] == points[n, 2]:
            if end == n or points[end, 1] != points[end - 1, 1]:
                wanted[count] = points[end, 1]
                count += 1
            end += 1
        _cross(columns, rows, cursors, points[n, 2], spacing[2], across.ravel())
        for z in range(depth):
            number = _envelope(across[z], spacing[1], peaks, breaks)
            k = 0
            for w in range(count):
                place = (wanted[w] - low[1]) * spacing[1]
                k = _which(breaks, number, k, place)
                in_slice[wanted[w] - lowest, z] = _height(across[z], peaks, k, number, place, spacing[1])
        number, k = 0, 0
        for m in range(n, end):
            heights = in_slice[points[m, 1] - lowest]
            if m == n or points[m, 1] != points[m - 1, 1]:
                number, k = _envelope(heights, spacing[0], peaks, breaks), 0
            place = (points[m, 0] - low[0]) * spacing[0]
            k = _which(breaks, number, k, place)
            squared[m] = _height(heights, peaks, k, number, place, spacing[0])
        n = end


@njit(cache=True, nogil=True)
def _cross(columns, rows, cursors, x, step, across):
    """Squared distance along each row that has sites to the column x, which rises from call to call."""
    for row in range(len(cursors)):
        here, last = cursors[row], rows[row + 1] - 1
        if here > last:
            continue
        while here < last and abs(columns[here + 1] - x) <= abs(columns[here] - x):
            here += 1
        cursors[row] = here
        gap = (columns[here] - x) * step
        across[row] = gap * gap


@njit(cache=True, nogil=True)
def _envelope(heights, step, peaks, breaks):
    """The lowest of the parabolas heights[i] + (place - i * step)**2: their number, peaks i and where each begins."""
    number = 0
    for i in range(len(heights)):
        if heights[i] == np.inf:
            continue
        start = -np.inf
        while number:
            last = peaks[number - 1]
            start = (i + last) * step / 2 + (heights[i] - heights[last]) / (2 * (i - last) * step)
            if start > breaks[number - 1]:
                break
            number -= 1
            start = -np.inf
        peaks[number], breaks[number] = i, start
        number += 1
    return number


@njit(cache=True, nogil=True)
def _which(breaks, number, k, place):
    """The parabola that is lowest at a place, from the k-th on: places rise."""
    while k + 1 < number and breaks[k + 1] <= place:
        k += 1
    return k


@njit(cache=True, nogil=True)
def _height(heights, peaks, k, number, place, step):
    """Height of the k-th parabola at a place, infinite where there is none."""
    if not number:
        return np.inf
    along = place - peaks[k] * step
    return heights[peaks[k]] + along * along
