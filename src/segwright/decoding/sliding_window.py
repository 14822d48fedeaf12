"""Images larger than a tile: overlapping tiles, blended, and turned into labels band by band.

Tiles lie on a regular grid. On each axis their weights are normalised to the sum 1 at every logit, so tiles are only multiplied
and added. Rows that no later tile touches become labels at once and are dropped: what is held is one band of logits as high as
a tile, never (K, *S).

Axes: C channels, K classes, *S spatial axes of the image, *T of a tile, *s and *t of their logits.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numba import njit

from segwright.core.errors import ShapeError
from segwright.decoding.upsample_argmax import Span, fill_labels, label_dtype, places, upsample_argmax
from segwright.decoding.upsample_probs import interpolated, upsample_probs

Ask = Callable[[np.ndarray], np.ndarray]  # images float32 (B, C, *T) to logits (B, K, *t)

# At the seam, where two tiles count the same, each is an eighth of its side away from its border, more than zero padding
# visibly reaches. Half a tile, as is common, would cost 4 instead of 1.8 times the pixels in 2D, and 8 instead of 2.4 in 3D.
OVERLAP = 1 / 4


@dataclass(frozen=True, eq=False)
class Axis:
    """The tiles along one axis, in logits: `starts` int64 (N,), and `weights` float32 (N, t) that sum to 1 at every logit."""

    starts: np.ndarray
    weights: np.ndarray

    @classmethod
    def over(cls, size: int, tile: int) -> "Axis":
        """Tiles evenly over `size` logits that overlap by a quarter at least; `tile` is at most `size`."""
        steps = -(-(size - tile) // max(1, int(tile * (1 - OVERLAP))))  # rounded up
        starts = np.rint(np.linspace(0, size - tile, steps + 1)).astype(np.int64)
        ramp = np.minimum(np.arange(tile) + 0.5, tile - np.arange(tile) - 0.5)  # distance to the border of the tile
        ramp = np.minimum(ramp, max(tile * OVERLAP, 1.0))
        total = np.zeros(size)
        for start in starts:
            total[start : start + tile] += ramp
        return cls(starts, np.stack([ramp / total[start : start + tile] for start in starts]).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Band:
    """Rows `first`, `first` + 1, ... of a larger array of logits (K, *total); those before row `stop` are final.

    `logits` float32 (K, t + 1, *rest) is valid until the next band is asked for.
    """

    logits: np.ndarray
    first: int
    stop: int
    total: tuple[int, ...]


def smallest_tile(side: int, most: int) -> int:
    """The side of the smallest tiles of which no more are needed than of tiles of `most` pixels, which is below `side`.

    One pixel too many then costs a second tile of 4/7 of the side, and not one as large as the first.
    """
    count = math.ceil((side - most) / (most * (1 - OVERLAP))) + 1
    return math.ceil(side / (count - (count - 1) * OVERLAP))


def tiled_labels(
    image: np.ndarray, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int = 1
) -> np.ndarray:
    """Labels (*S) of size `shape`, uint8 or uint16, of an image float32 (C, *P) that the network sees in tiles of shape *T.

    The labels cover the first `covered` pixels of the image along each axis; what follows is padding. A tile is at most as
    large as the image; `at_once` tiles of a row go to the network together. Logits are averaged where tiles overlap.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    whole = image.shape[1:]
    if tile == whole:
        logits = ask(image[None])[0]
        return upsample_argmax(logits, shape, _spans(covered, whole, logits.shape[1:]))
    out = np.empty(0, np.uint8)
    for logits, first, where in _parts(image, ask, tile, shape, covered, at_once):
        if not first:
            out = np.empty(shape, label_dtype(len(logits)))
        fill_labels(logits, where, out[first : first + len(where[0])])
    return out


def tiled_probs(
    image: np.ndarray, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int = 1
) -> np.ndarray:
    """Class probabilities float32 (K, *S) at the size `shape`; the rest is as in `tiled_labels`, but for the memory they take.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    whole = image.shape[1:]
    if tile == whole:
        logits = ask(image[None])[0]
    else:
        logits, done = np.empty(0, np.float32), 0
        for band in bands(image, ask, tile, at_once):
            if not done:
                logits = np.empty((len(band.logits), *band.total), np.float32)
            logits[:, done : band.stop] = band.logits[:, done - band.first : band.stop - band.first]
            done = band.stop
    return upsample_probs(logits, shape, _spans(covered, whole, logits.shape[1:]))


def tiled_maps(
    image: np.ndarray, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """Maps float32 (C, n, ...) of rows of the size `shape`, and the first of these rows, from the top to the bottom.

    All else is as in `tiled_labels`: maps are blended where tiles overlap, and interpolated. No array (C, *S) exists unless
    whoever asks keeps one.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    for maps, first, where in _parts(image, ask, tile, shape, covered, at_once):
        yield first, interpolated(maps, where)


def _parts(
    image: np.ndarray, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int
) -> Iterator[tuple[np.ndarray, int, list[np.ndarray]]]:
    """Final logits (K, *s), the first row of the size `shape` that they give, and the places in them of these rows, per axis.

    The logits are valid until the next are asked for. Where they are few rows, they may give none of `shape`.
    """
    whole = image.shape[1:]
    if tile == whole:
        logits = ask(image[None])[0]
        spans = _spans(covered, whole, logits.shape[1:])
        yield logits, 0, [places(*each) for each in zip(shape, logits.shape[1:], spans, strict=True)]
        return
    where, done = [np.empty(0)], 0
    for band in bands(image, ask, tile, at_once):
        if band.first < 0:  # the first band, before which there is no row
            spans = _spans(covered, whole, band.total)
            where = [places(*each) for each in zip(shape, band.total, spans, strict=True)]
        last = len(where[0]) if band.stop == band.total[0] else int(np.searchsorted(where[0], band.stop - 1))
        yield band.logits, done, [where[0][done:last] - band.first, *where[1:]]
        done = last


def _spans(covered: tuple[float, ...], pixels: tuple[int, ...], logits: tuple[int, ...]) -> tuple[Span, ...]:
    """The part of the logits, in logits, that lies over the first `covered` of so many pixels along each axis."""
    return tuple((0.0, end * count / side) for end, count, side in zip(covered, logits, pixels, strict=True))


def bands(image: np.ndarray, ask: Ask, tile: tuple[int, ...], at_once: int = 1) -> Iterator[Band]:
    """The logits of an image (C, *P) from its first row to its last; each band begins with the last final row before it."""
    first = ask(image[None, :, *(slice(side) for side in tile)])[0]
    strides = _strides_of(tile, first.shape[1:], image.shape[1:])
    axes = [Axis.over(n // s, t) for n, s, t in zip(image.shape[1:], strides, first.shape[1:], strict=True)]
    total = tuple(side // stride for side, stride in zip(image.shape[1:], strides, strict=True))
    sums = np.zeros((len(first), first.shape[1] + 1, *total[1:]), np.float32)

    def corner(number: tuple[int, ...]) -> list[int]:
        return [int(axis.starts[n]) for axis, n in zip(axes, number, strict=True)]

    def tile_at(number: tuple[int, ...]) -> np.ndarray:
        corners = zip(corner(number), strides, tile, strict=True)
        return image[:, *(slice(at * stride, at * stride + side) for at, stride, side in corners)]

    def blend(number: tuple[int, ...], logits: np.ndarray) -> None:
        _add(sums, logits, [1, *corner(number)[1:]], [axis.weights[n] for axis, n in zip(axes, number, strict=True)])

    origin = (0,) * len(axes)
    blend(origin, first)
    del first  # of all logits, one band and one batch of tiles exist at a time
    nexts = [*axes[0].starts[1:], total[0]]
    for row, (start, stop) in enumerate(zip(axes[0].starts, nexts, strict=True)):
        row_numbers = ((row, *place) for place in product(*(range(len(axis.starts)) for axis in axes[1:])))
        numbers = [number for number in row_numbers if number != origin]  # which has been run
        for group in (numbers[n : n + at_once] for n in range(0, len(numbers), at_once)):
            list(map(blend, group, ask(np.stack([tile_at(number) for number in group]))))
        yield Band(sums, start - 1, stop, total)
        kept = sums.shape[1] - (stop - start)
        for values in sums:  # class by class, since numpy copies what overlaps
            values[:kept] = values[len(values) - kept :]
            values[kept:] = 0


def _strides_of(tile: tuple[int, ...], logits: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...]:
    """Pixels per logit along each axis.

    Raises:
        ShapeError: the tile or the image is no whole number of logits.
    """
    strides = tuple(side // size for side, size in zip(tile, logits, strict=True))
    for side, stride, size, all_pixels in zip(tile, strides, logits, whole, strict=True):
        if stride * size != side or all_pixels % stride:
            raise ShapeError(
                f"a tile of {tile} in an image of {whole} gave logits of {logits}, but tiles need the same whole number of "
                "pixels per logit; give the network `divisors` that are multiples of its output stride"
            )
    return strides


def _add(sums: np.ndarray, logits: np.ndarray, offset: list[int], weights: list[np.ndarray]) -> None:
    """Add the logits (K, *t) of a tile, times its weights along each axis, to sums (K, *s) from `offset` on."""
    flat = [1] * (4 - sums.ndim)  # in 2D the kernel sees one plane
    ones = [np.ones(1, np.float32)] * len(flat)
    logits = np.ascontiguousarray(logits, np.float32)
    _add_tile(
        sums.reshape(len(sums), *flat, *sums.shape[1:]),
        logits.reshape(len(logits), *flat, *logits.shape[1:]),
        *[0] * len(flat),
        *(int(at) for at in offset),
        *ones,
        *weights,
    )


@njit(cache=True, nogil=True)
def _add_tile(sums, logits, front, top, left, weights_z, weights_y, weights_x):
    """Add logits (K, d, h, w), times one weight per axis, to sums (K, D, H, W) from (front, top, left) on."""
    K, d, h, w = logits.shape
    for k in range(K):
        for z in range(d):
            for y in range(h):
                weight = weights_z[z] * weights_y[y]
                for x in range(w):
                    sums[k, front + z, top + y, left + x] += weight * weights_x[x] * logits[k, z, y, x]
