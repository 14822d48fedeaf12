"""The centre lines of a mask, thinned without breaking, joining or filling anything. Axes: M pixels, *S spatial axes.

2D after Zhang and Suen 1984, doi 10.1145/357994.358023; 3D after Lee, Kashyap and Chu 1994, doi 10.1006/cgip.1994.1042. What
the papers leave open is done as in scikit-image, with which clDice is published: in 2D the skeletons are equal to its, pixel by
pixel. In 3D they are, but for single voxels that scikit-image 0.26 removes although it opens or closes a tunnel by that.

Both thin in turns until nothing changes. A pixel is looked at again only when one of its neighbours was removed, so the time
grows with the number of pixels and not with the thickness of the mask.
"""

from itertools import product

import numpy as np
from numba import njit

from segwright.core.errors import ShapeError

RING = ("NW", "N", "NE", "E", "SE", "S", "SW", "W")  # neighbours in 2D, bit 0 first; north is the row above
# Neighbours for which scikit-image departs from the paper: rows of two pixels and squares of four do not vanish, since they
# lose one side at a time, and the corners of stairs are removed.
AMENDED = {
    0: ("SE S", "NW W"),
    1: ("NW N", "N NE", "NE E", "N NE E", "NW N W", "NW N E", "N NE W", "NW S W", "N SW W", "N NE SW W"),
    2: ("E SE", "S SW", "SW W", "E SE S", "S SW W", "N E SE", "E S SW", "SE S W", "NE E S SW"),
    3: ("N E", "E S", "S W", "N W"),
}
DIRECTIONS = np.array([(0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0)])  # sides peeled in turn in 3D
NEIGHBOURS = [step for step in product((-1, 0, 1), repeat=3) if any(step)]  # in 3D, bit 0 first


def skeleton(mask: np.ndarray) -> np.ndarray:
    """The skeleton of a bool mask (*S), bool (*S), with as many components, holes and tunnels, and cavities as the mask.

    Foreground pixels are connected across corners; what is outside the image is background.

    Raises:
        ShapeError: the mask has neither two nor three axes.
    """
    if mask.ndim not in (2, 3):
        raise ShapeError(f"the mask has {mask.ndim} axes, skeletons are for 2 or 3; give one image (H, W) or volume (D, H, W)")
    thin = np.pad(mask, 1)
    image, strides = thin.view(np.uint8), np.array(thin.strides)  # one byte a pixel
    pixels = np.flatnonzero(thin).astype(np.int32 if image.size < 2**31 else np.int64)  # half the memory
    if mask.ndim == 2:
        ring = np.array([(("S" in name) - ("N" in name), ("E" in name) - ("W" in name)) for name in RING]) @ strides
        _thin_2d(image.ravel(), pixels, ring, PASSES)
    else:
        is_flat = np.array(mask.shape) == 1  # an axis of one voxel has no sides to peel
        directions = DIRECTIONS[~(np.abs(DIRECTIONS) @ is_flat).astype(bool)] @ strides
        _thin_3d(image.ravel(), pixels, directions, np.array(NEIGHBOURS) @ strides)
    return thin[(slice(1, -1),) * mask.ndim]


def _removal_passes() -> np.ndarray:
    """For each of the 256 neighbourhoods in 2D the passes that remove its pixel, uint8: 0 none, 1 first, 2 second, 3 both."""
    table = np.zeros(256, np.uint8)
    for code in range(256):
        ring = [code >> bit & 1 for bit in range(8)]
        _, north, _, east, _, south, _, west = ring
        starts = sum(not ring[i - 1] and ring[i] for i in range(8))  # of runs of foreground around the ring
        if 2 <= sum(ring) <= 6 and starts == 1:  # neither the end of a line nor inside, and removing it breaks nothing
            first = not (north and east and south) and not (east and south and west)
            second = not (north and east and west) and not (north and south and west)
            table[code] = first + 2 * second
    for passes, patterns in AMENDED.items():
        for pattern in patterns:
            table[sum(1 << RING.index(name) for name in pattern.split())] = passes
    return table


def _around(axes: int) -> np.ndarray:
    """Masks of the neighbours in 3D that touch a voxel at the same corner (3 axes), edge (2) or face (1), int32."""
    corners = [side for side in product((-1, 0, 1), repeat=3) if np.count_nonzero(side) == axes]
    return np.array(
        [
            sum(1 << bit for bit, step in enumerate(NEIGHBOURS) if all(s in (0, c) for s, c in zip(step, corner, strict=True)))
            for corner in corners
        ],
        np.int32,
    )


PASSES, OCTANTS, EDGES, FACES = _removal_passes(), _around(3), _around(2), _around(1)


@njit(cache=True, nogil=True)
def _thin_2d(image, pixels, ring, passes):
    """Remove pixels (M,) of a flat padded image in two alternating passes, all of a pass at once, as its table says."""
    waiting = np.zeros(len(image), np.uint8)  # the passes that are to look at a pixel, as bits
    queues, counts = np.empty((2, len(pixels)), pixels.dtype), np.zeros(2, np.int64)
    for pixel in pixels:
        if not (image[pixel + ring[1]] and image[pixel + ring[3]] and image[pixel + ring[5]] and image[pixel + ring[7]]):
            waiting[pixel] = 3  # with all four sides covered it cannot go yet
            queues[:, counts[0]] = pixel
            counts += 1
    removed = np.empty(len(pixels), pixels.dtype)
    while counts.any():
        for turn in range(2):
            count = 0
            for i in range(counts[turn]):
                pixel = queues[turn, i]
                waiting[pixel] &= ~np.uint8(1 << turn)
                code = 0
                for bit in range(8):
                    code |= image[pixel + ring[bit]] << bit
                if image[pixel] and passes[code] >> turn & 1:
                    removed[count] = pixel
                    count += 1
            counts[turn] = 0
            for i in range(count):
                image[removed[i]] = 0
            for i in range(count):
                for step in ring:  # its neighbours are looked at again
                    near = removed[i] + step
                    if image[near]:
                        for other in range(2):
                            if not waiting[near] >> other & 1:
                                waiting[near] |= 1 << other
                                queues[other, counts[other]] = near
                                counts[other] += 1


@njit(cache=True, nogil=True)
def _thin_3d(image, pixels, directions, neighbours):
    """Remove pixels (M,) of a flat padded volume from one side after the other.

    Of each side those that may go are collected first. Then they go one by one, unless the removal of others forbids it by now;
    ends of lines are not protected any more at that point, as in the paper.
    """
    every, listed = np.uint8((1 << len(directions)) - 1), np.uint8(128)
    waiting = np.zeros(len(image), np.uint8)  # the turns in which a pixel is to be looked at, as bits, and if it is listed
    active, candidates = pixels.copy(), np.empty_like(pixels)
    waiting[pixels], length = every | listed, len(pixels)
    while length:
        for turn in range(len(directions)):
            bit, count = np.uint8(1 << turn), 0
            for i in range(length):
                pixel = active[i]
                if waiting[pixel] & bit:
                    waiting[pixel] ^= bit
                    if image[pixel] and not image[pixel + directions[turn]]:  # a side that opens later wakes it again
                        code = _code(image, pixel, neighbours)
                        if code & (code - 1) and _is_simple(code):  # with one neighbour it is the end of a line
                            candidates[count] = pixel
                            count += 1
            for pixel in np.sort(candidates[:count]):  # row by row: the order decides which of several pixels goes
                if _is_simple(_code(image, pixel, neighbours)):
                    image[pixel] = 0
                    for step in neighbours:
                        near = pixel + step
                        if not image[near]:
                            continue
                        if not waiting[near] & listed:
                            active[length] = near
                            length += 1
                        waiting[near] |= every | listed
        kept = 0
        for i in range(length):
            if image[active[i]] and waiting[active[i]] & every:
                active[kept] = active[i]
                kept += 1
            else:
                waiting[active[i]] = 0
        length = kept


@njit(cache=True, nogil=True)
def _code(image, pixel, neighbours):
    """The neighbours of a voxel that are foreground, as bits."""
    code = np.int32(0)
    for bit in range(26):
        code |= np.int32(image[pixel + neighbours[bit]]) << np.int32(bit)
    return code


@njit(cache=True, nogil=True)
def _is_simple(code):
    """Whether the removal of a voxel with these neighbours keeps the Euler characteristic, and them in one piece."""
    change = -1  # of the Euler characteristic of closed cubes: corners - edges + faces - cubes that no other voxel has
    for corner in OCTANTS:
        change += (code & corner) == 0
    for edge in EDGES:
        change -= (code & edge) == 0
    for face in FACES:
        change += (code & face) == 0
    if change != 0:
        return False
    piece, last = np.int32(0), np.int32(-1)
    for octant in OCTANTS:  # voxels that share a corner of this one are neighbours of each other
        if code & octant:
            piece = code & octant
            break
    while piece != last:
        last = piece
        for octant in OCTANTS:
            if piece & octant:
                piece |= code & octant
    return piece == code
