"""Gaussian filtering of values at points in colour and space, all with all, in time linear in the points.

Adams, Baek and Davis 2010, "Fast high-dimensional filtering using the permutohedral lattice",
doi 10.1111/j.1467-8659.2009.01645.x: each point spreads its value over the corners of the simplex that it lies in (splat), the
corners are blurred along each of the lattice's directions, and each point reads the corners of its simplex again (slice).
Corners exist only where points are.

Source of the idea for densely connected fields: Kraehenbuehl and Koltun 2011, arXiv 1210.5644.

Axes: N points, D = 5 of their features, V corners in use, and a last row of zeros for corners that do not exist.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

D = 5  # column, row, red, green, blue
CORNERS = D + 1
FIRST_SLOTS = 2**14  # of the table of corners, which doubles as it fills
SPREAD = np.int64(-7046029254386353131)  # 2**64 over the golden ratio: neighbouring keys fall far apart in the table
# A corner's key is the sum of its coordinates times these odd numbers, so that neighbours are found by adding. Two of V corners
# share a key with a probability of V**2 / 2**65: below one in a hundred thousand at 4 megapixels of noise.
KEY_OF_AXIS = np.array(
    [6364136223846793005, 3935559000370003845, 2862933555777941757, 3202034522624059733, 4354685564936845355], np.int64
)


@dataclass(frozen=True, eq=False)
class Lattice:
    """Which corners each point touches: `corners` int32 (N, 6) and `weights` float32 (N, 6), 0 for points that are left out.

    `neighbours` int32 (6, V, 2) are the corners next to each along each direction, V for none.
    """

    corners: np.ndarray
    weights: np.ndarray
    neighbours: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, known: np.ndarray) -> "Lattice":
        """The lattice of points that are `known`, bool (N,), by features float32 (N, 5) in standard deviations."""
        corners = np.empty((len(features), CORNERS), np.int32)
        weights = np.empty((len(features), CORNERS), np.float32)
        keys, table_keys, table_corners = _embed(features, known, corners, weights)
        return cls(corners, weights, _neighbours(keys, table_keys, table_corners))

    @property
    def size(self) -> int:
        """The number V of corners in use."""
        return self.neighbours.shape[1]


@njit(cache=True, nogil=True)
def _embed(features, known, corners, weights):
    """Write corners and weights of each point; returns the keys (V,) of the corners in order of touch, and their table."""
    slots = FIRST_SLOTS
    table_keys, table_corners = np.zeros(slots, np.int64), np.full(slots, -1, np.int32)
    keys = np.empty(slots // 2, np.int64)
    count = 0
    scale = np.empty(D, np.float32)
    for i in range(D):  # steps of the lattice in a standard deviation, by the variance of splat, blur and slice together
        scale[i] = np.sqrt(2.0 / 3.0) * (D + 1) / np.sqrt((i + 1.0) * (i + 2.0))
    elevated, nearest = np.empty(CORNERS, np.float32), np.empty(CORNERS, np.int64)
    rank, barycentric = np.empty(CORNERS, np.int64), np.empty(CORNERS + 1, np.float32)
    for n in range(len(features)):
        if not known[n]:
            corners[n] = 0
            weights[n] = 0
            continue
        total = np.float32(0)
        for i in range(D, 0, -1):  # onto the plane in six dimensions on which coordinates sum to 0
            value = features[n, i - 1] * scale[i - 1]
            elevated[i] = total - i * value
            total += value
        elevated[0] = total
        _simplex(elevated, nearest, rank, barycentric)
        for corner in range(CORNERS):
            key = np.int64(0)
            for i in range(D):
                coordinate = nearest[i] + corner
                if rank[i] > D - corner:
                    coordinate -= CORNERS
                key += coordinate * KEY_OF_AXIS[i]
            slot = _slot(table_keys, table_corners, key)
            if table_corners[slot] < 0:
                table_keys[slot], table_corners[slot], keys[count] = key, count, key
                count += 1
            corners[n, corner] = table_corners[slot]
            weights[n, corner] = barycentric[corner]
        if 2 * (count + CORNERS) > slots:
            slots *= 2
            table_keys, table_corners = np.zeros(slots, np.int64), np.full(slots, -1, np.int32)
            more = np.empty(slots // 2, np.int64)
            more[:count] = keys[:count]
            keys = more
            for v in range(count):
                slot = _slot(table_keys, table_corners, keys[v])
                table_keys[slot], table_corners[slot] = keys[v], v
    return keys[:count].copy(), table_keys, table_corners


@njit(cache=True, nogil=True)
def _simplex(elevated, nearest, rank, barycentric):
    """The simplex around a place (6,) on the plane: its corner of remainder 0, the order of axes, the corners' weights."""
    total = np.int64(0)
    for i in range(CORNERS):
        nearest[i] = np.int64(np.floor(elevated[i] * np.float32(1 / CORNERS) + np.float32(0.5))) * CORNERS
        total += nearest[i] // CORNERS
        rank[i] = 0
    for i in range(D):
        for j in range(i + 1, CORNERS):
            if elevated[i] - nearest[i] < elevated[j] - nearest[j]:
                rank[i] += 1
            else:
                rank[j] += 1
    for i in range(CORNERS):  # rounding left the plane: go back along the axes that were rounded furthest
        rank[i] += total
        if rank[i] < 0:
            rank[i] += CORNERS
            nearest[i] += CORNERS
        elif rank[i] > D:
            rank[i] -= CORNERS
            nearest[i] -= CORNERS
    barycentric[:] = 0
    for i in range(CORNERS):
        delta = (elevated[i] - nearest[i]) * np.float32(1 / CORNERS)
        barycentric[D - rank[i]] += delta
        barycentric[CORNERS - rank[i]] -= delta
    barycentric[0] += 1 + barycentric[CORNERS]


@njit(cache=True, nogil=True)
def _slot(table_keys, table_corners, key):
    """Where a key stands in the table, or the free slot for it."""
    mask = len(table_keys) - 1
    slot = ((key * SPREAD) >> 20) & mask
    while table_corners[slot] >= 0 and table_keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _neighbours(keys, table_keys, table_corners):
    """The corners on both sides of each along each direction, int32 (6, V, 2), V where there is none."""
    count = len(keys)
    found = np.empty((CORNERS, count, 2), np.int32)
    steps = np.empty(CORNERS, np.int64)
    for direction in range(CORNERS):  # a step is +1 on all axes, and -5 on one, the last of which is in no key
        steps[direction] = 0
        for i in range(D):
            steps[direction] += KEY_OF_AXIS[i] * (-D if i == direction else 1)
    for v in range(count):
        for direction in range(CORNERS):
            for side in range(2):
                key = keys[v] + (steps[direction] if side else -steps[direction])
                corner = table_corners[_slot(table_keys, table_corners, key)]
                found[direction, v, side] = corner if corner >= 0 else count
    return found


@njit(cache=True, nogil=True)
def splat(values, corners, weights, out):
    """Add values (N, K) to the corners of their points in `out` (V + 1, K)."""
    for n in range(len(values)):
        for corner in range(CORNERS):
            v, weight = corners[n, corner], weights[n, corner]
            for k in range(values.shape[1]):
                out[v, k] += weight * values[n, k]


@njit(cache=True, nogil=True)
def blur(values, neighbours, first, out):
    """Write rows `first`, ... of values (V + 1, K), each with half of its `neighbours` (v, 2), to the same rows of `out`."""
    for v in range(len(neighbours)):
        one, other = neighbours[v, 0], neighbours[v, 1]
        for k in range(values.shape[1]):
            out[first + v, k] = values[first + v, k] + np.float32(0.5) * (values[one, k] + values[other, k])


@njit(cache=True, nogil=True)
def add_slice(values, corners, weights, factor, out):
    """Add to `out` (n, K) `factor` times what n points read at their corners of values (V + 1, K)."""
    for n in range(len(out)):
        a, b, c, d, e, f = corners[n, 0], corners[n, 1], corners[n, 2], corners[n, 3], corners[n, 4], corners[n, 5]
        p, q, r, s, t, u = weights[n, 0], weights[n, 1], weights[n, 2], weights[n, 3], weights[n, 4], weights[n, 5]
        for k in range(out.shape[1]):
            told = (
                p * values[a, k] + q * values[b, k] + r * values[c, k] + s * values[d, k] + t * values[e, k] + u * values[f, k]
            )
            out[n, k] += factor * told
