"""Polygons to masks and back, by one rule of rasterising: COCO's.

Coordinates are (x, y) in pixels, the centre of the first pixel is (0.5, 0.5). They are rounded to a fifth of a pixel, and each
edge becomes the row of those fifths that lie nearest to it. Where that row steps over the vertical line through the centres of
a column of pixels, the column changes from outside to inside, or back, from that pixel on downwards whose centre is the next.
So a pixel belongs when its centre lies inside by the even-odd rule; a ring inside another one is a hole; and an edge gives the
same crossings in both directions, so that a cut (there and back) changes nothing.

Axes: V corners of a ring, (H, W) rows and columns, R runs.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numba import njit

from segwright.codecs import rle
from segwright.core.errors import FormatError

STEPS = 5  # fifths of a pixel: COCO's grid for corners and edges
CENTRE = 2  # the centre of pixel k lies between the fifths 5 k + 2 and 5 k + 3
FARTHEST = 1e8  # pixels; corners beyond are moved there, because fifths of them must fit 32 bits in COCO's own tools
MAX_CROSSINGS = 2**24  # of one region with columns of pixels; rings of a few corners could claim billions
NEAREST_WORK = 10**8  # pairs of corners that may be compared for the shortest cuts: a tenth of a second


def rasterise(rings: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The run lengths uint32 (R,) of the pixels inside of rings float (V, 2), by even-odd over all of them together.

    A ring is closed from its last corner to its first. What lies outside of the image is cut off.

    Raises:
        FormatError: a ring is not (V, 2), has a corner that is not finite, or there are too many edges for one region.
    """
    height, width = shape
    points, starts = _flat(rings)
    fine, limit = _fifths(points, starts, width)
    if limit < 0:
        raise FormatError("a polygon has a corner that is not a finite number; correct or remove it")
    if limit > MAX_CROSSINGS:
        raise FormatError(
            f"a polygon of {len(points):,} corners crosses columns of pixels {limit:,} times, {MAX_CROSSINGS:,} is the limit; "
            "store this region as run lengths or as a mask"
        )
    return _fill(fine, starts, height, width, limit)


def trace(mask: np.ndarray) -> list[list[np.ndarray]]:
    """The borders of a mask bool (H, W): for each part that hangs together by edges, its outer ring and then its holes.

    A ring is int32 (V, 2), corners of pixels from 0 to W and 0 to H, an outer ring clockwise as seen on the screen, a hole
    the other way. `rasterise` makes the same mask of all rings of all parts, and of the outer ring and the holes the part.
    """
    mask = np.ascontiguousarray(mask)
    corners, starts, first_pixels = _trace(mask)
    if len(starts) == 2:
        return [[corners]]
    labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)[1]
    parts: dict[int, list[np.ndarray]] = {}
    for ring, (x, y) in enumerate(first_pixels):  # the first ring of a part holds its topmost pixel, so it is the outer one
        parts.setdefault(int(labels[y, x]), []).append(corners[starts[ring] : starts[ring + 1]])
    return list(parts.values())


def trace_counts(counts: np.ndarray, shape: tuple[int, ...]) -> list[list[np.ndarray]]:
    """`trace` of the mask (H, W) that run lengths stand for; only the box around its foreground is looked at."""
    mask, corner = rle.crop(counts, shape)
    offset = np.array(corner, np.int32)
    return [[ring + offset for ring in rings] for rings in trace(mask)] if mask.size else []


def one_ring(parts: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """One ring (V, 2) around the same pixels as all rings of all parts, joined by cuts of no width.

    For files that hold a single ring per object. The cuts are short: from the first corner of a ring to the nearest corner of
    those before it.
    """
    rings = [ring for rings in parts for ring in rings if len(ring)]
    if len(rings) == 1:
        return rings[0]
    if not rings:
        return np.zeros((0, 2), np.int32)
    points, starts = _flat(rings)
    return _join(points, starts, len(rings) * len(points) <= NEAREST_WORK).astype(rings[0].dtype)


def signed_area(ring: np.ndarray) -> float:
    """The area inside a ring (V, 2), positive where it runs clockwise as seen on the screen."""
    ring = np.asarray(ring, np.float64)
    (x, y), (next_x, next_y) = ring.T, np.concatenate([ring[1:], ring[:1]]).T
    return float(np.sum(x * next_y - next_x * y) / 2)


def _flat(rings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All corners in one array float64 (V, 2), and where those of each ring start, int64 (N + 1,)."""
    arrays = [np.asarray(ring, np.float64) for ring in rings]
    for ring in arrays:
        if ring.ndim != 2 or ring.shape[1] != 2:
            raise FormatError(f"a polygon is {ring.shape}, (V, 2) is needed: one row (x, y) per corner")
    if len(arrays) == 1:
        return np.ascontiguousarray(arrays[0]), np.array([0, len(arrays[0])])
    starts = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(ring) for ring in arrays], out=starts[1:])
    return np.concatenate([np.zeros((0, 2)), *arrays]), starts


@njit(cache=True, nogil=True)
def _columns(x: int, other_x: int, width: int) -> tuple[int, int]:
    """First and end of the columns of pixels whose centre line lies between two fifths."""
    low, high = min(x, other_x), max(x, other_x)
    first = max(-((CENTRE - low) // STEPS), 0)  # the lowest k with low <= 5 k + 2, rounded up
    end = min((high - CENTRE - 1) // STEPS + 1, width)  # behind the highest k with 5 k + 3 <= high
    return first, max(first, end)


@njit(cache=True, nogil=True)
def _fifths(points: np.ndarray, starts: np.ndarray, width: int) -> tuple[np.ndarray, int]:
    """Corners in fifths of a pixel, int64 (V, 2), and the number of crossings with columns, -1 if a corner is not finite."""
    fine = np.empty(points.shape, np.int64)
    for n in range(len(points)):
        for axis in range(2):
            if not np.isfinite(points[n, axis]):
                return fine, -1
            fine[n, axis] = int(min(max(points[n, axis], -FARTHEST), FARTHEST) * STEPS + 0.5)  # towards 0, as in C
    total = 0
    for ring in range(len(starts) - 1):
        begin, end = starts[ring], starts[ring + 1]
        for n in range(begin, end):
            other = n + 1 if n + 1 < end else begin
            first, last = _columns(fine[n, 0], fine[other, 0], width)
            total += last - first
    return fine, total


@njit(cache=True, nogil=True)
def _fill(fine: np.ndarray, starts: np.ndarray, height: int, width: int, limit: int) -> np.ndarray:
    """Run lengths from the places, in the order of columns, where outside changes to inside or back."""
    changes, found = np.empty(limit, np.int64), 0
    for ring in range(len(starts) - 1):
        begin, end = starts[ring], starts[ring + 1]
        for n in range(begin, end):
            other = n + 1 if n + 1 < end else begin
            found = _cross(fine[n, 0], fine[n, 1], fine[other, 0], fine[other, 1], height, width, changes, found)
    changes = np.sort(changes[:found])
    counts, written, covered, n = np.empty(found + 1, np.uint32), 0, np.int64(0), 0
    size = np.int64(height) * width
    while n < found:
        if n + 1 < found and changes[n] == changes[n + 1]:  # two changes at one place are none
            n += 2
            continue
        if changes[n] < size:
            counts[written] = changes[n] - covered
            covered = changes[n]
            written += 1
        n += 1
    counts[written] = size - covered
    return counts[: written + 1].copy()


@njit(cache=True, nogil=True)
def _cross(x: int, y: int, end_x: int, end_y: int, height: int, width: int, changes: np.ndarray, found: int) -> int:
    """Note the place of each change that an edge makes, and return their number.

    The edge has one fifth per step along its longer axis, walked in the direction in which that axis grows; along the other
    axis the nearest fifth is taken. A change lies at the upper one of the two fifths beside the centre line.
    """
    first, end = _columns(x, end_x, width)
    if first == end:
        return found
    run, rise = abs(end_x - x), abs(end_y - y)
    is_flat = run >= rise
    if is_flat and x > end_x or not is_flat and y > end_y:
        x, y, end_x, end_y = end_x, end_y, x, y
    slope = (end_y - y) / run if is_flat else (end_x - x) / rise
    for k in range(first, end):
        before = STEPS * k + CENTRE
        if is_flat:
            step = before - x
            top = min(int(y + slope * step + 0.5), int(y + slope * (step + 1) + 0.5))
        else:
            top = y + _step_over(x, slope, before)
        row = -((CENTRE - top) // STEPS)  # the first pixel whose centre is not above, rounded up
        changes[found] = k * height + min(max(row, 0), height)
        found += 1
    return found


@njit(cache=True, nogil=True)
def _step_over(x: int, slope: float, before: int) -> int:
    """The last step of a steep edge before it passes over the centre line behind the fifth `before`."""
    step = int((before + 0.5 - x) / slope)  # off by one at most, by rounding
    if slope > 0:
        while int(x + slope * step + 0.5) > before:
            step -= 1
        while int(x + slope * (step + 1) + 0.5) <= before:
            step += 1
    else:
        while int(x + slope * step + 0.5) <= before:
            step -= 1
        while int(x + slope * (step + 1) + 0.5) > before:
            step += 1
    return step


@njit(cache=True, nogil=True)
def _longer(array: np.ndarray) -> np.ndarray:
    longer = np.empty((2 * len(array), array.shape[1]), array.dtype)
    longer[: len(array)] = array
    return longer


@njit(cache=True, nogil=True)
def _is_set(mask: np.ndarray, x: int, y: int) -> bool:
    return 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x]


@njit(cache=True, nogil=True)
def _trace(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of all rings one after another, where those of each start, and a pixel (x, y) beside the start of each.

    The walk keeps the mask on its right hand. Each ring has upper edges of pixels, walked to the right; it starts with the
    first of them, row by row, that no earlier ring has passed.
    """
    height, width = mask.shape
    passed = np.zeros((height, width), np.bool_)  # upper edges
    corners, found = np.empty((64, 2), np.int32), 0  # 64: enough for a small object; doubled when full
    rings, count = np.empty((16, 3), np.int64), 0  # start, pixel x, pixel y
    for y in range(height):
        for x in range(width):
            if not mask[y, x] or passed[y, x] or (y and mask[y - 1, x]):
                continue
            if count == len(rings):
                rings = _longer(rings)
            rings[count] = found, x, y
            count += 1
            at_x, at_y, dx, dy = x, y, 1, 0
            while True:
                if found == len(corners):
                    corners = _longer(corners)
                corners[found] = at_x, at_y
                found += 1
                while True:  # along a straight line
                    if dx == 1:
                        passed[at_y, at_x] = True
                    at_x, at_y = at_x + dx, at_y + dy
                    # Of the four pixels around this corner, the two ahead, right and left of the walk
                    ahead_x, ahead_y = at_x + (dx - 1) // 2, at_y + (dy - 1) // 2
                    if dx:
                        right = _is_set(mask, ahead_x, at_y if dx == 1 else at_y - 1)
                        left = _is_set(mask, ahead_x, at_y - 1 if dx == 1 else at_y)
                    else:
                        right = _is_set(mask, at_x - 1 if dy == 1 else at_x, ahead_y)
                        left = _is_set(mask, at_x if dy == 1 else at_x - 1, ahead_y)
                    if not right:
                        dx, dy = -dy, dx
                        break
                    if left:
                        dx, dy = dy, -dx
                        break
                if at_x == x and at_y == y and dx == 1:
                    break
    starts = np.empty(count + 1, np.int64)
    starts[:count], starts[count] = rings[:count, 0], found
    return corners[:found].copy(), starts, rings[:count, 1:].copy()


@njit(cache=True, nogil=True)
def _join(points: np.ndarray, starts: np.ndarray, is_short: bool) -> np.ndarray:
    """One ring from several: a linked list of corners, into which each ring is hung at an earlier corner."""
    count = len(starts) - 1
    node_of = np.empty(len(points) + 2 * count, np.int64)  # the corner that each node stands for
    follower = np.empty(len(node_of), np.int64)
    used = 0
    for ring in range(count):
        first = used
        nearest = max(first - 2, 0)  # the start of the ring before; the last node is the corner that that one hangs at
        x, y = points[starts[ring]]
        if is_short:
            shortest = np.inf
            for node in range(first):
                distance = (points[node_of[node], 0] - x) ** 2 + (points[node_of[node], 1] - y) ** 2
                if distance < shortest:
                    shortest, nearest = distance, node
        for n in range(starts[ring], starts[ring + 1]):
            node_of[used], follower[used] = n, used + 1
            used += 1
        if ring == 0:
            follower[used - 1] = first
            continue
        node_of[used], follower[used] = starts[ring], used + 1  # back at the start of the ring, and over the cut
        node_of[used + 1], follower[used + 1] = node_of[nearest], follower[nearest]
        follower[nearest] = first
        used += 2
    result = np.empty((used, 2), points.dtype)
    node = 0
    for n in range(used):
        result[n] = points[node_of[node]]
        node = follower[node]
    return result
