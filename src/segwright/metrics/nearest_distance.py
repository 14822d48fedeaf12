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

CELLS = 16384  # in a neighbourhood: 16 steps around in 3D, 72 in 2D; more were no faster
FIRST_CELLS = 16  # looked at before anything is computed to leave some out
LOOKS_PER_POINT, LOOKS_PER_CELL = 64, 8  # in about the time that the transform takes for a point, and for a cell of its box
CAUTIOUS = 1 - 1e-9  # rounding must not leave out the nearest


def nearest_distance(points: np.ndarray, sites: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance in mm from each point to its nearest site, float64 (M,); infinite without sites.

    Points int32 (M, 3) and sites int32 (N, 3) are grid positions (z, y, x), both in rising order of z, then y, then x;
    `spacing_mm` is the size of a step along z, y and x. Of a 2D grid, z is 0.
    """
    if not len(sites) or not len(points):
        return np.full(len(points), np.inf)
    box, around_points, spacing = box_of_cells(sites), box_of_cells(points), np.array(spacing_mm)
    low, high = np.minimum(box[0], around_points[0]), np.maximum(box[1], around_points[1])
    span = high - low
    offsets, offsets_squared = neighbourhood(spacing_mm, bool(span[0] == 0))
    size = np.searchsorted(offsets_squared, ((span * spacing) ** 2).sum() / CAUTIOUS, side="right")  # none is further away
    offsets, offsets_squared = offsets[:size], offsets_squared[:size]
    margin = (offsets_squared[-1] ** 0.5 / CAUTIOUS / spacing).astype(int)  # of cells that may be looked at, and hold nothing
    margin[0] *= span[0] > 0
    if (margin > span).any():  # small boxes and very unequal steps: no site is that many steps away
        is_within = np.logical_and.reduce([np.abs(offsets[:, axis]) <= span[axis] for axis in range(3)])
        offsets, offsets_squared, margin = offsets[is_within], offsets_squared[is_within], np.minimum(margin, span)
    shape, origin = span + 1 + 2 * margin, low - margin
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    has_site = np.zeros(int(np.prod(shape)), np.bool_)
    has_site[_places(sites, origin, strides)] = True
    extent, around = box[1] - box[0] + 1, around_points[1] - around_points[0] + 1
    cells = int(extent[0]) * int(max(extent[1], around[1])) * int(around[2])
    looks = LOOKS_PER_POINT * len(points) + LOOKS_PER_CELL * cells
    squared = _search(
        points, _places(points, origin, strides), has_site, offsets, offsets_squared, strides, box, spacing, looks
    )
    far = np.flatnonzero(np.isinf(squared))
    if len(far):
        squared[far] = transformed(points[far], sites, spacing_mm)
    return np.sqrt(squared)


@njit(cache=True, nogil=True)
def box_of_cells(cells: np.ndarray) -> np.ndarray:
    """First and last position along each axis of cells (M, 3), int64 (2, 3); M > 0."""
    box = np.empty((2, 3), np.int64)
    box[:] = cells[0]
    for n in range(len(cells)):
        for axis in range(3):
            box[0, axis] = min(box[0, axis], cells[n, axis])
            box[1, axis] = max(box[1, axis], cells[n, axis])
    return box


@lru_cache(maxsize=8)  # the images of a data set share a few spacings
def neighbourhood(spacing_mm: tuple[float, float, float], is_flat: bool) -> tuple[np.ndarray, np.ndarray]:
    """Steps (z, y, x) to the cells around one in rising order of distance, int64 (N, 3), and their squared distances (N,).

    There are about `CELLS` of them, all within the largest of the distances; of a flat grid, all with z = 0.
    """
    steps = np.array(spacing_mm)
    fine = np.sort(steps[1:] if is_flat else steps)
    reaches = [CELLS * fine[0] / 2, (CELLS * fine[:2].prod() / np.pi) ** (1 / 2)]  # of a line and a disc of so many cells
    if not is_flat:
        reaches.append((CELLS * fine.prod() * 3 / (4 * np.pi)) ** (1 / 3))  # of a ball
    reach = min(reaches)
    counts = np.floor(reach / steps).astype(int) * ([0, 1, 1] if is_flat else [1, 1, 1])
    along = [np.arange(-n, n + 1) for n in counts]
    squares = [(n * step) ** 2 for n, step in zip(along, spacing_mm, strict=True)]
    squared = squares[0][:, None, None] + squares[1][:, None] + squares[2]
    within = np.nonzero(squared <= reach * reach)
    order = np.argsort(squared[within])
    return np.stack([n[index] for n, index in zip(along, within, strict=True)], axis=1)[order], squared[within][order]


@njit(cache=True, nogil=True)
def _places(cells, origin, strides):
    """Number of each cell (M, 3) in a grid that begins at the origin; numpy's product of whole numbers is slow."""
    places = np.empty(len(cells), np.int64)
    for n in range(len(cells)):
        z, y, x = cells[n]
        places[n] = (z - origin[0]) * strides[0] + (y - origin[1]) * strides[1] + (x - origin[2]) * strides[2]
    return places


@njit(cache=True, nogil=True)
def _search(points, places, has_site, offsets, offsets_squared, strides, box, spacing, looks):
    """Squared distances (M,) from places in a grid to the first of their neighbours with a site; infinite where none has one.

    They are infinite for all that is left when as many cells were looked at as are allowed, too. Of two points, the one is
    nearer to its site than the other by no more than they are apart: cells nearer than that are left out.
    """
    leaps = _places(offsets, np.zeros(3, np.int64), strides)
    squared, bounds = np.full(len(places), np.inf), np.empty(len(places))
    above, behind = 0, 0  # the first point not before the cell a row above, and a slice behind
    for n in range(len(places)):
        i, end = 0, min(FIRST_CELLS, len(leaps))
        while i < end and not has_site[places[n] + leaps[i]]:
            i += 1
        if i == end:
            while places[above] < places[n] - strides[1]:
                above += 1
            while places[behind] < places[n] - strides[0]:
                behind += 1
            bound = _outside(points[n], box, spacing)
            for other in (n - 1, above - 1, above, behind - 1, behind):
                if 0 <= other < n:
                    bound = max(bound, bounds[other] - _apart(points[n], points[other], spacing))
            begin = i = max(i, np.searchsorted(offsets_squared, (bound * CAUTIOUS) ** 2))
            while i < len(leaps) and not has_site[places[n] + leaps[i]]:
                i += 1
            looks -= i - begin
            if looks < 0:
                break
        if i < len(leaps):
            squared[n] = offsets_squared[i]
        bounds[n] = np.sqrt(offsets_squared[min(i, len(leaps) - 1)])
    return squared


@njit(cache=True, nogil=True)
def _outside(point, box, spacing):
    """How far a point lies outside a box, given by its first and last cell."""
    squared = 0.0
    for axis in range(3):
        gap = max(box[0, axis] - point[axis], point[axis] - box[1, axis], 0) * spacing[axis]
        squared += gap * gap
    return np.sqrt(squared)


@njit(cache=True, nogil=True)
def _apart(point, other, spacing):
    """Distance of two points."""
    squared = 0.0
    for axis in range(3):
        gap = (point[axis] - other[axis]) * spacing[axis]
        squared += gap * gap
    return np.sqrt(squared)


def transformed(points: np.ndarray, sites: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Squared distance from each point to its nearest site, float64 (M,), as `nearest` has them, by a distance transform.

    Rows are those of the box around the sites, columns those of the points: its time grows with their product.
    """
    low, high = box_of_cells(sites)[:, :2]  # the first and the last row
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
