"""Run lengths that go row by row through a box in an image, as CVAT keeps masks, to and from COCO's, which go by columns.

`runs` are the pixels of the box, each row from left to right: the first count is background (it may be 0), the next
foreground, and so on in turn; they add up to w * h. Neither direction makes a mask of the whole image: a mask of few runs
costs little, however large it is.

Axes: (H, W) pixels of the image, (h, w) of the box, R runs.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit

from segwright.codecs import rle
from segwright.core.errors import FormatError

MAX_CHANGES = 2**25  # from pixel to pixel down the columns; stripes of a few kB could claim hundreds of millions


def to_counts(runs: Sequence[int], box: tuple[int, int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    """The run lengths uint32 (R,) by columns of the whole image (H, W); the box is left, top, width and height.

    Raises:
        FormatError: the box does not lie in the image, the runs do not fill it, or there are too many changes.
    """
    left, top, width, height = box
    if min(left, top) < 0 or min(width, height) < 1 or left + width > shape[1] or top + height > shape[0]:
        raise FormatError(
            f"left={left}, top={top}, width={width} and height={height} do not fit the image of {shape[0]} x {shape[1]} "
            "(rows x columns); correct them or export the file again"
        )
    if min(runs) < 0 or sum(runs) != width * height:
        raise FormatError(
            f"the runs are {sum(runs)} pixels together, the box has {width} x {height} = {width * height}; "
            "the rle is damaged or cut short: export it again"
        )
    toggles = np.cumsum(np.array(runs, np.int64))[:-1]  # where the value changes
    count = _changes(toggles, width, height, 0, 0, 0, np.zeros(0, np.int64))
    if count > MAX_CHANGES:
        raise FormatError(
            f"the mask changes {count:,} times down its columns, {MAX_CHANGES:,} is the limit; cut the image into tiles"
        )
    changes = np.empty(count, np.int64)
    _changes(toggles, width, height, left, top, shape[0], changes)
    changes.sort()
    return _counts(changes, shape[0] * shape[1])


def of_counts(counts: np.ndarray, shape: tuple[int, ...]) -> tuple[list[int], tuple[int, int, int, int]]:
    """The runs in the smallest box around the foreground of run lengths by columns, and that box: left, top, width, height."""
    mask, (left, top) = rle.crop(counts, shape)
    height, width = mask.shape
    return rle.encode(mask.T).tolist(), (left, top, width, height)


@njit(cache=True, nogil=True)
def _changes(toggles: np.ndarray, width: int, height: int, left: int, top: int, image_height: int, found: np.ndarray) -> int:
    """The number of places where a pixel differs from that above it; with room in `found`, the places, by columns.

    Rows differ where one of them changes its value and the other does not, so that both lists of changes are merged.
    """
    count = 0
    above, above_end, is_on_above = 0, 0, False  # the changes within the row above, and its value at its left edge
    here, is_on = 0, False
    for row in range(height + 1):
        here_end = here
        limit = (row + 1) * width if row < height else row * width
        while here_end < len(toggles) and toggles[here_end] < limit:
            here_end += 1
        a, b = above, here
        differs, start = is_on_above != (is_on and row < height), 0
        while True:
            x_above = toggles[a] - (row - 1) * width if a < above_end else width
            x_here = toggles[b] - row * width if b < here_end and row < height else width
            x = min(x_above, x_here)
            if differs:
                if len(found):
                    for column in range(start, x):
                        found[count + column - start] = (left + column) * image_height + top + row
                count += x - start
            if x == width:
                break
            if x_above == x:
                differs = not differs
                a += 1
            if x_here == x:
                differs = not differs
                b += 1
            start = x
        above, above_end, is_on_above = here, here_end, is_on
        is_on = is_on != ((here_end - here) % 2 == 1)
        here = here_end
    return count


@njit(cache=True, nogil=True)
def _counts(changes: np.ndarray, size: int) -> np.ndarray:
    """Run lengths from sorted places of changes; two at one place, the end of a column and the start of the next, are none."""
    counts = np.empty(len(changes) + 1, np.uint32)
    written, covered, n = 0, np.int64(0), 0
    while n < len(changes):
        if n + 1 < len(changes) and changes[n] == changes[n + 1]:
            n += 2
            continue
        if changes[n] < size:
            counts[written] = changes[n] - covered
            covered = changes[n]
            written += 1
        n += 1
    counts[written] = size - covered
    return counts[: written + 1].copy()
