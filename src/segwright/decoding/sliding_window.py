"""Images larger than a tile: overlapping tiles, blended, and turned into labels brick by brick.

Tiles lie on a regular grid and come in the order of reading. On each axis their weights are normalised to the sum 1 at every
logit, so tiles are only multiplied and added. Logits that no later tile touches are final: a brick of them becomes labels at
once and is dropped. What is held besides are the sums where tiles overlap, along the first axis over the whole cross-section
(K, overlap, H, W), and never (K, *S).

Axes: C channels, K classes, *S spatial axes of the image, *T of a tile, *s and *t of their logits, (d, h, w) those of a tile as
the kernel sees them, in 2D with d = 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numba import njit

from segwright.core.errors import ShapeError
from segwright.decoding.upsample_argmax import fill_labels, in_threads, label_dtype, places
from segwright.decoding.upsample_probs import interpolated, probs_at
from segwright.transforms.prepare import PixelSource

Ask = Callable[[np.ndarray], np.ndarray]  # images float32 (B, C, *T) to logits (B, K, *t)

# At the seam, where two tiles count the same, each is an eighth of its side away from its border, more than zero padding
# visibly reaches. Half a tile, as is common, would cost 4 instead of 1.8 times the pixels in 2D, and 8 instead of 2.4 in 3D.
OVERLAP = 1 / 4
FLOAT_BYTES = np.dtype(np.float32).itemsize
GAUSSIAN_OVERLAP, GAUSSIAN_SIGMA = 1 / 2, 1 / 8  # of a side (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z)


@dataclass(frozen=True, eq=False)
class Axis:
    """The tiles along one axis, in logits: `starts` int64 (N,), and `weights` float32 (N, t) that sum to 1 at every logit."""

    starts: np.ndarray
    weights: np.ndarray

    @classmethod
    def over(cls, size: int, tile: int) -> "Axis":
        """Tiles evenly over `size` logits that overlap by a quarter at least; `tile` is at most `size`."""
        ramp = np.minimum(np.arange(tile) + 0.5, tile - np.arange(tile) - 0.5)  # distance to the border of the tile
        return cls._of(size, max(1, int(tile * (1 - OVERLAP))), np.minimum(ramp, max(tile * OVERLAP, 1.0)))

    @classmethod
    def gaussian(cls, size: int, tile: int) -> "Axis":
        """Tiles evenly over `size` logits that overlap by half at least, with a bell around their middle: as nnU-Net's."""
        bell = np.exp(-0.5 * ((np.arange(tile) - tile // 2) / (tile * GAUSSIAN_SIGMA)) ** 2)
        return cls._of(size, tile * (1 - GAUSSIAN_OVERLAP), bell)

    @classmethod
    def _of(cls, size: int, step: float, weights: np.ndarray) -> "Axis":
        """Tiles evenly over `size` logits, `step` apart at most, with `weights` (t,)."""
        tile = len(weights)
        starts = np.rint(np.linspace(0, size - tile, math.ceil((size - tile) / step) + 1)).astype(np.int64)
        total = np.zeros(size)
        for start in starts:
            total[start : start + tile] += weights
        return cls(starts, np.stack([weights / total[start : start + tile] for start in starts]).astype(np.float32))


@dataclass(frozen=True, eq=False)
class Brick:
    """Final logits of a box in a larger array (K, *total), valid until the next brick is asked for.

    `logits` float32 (K, *n) reach from `first` on up to `stop`, which is outside. Along each axis they begin one logit before
    what is new, so that each place between two logits lies in one brick. At the border `first` is -1, and what is there means
    nothing.
    """

    logits: np.ndarray
    first: tuple[int, ...]
    stop: tuple[int, ...]
    total: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PlacedLogits:
    """Logits (K, *n), the places in them of the pixels that they decide, per axis, and where in the image these pixels are."""

    logits: np.ndarray
    where: list[np.ndarray]
    place: tuple[slice, ...]


def smallest_tile(side: int, most: int) -> int:
    """The side of the smallest tiles of which no more are needed than of tiles of `most` pixels, which is below `side`.

    One pixel too many then costs a second tile of 4/7 of the side, and not one as large as the first.
    """
    count = math.ceil((side - most) / (most * (1 - OVERLAP))) + 1
    return math.ceil(side / (count - (count - 1) * OVERLAP))


def tiled_labels(
    image: PixelSource, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int = 1
) -> np.ndarray:
    """Labels (*S) of size `shape`, uint8 or uint16, of an image float32 (C, *P) that the network sees in tiles of shape *T.

    The labels cover the first `covered` pixels of the image along each axis; what follows is padding. A tile is at most as
    large as the image; `at_once` tiles of a row go to the network together. Logits are averaged where tiles overlap.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    out = np.empty(0, np.uint8)
    for first, rows in tiled_label_rows(image, ask, tile, shape, covered, at_once):
        if not first:
            if len(rows) == shape[0]:
                return rows
            out = np.empty(shape, rows.dtype)
        out[first : first + len(rows)] = rows
    return out


def tiled_label_rows(
    image: PixelSource, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """Labels (n, ...) of rows of the size `shape`, and the first of these rows, from the top to the bottom; else as above.

    No array (*S) exists unless whoever asks keeps one.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    return _rows(_parts(image, ask, tile, shape, covered, at_once), shape, labels_at)


def tiled_probs(
    image: PixelSource, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int = 1
) -> np.ndarray:
    """Class probabilities float32 (K, *S) at the size `shape`; the rest is as in `tiled_labels`, but for the memory they take.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    out = np.empty(0, np.float32)
    for first, probs in tiled_prob_rows(image, ask, tile, shape, covered, at_once):
        if not first:
            if probs.shape[1] == shape[0]:
                return probs
            out = np.empty((len(probs), *shape), np.float32)
        out[:, first : first + probs.shape[1]] = probs
    return out


def tiled_prob_rows(
    image: PixelSource, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """The same of rows (K, n, ...) as they come, and the first of them, from the top to the bottom; no array (K, *S) exists.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    return _rows(_parts(image, ask, tile, shape, covered, at_once), shape, probs_at)


def tiled_maps(
    image: PixelSource, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """Maps float32 (C, n, ...) of rows of the size `shape`, and the first of these rows, from the top to the bottom.

    All else is as in `tiled_labels`: maps are blended where tiles overlap, and interpolated. No array (C, *S) exists unless
    whoever asks keeps one.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    return _rows(_parts(image, ask, tile, shape, covered, at_once), shape, interpolated)


def labels_at(logits: np.ndarray, where: list[np.ndarray]) -> np.ndarray:
    """The labels (*n) of the pixels at the places `where` of logits (K, *s)."""
    labels = np.empty([len(each) for each in where], label_dtype(len(logits)))
    fill_labels(logits, where, labels)
    return labels


def _rows(
    parts: Iterator[PlacedLogits], shape: tuple[int, ...], values_at: Callable[[np.ndarray, list[np.ndarray]], np.ndarray]
) -> Iterator[tuple[int, np.ndarray]]:
    """What `values_at` makes of logits at places, (..., n, *S[1:]) for some rows of `shape` as soon as they are complete.

    The first of these rows goes before them.
    """
    rows, whole = slice(0, 0), np.empty(0)
    for part in parts:
        values = values_at(part.logits, part.where)
        if part.place[0] != rows:
            if whole.size:
                yield rows.start, whole
            rows = part.place[0]
            whole = np.empty((*values.shape[: values.ndim - len(shape)], rows.stop - rows.start, *shape[1:]), values.dtype)
        whole[*[slice(None)] * (whole.ndim - len(shape) + 1), *part.place[1:]] = values
    yield rows.start, whole


def _parts(
    image: PixelSource, ask: Ask, tile: tuple[int, ...], shape: tuple[int, ...], covered: tuple[float, ...], at_once: int
) -> Iterator[PlacedLogits]:
    """The parts that make up the size `shape`, in the order of reading."""
    whole = image.shape[1:]

    def where_in(total: tuple[int, ...]) -> list[np.ndarray]:
        ends = (end * count / side for end, count, side in zip(covered, total, whole, strict=True))
        return [places(size, count, (0.0, end)) for size, count, end in zip(shape, total, ends, strict=True)]

    if tile == whole:
        logits = np.ascontiguousarray(ask(image[:, *(slice(side) for side in whole)][None])[0], np.float32)
        return iter([PlacedLogits(logits, where_in(logits.shape[1:]), tuple(map(slice, [0] * len(shape), shape)))])
    return located(bricks(image, ask, tile, at_once), where_in)


def located(found: Iterator[Brick], where_in: Callable[[tuple[int, ...]], list[np.ndarray]]) -> Iterator[PlacedLogits]:
    """The pixels that each of some bricks decides; `where_in` tells the places of pixels in logits of a size, rising, per axis.

    Bricks that decide none are left out.
    """
    where: list[np.ndarray] = []
    for brick in found:
        where = where or where_in(brick.total)
        ends = zip(where, brick.first, brick.stop, brick.total, strict=True)
        place = tuple(_between(each, first, stop - 1 if stop < size else size) for each, first, stop, size in ends)
        inside = [each[part] - first for each, part, first in zip(where, place, brick.first, strict=True)]
        if all(map(len, inside)):
            yield PlacedLogits(brick.logits, inside, place)


def _between(where: np.ndarray, low: int, high: int) -> slice:
    """The part of rising places that are at least `low`, and below `high`."""
    first, stop = np.searchsorted(where, [low, high])
    return slice(int(first), int(stop))


def bricks(
    image: PixelSource, ask: Ask, tile: tuple[int, ...], at_once: int = 1, over: Callable[[int, int], Axis] = Axis.over
) -> Iterator[Brick]:
    """The logits of an image (C, *P) from its first corner to its last, in the order of reading.

    `over` says where tiles of so many logits lie over so many, and what they weigh.

    Raises:
        ShapeError: the network's stride does not divide the tile.
    """
    first = ask(image[:, *(slice(side) for side in tile)][None])[0]
    strides = strides_of(tile, first.shape[1:], image.shape[1:])
    total = tuple(side // stride for side, stride in zip(image.shape[1:], strides, strict=True))
    axes = list(map(over, total, first.shape[1:]))
    sums = _Sums(axes, total, len(first))

    def tile_at(number: tuple[int, ...]) -> np.ndarray:
        starts = (int(axis.starts[n]) * stride for axis, n, stride in zip(axes, number, strides, strict=True))
        return image[:, *(slice(start, start + side) for start, side in zip(starts, tile, strict=True))]

    origin = (0,) * len(axes)
    yield sums.add(origin, first)
    del first  # of all logits, those of one batch of tiles exist at a time
    for row in range(len(axes[0].starts)):
        row_numbers = ((row, *place) for place in product(*(range(len(axis.starts)) for axis in axes[1:])))
        numbers = [number for number in row_numbers if number != origin]  # which has been run
        for group in (numbers[n : n + at_once] for n in range(0, len(numbers), at_once)):
            yield from map(sums.add, group, ask(np.stack([tile_at(number) for number in group])))


def strides_of(tile: tuple[int, ...], logits: tuple[int, ...], whole: tuple[int, ...]) -> tuple[int, ...]:
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


def sums_bytes(total: tuple[int, ...], tile: tuple[int, ...], classes: int) -> int:
    """The memory that is held between tiles of so many logits over (K, *total), beside an image, its labels and one tile."""
    return FLOAT_BYTES * classes * sum(map(math.prod, _shapes(list(map(Axis.over, total, tile)), total)))


def _three(axes: Sequence[Axis]) -> list[Axis]:
    """The axes as the kernel sees them: in 2D one plane."""
    return [*(Axis(np.zeros(1, np.int64), np.ones((1, 1), np.float32)) for _ in range(3 - len(axes))), *axes]


def _shapes(axes: Sequence[Axis], total: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The shapes of what is held for a class, as `_Sums` says: of the sums along each axis, then of the borders."""
    tile = [each.weights.shape[1] for each in _three(axes)]
    ends = zip(_three(axes), tile, (1, *total)[-3:], strict=True)
    overlap = [max(side - int(step) for step in np.diff([*each.starts, size])) for each, side, size in ends]
    (d, h, _), (height, width), lead = tile, total[-2:], len(total) - 2
    sums = [(overlap[0], height, width), (d, overlap[1], width), (d, h, overlap[2])]
    return [*sums, (height * lead, width), (d + lead, width), (d + lead, h + 1)]


class _Sums:
    """What tiles over an array (K, *total) add up to, of which only that is held which is not final.

    After a tile, what lies before the start of the next one on each axis is final. Of its other logits, those before the start
    along the first axis alone go to the next tile of the first axis, and so on: `planes` are as many as (K, overlap, H, W),
    `rows` as (K, d, overlap, W), and `columns` (K, d, h, overlap). The first two are flat: what belongs to a brick lies in one
    piece. `before` are the final logits one before what is new, a plane (K, H, W), which 2D does not have, a row (K, d, W) and
    a column (K, d, h), the last two with what is before them.
    """

    def __init__(self, axes: Sequence[Axis], total: tuple[int, ...], classes: int) -> None:
        self.total, self.lead, self.axes = total, len(total) - 2, _three(axes)
        self.starts = [[*map(int, each.starts), size] for each, size in zip(self.axes, (1, *total)[-3:], strict=True)]
        planes, rows, columns, *before = _shapes(axes, total)
        self.overlap = (planes[0], rows[1])
        self.planes, self.rows = (np.empty(classes * math.prod(shape), np.float32) for shape in (planes, rows))
        self.columns = np.empty((classes, *columns), np.float32)
        self.before = [np.zeros((classes, *shape), np.float32) for shape in before]
        longest = [int(np.diff(each).max()) for each in self.starts]
        self.brick = np.empty(math.prod(self._brick_shape(classes, longest)), np.float32)  # of any size, one after the other

    def add(self, number: tuple[int, ...], logits: np.ndarray) -> Brick:
        """The brick that is final with the logits (K, *t) of the tile of this number per axis, after all those before it."""
        number, logits = (0,) * (1 - self.lead) + number, np.ascontiguousarray(logits, np.float32)
        start, stop = ([at[n + more] for at, n in zip(self.starts, number, strict=True)] for more in (0, 1))
        sides = [axis.weights.shape[1] for axis in self.axes]
        had = tuple(at[n - 1] + side - at[n] if n else 0 for at, n, side in zip(self.starts, number, sides, strict=True))
        steps = tuple(end - begin for begin, end in zip(start, stop, strict=True))
        weights = tuple(axis.weights[n] for axis, n in zip(self.axes, number, strict=True))
        logits = logits.reshape(len(logits), *sides)
        brick = _piece(self.brick, 0, self._brick_shape(len(logits), steps))
        carried = self._carried(start, steps, sides)

        def add(one: int, end: int) -> None:
            _add_tile(logits[one:end], weights, steps, had, tuple(each[one:end] for each in carried), brick[one:end])

        in_threads(add, len(logits), logits.size)
        self._keep_border(brick, start, stop)
        axes = slice(1 - self.lead, None)
        first = tuple(begin - 1 for begin in start[axes])
        return Brick(brick if self.lead else brick[:, 0], first, tuple(stop[axes]), self.total)

    def _brick_shape(self, classes: int, steps: Sequence[int]) -> tuple[int, ...]:
        """Of so many new logits, and one before them along each axis."""
        return classes, steps[0] + self.lead, steps[1] + 1, steps[2] + 1

    def _carried(self, start: list[int], steps: tuple[int, ...], sides: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is carried to and from a brick: (K, overlap, high, wide), (K, d, overlap, wide) and (K, d, h, overlap)."""
        classes, (deep, low), (_, top, left), (_, high, wide) = len(self.columns), self.overlap, start, steps
        above = top * self.total[-1] + left * high  # pixels of bricks above, and on the left of it
        planes = _piece(self.planes, classes * deep * above, (classes, deep, high, wide))
        return planes, _piece(self.rows, classes * sides[0] * low * left, (classes, sides[0], low, wide)), self.columns

    def _keep_border(self, brick: np.ndarray, start: list[int], stop: list[int]) -> None:
        """Write what is known before the new logits of a brick, and keep what is the same for others."""
        (plane, row, column), (_, deep, high, _) = self.before, brick.shape
        ys, xs = (slice(first, end) for first, end in zip(start[1:], stop[1:], strict=True))
        if self.lead:
            brick[:, 0, 1:, 1:] = plane[:, ys, xs]
            plane[:, ys, xs] = brick[:, -1, 1:, 1:]
        brick[:, :, 0, 1:] = row[:, :deep, xs]
        row[:, :deep, xs] = brick[:, :, -1, 1:]
        brick[:, :, :, 0] = column[:, :deep, :high]
        column[:, :deep, :high] = brick[:, :, :, -1]


def _piece(flat: np.ndarray, first: int, shape: tuple[int, ...]) -> np.ndarray:
    """The part of a flat array that begins at `first`, in a shape."""
    return flat[first : first + math.prod(shape)].reshape(shape)


@njit(cache=True, nogil=True)
def _add_tile(logits, weights, steps, had, carried, brick):
    """Add logits (K, d, h, w), times a weight per axis, to what was carried; write final ones to `brick` and carry the rest.

    Of the tile the first `steps` along each axis lie before the next tile, and the first `had` were seen by the one before. The
    new logits of the brick are its last. Innermost loops begin at 0: numba does not vectorise what may count from the end.
    """
    K, d, h, w = logits.shape
    weights_z, weights_y, weights_x = weights
    deep, high, wide = steps
    planes, rows, columns = carried
    lead = brick.shape[1] - deep
    line = np.empty(w, np.float32)
    rest = line[wide:]
    for k in range(K):
        for z in range(d):
            for y in range(h):
                weight = weights_z[z] * weights_y[y]
                for x in range(w):
                    line[x] = weight * weights_x[x] * logits[k, z, y, x]
                for x in range(had[2]):
                    line[x] += columns[k, z, y, x]
                for x in range(len(rest)):
                    columns[k, z, y, x] = rest[x]
                if y < had[1]:
                    for x in range(wide):
                        line[x] += rows[k, z, y, x]
                if y >= high:
                    for x in range(wide):
                        rows[k, z, y - high, x] = line[x]
                    continue
                if z < had[0]:
                    for x in range(wide):
                        line[x] += planes[k, z, y, x]
                if z >= deep:
                    for x in range(wide):
                        planes[k, z - deep, y, x] = line[x]
                else:
                    for x in range(wide):
                        brick[k, lead + z, 1 + y, 1 + x] = line[x]
