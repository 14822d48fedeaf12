"""Connected pieces of label maps: pixels of one number that touch. Axes: *S spatial axes, (H, W) or (D, H, W); R runs.

A row is cut into runs of one number, and runs of neighbouring rows that hold the same number and touch are joined: a union-find
over runs, of which there are far fewer than pixels. Source: Rosenfeld and Pfaltz 1966, doi 10.1145/321356.321357.
"""

import numpy as np
from numba import njit

from segwright.core.errors import ShapeError

ALL_NEIGHBOURS = {2: 8, 3: 26}  # across faces, edges and corners, by number of axes
FACE_NEIGHBOURS = {2: 4, 3: 6}

# The rows before a row that touch it, as steps along D and H, and 1 where corners along W count too.
_BESIDE = {
    (2, 4): ((0, -1, 0),),
    (2, 8): ((0, -1, 1),),
    (3, 6): ((0, -1, 0), (-1, 0, 0)),
    (3, 18): ((0, -1, 1), (-1, 0, 1), (-1, -1, 0), (-1, 1, 0)),
    (3, 26): ((0, -1, 1), (-1, 0, 1), (-1, -1, 1), (-1, 1, 1)),
}


def connected_components(labels: np.ndarray, neighbours: int) -> tuple[np.ndarray, int]:
    """The number of its piece at each pixel of a map (*S), int32 from 1 on and 0 where the map is 0, and the number of pieces.

    The map is bool or of whole numbers. `neighbours` of a pixel are 4 or 8 in 2D; 6, 18 or 26 in 3D. Pieces are numbered in the
    order of their first pixels.

    Raises:
        ShapeError: pixels of such a map do not have so many neighbours.
    """
    image = _as_volume(labels)
    *runs, count = _pieces_of_runs(image, _beside(labels, neighbours))
    pieces = np.zeros(image.shape, np.int32)
    _fill(pieces, *runs)
    return pieces.reshape(labels.shape), count


def count_components(labels: np.ndarray, neighbours: int) -> int:
    """The number of pieces that `connected_components` finds.

    Raises:
        ShapeError: as there.
    """
    return int(_pieces_of_runs(_as_volume(labels), _beside(labels, neighbours))[-1])


def _as_volume(labels: np.ndarray) -> np.ndarray:
    """A map as uint8 or int32 (D, H, W)."""
    narrow = labels.view(np.uint8) if labels.dtype == bool else labels
    narrow = np.ascontiguousarray(narrow, dtype=np.uint8 if narrow.dtype == np.uint8 else np.int32)
    return narrow.reshape((1,) * (3 - labels.ndim) + labels.shape)


def _beside(labels: np.ndarray, neighbours: int) -> np.ndarray:
    """The rows that touch one, int64 (N, 3).

    Raises:
        ShapeError: pixels of such a map do not have so many neighbours.
    """
    if (labels.ndim, neighbours) not in _BESIDE:
        raise ShapeError(
            f"{neighbours} neighbours of a pixel were asked for in a map of {labels.ndim} axes; "
            "give (H, W) and 4 or 8, or (D, H, W) and 6, 18 or 26"
        )
    return np.array(_BESIDE[labels.ndim, neighbours], np.int64)


@njit(cache=True, nogil=True)
def _pieces_of_runs(image, beside):
    """The runs of a volume (D, H, W) that are not 0, the piece of each from 1 on, and the number of pieces.

    Those of row z * H + y are the runs from first[row] up to first[row + 1]; run r covers start[r] to end[r].
    """
    D, H, W = image.shape
    first = np.zeros(D * H + 1, np.int64)
    for row in range(D * H):
        line = image[row // H, row % H]
        count = int(W > 0 and line[0] != 0)
        for x in range(1, W):
            count += (line[x] != line[x - 1]) & (line[x] != 0)
        first[row + 1] = first[row] + count
    start, end = np.empty(first[-1], np.int32), np.empty(first[-1], np.int32)
    value, parent = np.empty(first[-1], image.dtype), np.arange(first[-1]).astype(np.int32)
    for row in range(D * H):
        z, y = row // H, row % H
        _find_runs(image[z, y], first[row], start, end, value)
        for step in range(len(beside)):
            other_z, other_y = z + beside[step, 0], y + beside[step, 1]
            if other_z >= 0 and 0 <= other_y < H:
                other = other_z * H + other_y
                runs = first[row], first[row + 1], first[other], first[other + 1]
                _join(runs, start, end, value, parent, beside[step, 2])
    piece_of = np.empty(len(parent), np.int32)
    count = 0
    for run in range(len(parent)):
        if parent[run] == run:
            count += 1
            piece_of[run] = count
        else:
            piece_of[run] = piece_of[parent[run]]  # which is done: a parent lies before its children
    return first, start, end, piece_of, count


@njit(cache=True, nogil=True)
def _find_runs(line, run, start, end, value):
    """Enter the runs of a row (W,) from number `run` on."""
    before = 0
    for x in range(len(line)):
        if line[x] != before:
            if before != 0:
                end[run] = x
                run += 1
            if line[x] != 0:
                start[run], value[run] = x, line[x]
            before = line[x]
    if before != 0:
        end[run] = len(line)


@njit(cache=True, nogil=True)
def _join(runs, start, end, value, parent, reach):
    """Join the runs of two rows that hold the same number and overlap, with a reach of 1 also those that touch at a corner."""
    one, one_last, other, other_last = runs
    while one < one_last and other < other_last:
        is_near = start[one] < end[other] + reach and start[other] < end[one] + reach
        if is_near and value[one] == value[other]:
            _unite(parent, one, other)
        ahead = end[one] - end[other]
        if ahead == 0 and reach == 1:  # both runs are left behind: what they touch at this corner is met here only
            if other + 1 < other_last and start[other + 1] == end[one] and value[other + 1] == value[one]:
                _unite(parent, one, other + 1)
            if one + 1 < one_last and start[one + 1] == end[other] and value[one + 1] == value[other]:
                _unite(parent, one + 1, other)
        one += ahead <= 0
        other += ahead >= 0


@njit(cache=True, nogil=True)
def _unite(parent, one, other):
    """Make two runs those of one piece, whose root is its first run."""
    if parent[one] == parent[other]:
        return
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    while parent[other] != other:
        parent[other] = parent[parent[other]]
        other = parent[other]
    parent[max(one, other)] = min(one, other)


@njit(cache=True, nogil=True)
def _fill(pieces, first, start, end, piece_of):
    """Write the piece of each run over its pixels of (D, H, W)."""
    D, H, _ = pieces.shape
    for row in range(D * H):
        line = pieces[row // H, row % H]
        for run in range(first[row], first[row + 1]):
            line[start[run] : end[run]] = piece_of[run]
