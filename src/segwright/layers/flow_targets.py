"""Flow fields of objects: at each of their pixels, the way to the middle of its object, as Cellpose learns them.

Heat comes out of the middle of an object and spreads over its pixels alone, and the way from a pixel to the middle is the
direction in which the heat rises. It keeps inside an object that is bent, and turns around at the border of two that touch.

Source: Stringer et al. 2021, doi 10.1038/s41592-020-01018-x, Methods. Deviations: a piece of an object that nothing joins to
its middle has a middle of its own, for no way leads to the other; a middle itself has no way to go.

Axes: P planes, H, W sides of the image, h, w sides of an object.
"""

import numpy as np
from numba import njit

NINTH = 1 / 9  # the heat of a pixel becomes the mean over it and its eight neighbours


def uppermost(planes: np.ndarray) -> np.ndarray:
    """The object that shows at each pixel, int32 (H, W), of planes int32 (P, H, W): i + 1, 0 for none, -1 where nobody knows.

    Of several objects it is that in the last plane, as in `Segmentation.class_map`.
    """
    shown = planes[0].copy()
    for plane in planes[1:]:
        np.copyto(shown, plane, where=plane != 0)
    return shown


def flow_targets(objects: np.ndarray) -> np.ndarray:
    """The flows float32 (2, H, W), rows and columns to go, of a map int32 (H, W) where i > 0 marks object i.

    They have the length 1 in objects, and 0 elsewhere, in the middle of each piece of an object, and where no heat comes to
    while as many steps are made as its box has pixels around it.
    """
    flows = np.zeros((2, *objects.shape), np.float32)
    _fill_flows(np.ascontiguousarray(objects, np.int32), flows)
    return flows


@njit(cache=True, nogil=True)
def _fill_flows(objects, flows):
    """Write the flows of all pieces of objects (H, W) into `flows` (2, H, W), which is 0."""
    H, W = objects.shape
    piece_of = np.zeros((H, W), np.int32)
    rows, columns = np.empty(H * W, np.int32), np.empty(H * W, np.int32)
    number = 0
    for y in range(H):
        for x in range(W):
            if objects[y, x] > 0 and piece_of[y, x] == 0:
                number += 1
                count = _collect(objects, piece_of, number, y, x, rows, columns)
                _fill_piece(rows[:count], columns[:count], flows)


@njit(cache=True, nogil=True)
def _collect(objects, piece_of, number, y, x, rows, columns):
    """Write the pixels of the piece around a pixel into `rows` and `columns`, and mark them; how many there are."""
    H, W = objects.shape
    value = objects[y, x]
    rows[0], columns[0], piece_of[y, x] = y, x, number
    count, done = 1, 0
    while done < count:
        y, x = rows[done], columns[done]
        done += 1
        for i in range(max(y - 1, 0), min(y + 2, H)):
            for j in range(max(x - 1, 0), min(x + 2, W)):
                if piece_of[i, j] == 0 and objects[i, j] == value:
                    rows[count], columns[count], piece_of[i, j] = i, j, number
                    count += 1
    return count


@njit(cache=True, nogil=True)
def _fill_piece(rows, columns, flows):
    """Write the flows of one piece, whose pixels are given, into `flows` (2, H, W)."""
    top, left = rows.min(), columns.min()
    h, w = rows.max() - top + 1, columns.max() - left + 1
    inside = np.zeros((h, w), np.float64)
    for n in range(len(rows)):
        inside[rows[n] - top, columns[n] - left] = NINTH
    middle = _middle(rows, columns)
    heat = _heat(inside, rows[middle] - top, columns[middle] - left, 2 * (h + w))  # as many steps as the authors make
    for n in range(len(rows)):
        y, x = rows[n] - top + 1, columns[n] - left + 1
        down, right = heat[y + 1, x] - heat[y - 1, x], heat[y, x + 1] - heat[y, x - 1]
        length = np.hypot(down, right)
        if n != middle and length > 0:
            flows[0, rows[n], columns[n]], flows[1, rows[n], columns[n]] = down / length, right / length


@njit(cache=True, nogil=True)
def _middle(rows, columns):
    """The place of the pixel that is nearest to the median of all; of several the first by rows."""
    row, column = np.median(rows), np.median(columns)
    best, least = 0, np.inf
    for n in range(len(rows)):
        far = (rows[n] - row) ** 2 + (columns[n] - column) ** 2
        is_before = rows[n] < rows[best] or (rows[n] == rows[best] and columns[n] < columns[best])
        if far < least or (far == least and is_before):
            best, least = n, far
    return best


@njit(cache=True, nogil=True)
def _heat(inside, row, column, steps):
    """The logarithm of 1 plus the heat, float64 (h + 2, w + 2), after so many steps; `inside` (h, w) is a ninth in the piece.

    Before each step the heat of the middle pixel rises by 1. What leaves the piece is lost.
    """
    h, w = inside.shape
    heat, sums = np.zeros((h + 2, w + 2)), np.zeros((h + 2, w + 2))
    for _ in range(steps):
        heat[row + 1, column + 1] += 1
        for y in range(1, h + 1):
            for x in range(1, w + 1):
                sums[y, x] = heat[y, x - 1] + heat[y, x] + heat[y, x + 1]
        for y in range(h):
            for x in range(w):
                heat[y + 1, x + 1] = inside[y, x] * (sums[y, x + 1] + sums[y + 1, x + 1] + sums[y + 2, x + 1])
    return np.log1p(heat)
