"""Gaussian filtering of values at points in colour and space, all with all, in time linear in the points.

Adams, Baek and Davis 2010, "Fast high-dimensional filtering using the permutohedral lattice",
doi 10.1111/j.1467-8659.2009.01645.x: each point spreads its value over the corners of the simplex that it lies in (splat), the
corners are blurred along each of the lattice's directions, and each point reads the corners of its simplex again (slice).
Corners exist only where points are.

Points come in pieces, which threads work at side by side: each piece numbers the corners that it touches for itself, and splats
onto rows of its own, which are added up before they are blurred. How many threads there are changes no bit of the result.

Source of the idea for densely connected fields: Kraehenbuehl and Koltun 2011, arXiv 1210.5644.

Axes: N points, D = 5 of their features, P pieces, V corners in use, and a last row of zeros for corners that do not exist.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numba import njit

D = 5  # column, row, red, green, blue
CORNERS = D + 1
BLOCK = 64  # points whose simplices are found at once: what is known of them stays in the nearest cache
FIRST_SLOTS = 2**14  # of the table of corners, which doubles as it fills
SPREAD = np.int64(-7046029254386353131)  # 2**64 over the golden ratio: neighbouring keys fall far apart in the table
# A corner's key is the sum of its coordinates times these odd numbers, so that neighbours are found by adding; the last axis is
# in no key, as coordinates sum to 0. Two of V corners share a key with a probability of V**2 / 2**65: below one in a hundred
# thousand at 4 megapixels of noise.
KEY_OF_AXIS = np.array(
    [6364136223846793005, 3935559000370003845, 2862933555777941757, 3202034522624059733, 4354685564936845355, 0], np.int64
)


@dataclass(frozen=True, eq=False)
class Lattice:
    """Which corners each point touches: `corners` int32 (N, 6) by the piece's numbers, `weights` float32 (N, 6).

    Points that are left out have weights of 0. Piece p holds the points from `cuts[p]` up to `cuts[p + 1]`; `numbers[p]` int32
    are those of its corners in the whole lattice, and `rows` int32 (V, P) say where each corner stands in the pieces, laid one
    after the other: the row behind them all where it is in none. `neighbours` int32 (6, V, 2) are the corners next to each
    along each direction, V for none.
    """

    corners: np.ndarray
    weights: np.ndarray
    cuts: tuple[int, ...]
    numbers: list[np.ndarray]
    rows: np.ndarray
    neighbours: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, known: np.ndarray, cuts: Sequence[int], pool: Executor) -> "Lattice":
        """The lattice of points that are `known`, bool (N,), by features float32 (5, N) in standard deviations."""
        corners, weights = (np.empty((len(known), CORNERS), kind) for kind in (np.int32, np.float32))

        def embed(first: int, stop: int) -> np.ndarray:
            return _embed(features, known, first, stop, corners, weights)

        keys = list(pool.map(embed, cuts[:-1], cuts[1:]))
        ends = np.cumsum([len(of_piece) for of_piece in keys])
        numbers, whole, table_keys, table_corners = _number(np.concatenate(keys))
        rows = np.full((len(whole), len(keys)), ends[-1], np.int32)
        of_pieces = np.split(numbers, ends[:-1])
        for piece, (own, end) in enumerate(zip(of_pieces, ends, strict=True)):
            rows[own, piece] = np.arange(end - len(own), end)
        return cls(corners, weights, tuple(cuts), of_pieces, rows, _neighbours(whole, table_keys, table_corners))

    @property
    def size(self) -> int:
        """The number V of corners in use."""
        return len(self.rows)


@njit(cache=True, nogil=True)
def _embed(features, known, first, stop, corners, weights):
    """Write corners, numbered in order of touch, and weights of the points from `first` up to `stop`; returns their keys."""
    keys, table_keys, table_corners = _empty_table(FIRST_SLOTS)
    count = 0
    offsets, ranks = np.empty((CORNERS, BLOCK), np.float32), np.empty((CORNERS, BLOCK), np.int32)
    cells = np.empty((CORNERS, BLOCK), np.float32)
    axis = np.empty(CORNERS, np.int64)  # by rank
    step = KEY_OF_AXIS.sum()
    for start in range(first, stop, BLOCK):
        size = min(BLOCK, stop - start)
        _simplices(features, start, size, offsets, cells, ranks)
        for b in range(size):
            n = start + b
            if not known[n]:
                corners[n] = 0
                weights[n] = 0
                continue
            key = np.int64(0)
            for i in range(CORNERS):
                axis[ranks[i, b]] = i
                key += np.int64(cells[i, b]) * (CORNERS * KEY_OF_AXIS[i])
            weight = 1 + offsets[axis[D], b] - offsets[axis[0], b]
            for corner in range(CORNERS):
                if corner:  # one further along all axes, and a cell back along the axis whose turn it is
                    turn = axis[CORNERS - corner]
                    key += step - CORNERS * KEY_OF_AXIS[turn]
                    weight = offsets[axis[D - corner], b] - offsets[turn, b]
                slot = _slot(table_keys, table_corners, key)
                if table_corners[slot] < 0:
                    table_keys[slot], table_corners[slot], keys[count] = key, count, key
                    count += 1
                corners[n, corner] = table_corners[slot]
                weights[n, corner] = weight
            if count + CORNERS > len(keys):
                keys, table_keys, table_corners = _grown_table(keys, count)
    return keys[:count].copy()


@njit(cache=True, nogil=True, fastmath={"contract"})
def _simplices(features, start, size, offsets, cells, ranks):
    """The simplex around each of `size` points, axis by axis (6, b).

    Written are the cell that its corner of remainder 0 has along each axis, the offset from it in cells, and the rank of that
    offset, 0 for the largest.
    """
    total, excess = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.int32)
    for i in range(D, -1, -1):  # onto the plane in six dimensions on which coordinates sum to 0
        # steps of the lattice in a standard deviation, by the variance of splat, blur and slice together
        scale = np.float32(np.sqrt(2.0 / 3.0) * (D + 1) / np.sqrt(i * (i + 1.0))) if i else np.float32(0)
        for b in range(size):
            value = features[max(i - 1, 0), start + b] * scale if i else np.float32(0)
            place = (total[b] - np.float32(i) * value) * np.float32(1 / CORNERS)
            total[b] += value
            cells[i, b] = np.floor(place + np.float32(0.5))
            offsets[i, b] = place - cells[i, b]
    for i in range(CORNERS):
        ranks[i, :size] = 0
        for b in range(size):
            excess[b] += np.int32(cells[i, b])
    for i in range(D):
        for j in range(i + 1, CORNERS):
            for b in range(size):
                is_less = np.int32(offsets[i, b] < offsets[j, b])
                ranks[i, b] += is_less
                ranks[j, b] += 1 - is_less
    for i in range(CORNERS):  # rounding left the plane: go back along the axes that were rounded furthest
        for b in range(size):
            rank = ranks[i, b] + min(max(excess[b], -D), D)  # more only where values are too large for float32
            turn = np.int32(rank < 0) - np.int32(rank > D)
            ranks[i, b] = rank + CORNERS * turn
            cells[i, b] += np.float32(turn)
            offsets[i, b] -= np.float32(turn)


@njit(cache=True, nogil=True)
def _number(keys):
    """The number int32 of each key, counted in order of first sight; the keys (V,) by number, and their table."""
    numbers, count = np.empty(len(keys), np.int32), 0
    found, table_keys, table_corners = _empty_table(FIRST_SLOTS)
    for v in range(len(keys)):
        slot = _slot(table_keys, table_corners, keys[v])
        if table_corners[slot] < 0:
            table_keys[slot], table_corners[slot], found[count] = keys[v], count, keys[v]
            count += 1
        numbers[v] = table_corners[slot]
        if count == len(found):
            found, table_keys, table_corners = _grown_table(found, count)
    return numbers, found[:count].copy(), table_keys, table_corners


@njit(cache=True, nogil=True)
def _empty_table(slots):
    """Room for the keys of half as many corners as there are slots, and the slots' keys and corners, -1 where free."""
    return np.empty(slots // 2, np.int64), np.zeros(slots, np.int64), np.full(slots, -1, np.int32)


@njit(cache=True, nogil=True)
def _grown_table(keys, count):
    """The same of twice the size, with `count` keys in it."""
    grown, table_keys, table_corners = _empty_table(4 * len(keys))
    grown[:count] = keys[:count]
    for v in range(count):
        slot = _slot(table_keys, table_corners, keys[v])
        table_keys[slot], table_corners[slot] = keys[v], v
    return grown, table_keys, table_corners


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
    found = np.full((CORNERS, count, 2), count, np.int32)
    for direction in range(CORNERS):  # a step is +1 on all axes, and -5 on one
        step = KEY_OF_AXIS.sum() - CORNERS * KEY_OF_AXIS[direction]
        for v in range(count):
            corner = table_corners[_slot(table_keys, table_corners, keys[v] + step)]
            if corner >= 0:
                found[direction, v, 1], found[direction, corner, 0] = corner, v
    return found


@njit(cache=True, nogil=True, fastmath={"contract"})
def splat(values, corners, weights, first, out):
    """Add values (n, K) of points to their corners (n, 6) in rows `first`, ... of `out`: three at once, and the other three."""
    for n in range(len(values)):
        for corner in range(0, CORNERS, 3):
            a, b, c = first + corners[n, corner], first + corners[n, corner + 1], first + corners[n, corner + 2]
            p, q, r = weights[n, corner], weights[n, corner + 1], weights[n, corner + 2]
            for k in range(values.shape[1]):
                value = values[n, k]
                out[a, k] += p * value
                out[b, k] += q * value
                out[c, k] += r * value


@njit(cache=True, nogil=True)
def gather(values, rows, first, stop, out):
    """Write to rows from `first` up to `stop` of `out` (V + 1, K) the sums of those `rows` (V, P) of values that are theirs."""
    for v in range(first, stop):
        one = rows[v, 0]
        for k in range(out.shape[1]):
            out[v, k] = values[one, k]
        for piece in range(1, rows.shape[1]):
            one = rows[v, piece]
            for k in range(out.shape[1]):
                out[v, k] += values[one, k]


@njit(cache=True, nogil=True)
def blur(values, neighbours, first, stop, out):
    """Write rows from `first` up to `stop` of values (V + 1, K), each with half of its `neighbours` (V, 2), to `out`."""
    for v in range(first, stop):
        one, other = neighbours[v, 0], neighbours[v, 1]
        for k in range(values.shape[1]):
            out[v, k] = values[v, k] + np.float32(0.5) * (values[one, k] + values[other, k])


@njit(cache=True, nogil=True, fastmath={"contract"})
def add_slice(values, corners, numbers, weights, factor, out):
    """Add to `out` (n, K) `factor` times what points read in values (V + 1, K), where corners (n, 6) have these `numbers`."""
    for n in range(len(out)):
        a, b, c = numbers[corners[n, 0]], numbers[corners[n, 1]], numbers[corners[n, 2]]
        d, e, f = numbers[corners[n, 3]], numbers[corners[n, 4]], numbers[corners[n, 5]]
        p, q, r = factor * weights[n, 0], factor * weights[n, 1], factor * weights[n, 2]
        s, t, u = factor * weights[n, 3], factor * weights[n, 4], factor * weights[n, 5]
        for k in range(out.shape[1]):
            out[n, k] += (
                p * values[a, k] + q * values[b, k] + r * values[c, k] + s * values[d, k] + t * values[e, k] + u * values[f, k]
            )
