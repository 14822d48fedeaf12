"""The Gaussian of distance between all pixels of an image: one pass along the rows, one along the columns.

It ends at three standard deviations. Where these are three pixels or more it works at half size: halving and doubling, by
weights of 1, 3, 3 and 1, blur too, by a variance of 1.5 pixels along each axis, and the Gaussian between them has so much less.
What comes out differs from the Gaussian by 1.3 % of its peak at three pixels, and by less at more.

Axes: (H, W) of the image, (h, w) of half of it, N = H * W pixels, n of a band, C numbers of each, T taps of the kernel.
"""

from math import ceil

import numpy as np
from numba import njit

from segwright.inference.image_bands import ImageBands
from segwright.inference.pairwise_kernel import PairwiseKernel, symmetric_factors

REACH = 3  # standard deviations: 0.3 % of the Gaussian lies beyond
HALVED_FROM = 3.0  # pixels of standard deviation: at 2 the kernel at half size is off by 5 % of its peak
NEAR, FAR = np.float32(3 / 8), np.float32(1 / 8)  # weights of pixels half a pixel and one and a half from the middle of two
TILE = 2**10  # numbers of a row that are blurred at a time: with the rows around them they stay in the cache


def spatial_gaussian(known: np.ndarray, sigma: float, compat: float, channels: int, bands: ImageBands) -> PairwiseKernel:
    """`compat` times the Gaussian of standard deviation `sigma` pixels, normalised, between `known` pixels, bool (N,)."""
    make = _AtHalfSize if sigma >= HALVED_FROM else _AtFullSize
    taps = _taps(((sigma**2 - 1.5) / 4) ** 0.5 if make is _AtHalfSize else sigma, max(bands.height, bands.width))
    factors = symmetric_factors(make(taps, known.astype(np.float32), 1.0, 1, bands), bands)
    return make(taps, factors, compat, channels, bands)


def _taps(sigma: float, most: int) -> np.ndarray:
    """The Gaussian from its middle on, float32 (T,), up to `most` pixels; zeros follow, as taps are taken three at a time."""
    reach = min(ceil(REACH * sigma), most)
    steps = np.arange(1 + 3 * ceil(reach / 3))
    return np.where(steps <= reach, np.exp(-((steps / sigma) ** 2) / 2), 0).astype(np.float32)


class _AtFullSize:
    """Rows are blurred as they are taken, columns as pixels are told; `factors` float32 (N,) are the normalisation."""

    def __init__(self, taps: np.ndarray, factors: np.ndarray, compat: float, channels: int, bands: ImageBands) -> None:
        self.taps, self.factors, self.compat, self.width = taps, factors, np.float32(compat), bands.width
        shape = (bands.height, bands.width * channels)
        self.taken, self.told = np.empty(shape, np.float32), np.empty(shape, np.float32)

    def take(self, piece: int, first: int, stop: int, q: np.ndarray) -> None:
        """Take up the numbers (n, C) of the pixels of a piece from `first` up to `stop`."""
        rows = slice(first // self.width, stop // self.width)
        scaled = q * self.factors[first:stop, None]
        _along_rows(scaled.reshape(-1, self.taken.shape[1]), self.taps, q.shape[1], self.taken[rows])

    def exchange(self) -> None:
        """Turn what all pixels gave into what they will be told."""
        self.taken, self.told = self.told, self.taken

    def tell(self, piece: int, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels of a piece from `first` up to `stop` are told."""
        blurred = np.empty((len(out) // self.width, self.told.shape[1]), np.float32)
        _along_columns(self.told, self.taps, first // self.width, blurred)
        _scale_and_add(blurred.reshape(out.shape), self.compat * self.factors[first:stop], before, out)


class _AtHalfSize:
    """Rows are halved as they are taken, and doubled as pixels are told; in between, the small image is blurred.

    Pixel i of the small image lies between 2i - 2 and 2i - 1 of the large one: the first and the last see one pixel each.
    """

    def __init__(self, taps: np.ndarray, factors: np.ndarray, compat: float, channels: int, bands: ImageBands) -> None:
        self.taps, self.factors, self.compat, self.bands, self.channels = taps, factors, np.float32(compat), bands, channels
        height, width = (side // 2 + 2 + side % 2 for side in (bands.height, bands.width))  # one more on each side
        width *= channels
        self.halves = np.empty((bands.height, width), np.float32)
        self.small, self.blurred = np.empty((height, width), np.float32), np.empty((height, width), np.float32)

    def take(self, piece: int, first: int, stop: int, q: np.ndarray) -> None:
        """Take up the numbers (n, C) of the pixels of a piece from `first` up to `stop`."""
        width = self.bands.width
        _halve_rows(q, self.factors[first:stop], width, self.halves[first // width : stop // width])

    def exchange(self) -> None:
        """Turn what all pixels gave into what they will be told."""

        def rows(first: int, stop: int) -> None:
            halved = np.empty((stop - first, self.small.shape[1]), np.float32)
            _halve_columns(self.halves, first, halved)
            _along_rows(halved, self.taps, self.channels, self.small[first:stop])

        self.bands.share(rows, len(self.small))
        self.bands.share(
            lambda first, stop: _along_columns(self.small, self.taps, first, self.blurred[first:stop]), len(self.small)
        )

    def tell(self, piece: int, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels of a piece from `first` up to `stop` are told."""
        factors = self.compat * self.factors[first:stop]
        _double(self.blurred, factors, self.bands.width, first // self.bands.width, before, out)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _halve_rows(values, factors, width, out):
    """Write rows of `out` (h, w * C): values (n, C) times factors (n,), at half the `width`."""
    C = values.shape[1]
    places, weights = np.empty(4, np.int64), np.empty(4, np.float32)
    for y in range(len(out)):
        for x in range(out.shape[1] // C):
            for i in range(4):
                column = 2 * x - 3 + i
                places[i] = y * width + min(max(column, 0), width - 1)
                weights[i] = (NEAR if i == 1 or i == 2 else FAR) * factors[places[i]] if 0 <= column < width else 0
            a, b, c, d = places[0], places[1], places[2], places[3]
            p, q, r, s = weights[0], weights[1], weights[2], weights[3]
            for k in range(C):
                out[y, x * C + k] = p * values[a, k] + q * values[b, k] + r * values[c, k] + s * values[d, k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _halve_columns(rows, first, out):
    """Write rows from `first` on of an image of half the height to `out` (h, w * C), from rows (H, w * C)."""
    out[:] = 0
    for y in range(len(out)):
        for i in range(4):
            row = 2 * (first + y) - 3 + i
            if 0 <= row < len(rows):
                weight = NEAR if i == 1 or i == 2 else FAR
                for k in range(out.shape[1]):
                    out[y, k] += weight * rows[row, k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _double(small, factors, width, first, before, out):
    """Write to `out` (n, C), rows from `first` on, what was before, and small (h, w * C) doubled, times factors (n,)."""
    C = out.shape[1]
    line = np.empty(small.shape[1], np.float32)
    for y in range(len(out) // width):
        near, is_second = (first + y) // 2 + 1, (first + y) % 2
        far = near + 1 if is_second else near - 1
        for i in range(len(line)):
            line[i] = NEAR * small[near, i] + FAR * small[far, i]
        for x in range(width):
            n, at = y * width + x, (x // 2 + 1) * C
            beside = at + C if x % 2 else at - C
            one, other = NEAR * factors[n], FAR * factors[n]
            for k in range(C):
                out[n, k] = before[n, k] + one * line[at + k] + other * line[beside + k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _scale_and_add(values, factors, before, out):
    """Write to `out` (n, C) what was before (n, C), and values (n, C) times factors (n,)."""
    for n in range(len(out)):
        for k in range(out.shape[1]):
            out[n, k] = before[n, k] + factors[n] * values[n, k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _along_rows(rows, taps, C, out):
    """Write to `out` (h, w * C) the rows (h, w * C), blurred along themselves."""
    length, margin = out.shape[1], (len(taps) - 1) * C
    line = np.zeros(margin + length + margin, np.float32)
    for y in range(len(rows)):
        line[margin : margin + length] = rows[y]
        for left in range(margin, margin + length, TILE):
            right = min(left + TILE, margin + length)
            sums = out[y, left - margin : right - margin]
            for i in range(right - left):
                sums[i] = taps[0] * line[left + i]
            for t in range(1, len(taps), 3):
                one, two, three = t * C, (t + 1) * C, (t + 2) * C
                _add_six(
                    *(sums, taps[t : t + 3], line[left - one : right - one], line[left + one : right + one]),
                    *(line[left - two : right - two], line[left + two : right + two]),
                    *(line[left - three : right - three], line[left + three : right + three]),
                )


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_six(sums, taps, left, right, left_2, right_2, left_3, right_3):
    """Add three pairs of lines to sums (n,), each pair times its tap: at once, as reading and writing the sums costs most."""
    a, b, c = taps[0], taps[1], taps[2]
    for i in range(len(sums)):
        sums[i] += a * (left[i] + right[i]) + b * (left_2[i] + right_2[i]) + c * (left_3[i] + right_3[i])


@njit(cache=True, nogil=True, fastmath={"contract"})
def _along_columns(rows, taps, first, out):
    """Write to `out` (h, W * C) rows (H, W * C) from `first` on, blurred down the columns."""
    lines, length, reach = len(out), out.shape[1], len(taps) - 1
    weights = np.zeros(2 * reach + 10, np.float32)  # by distance, from -reach - 3 on: the last block of four reaches beyond
    for t in range(-reach, reach + 1):
        weights[t + reach + 3] = taps[abs(t)]
    sums, nothing = np.empty((4, TILE), np.float32), np.zeros(TILE, np.float32)
    for left in range(0, length, TILE):
        right = min(left + TILE, length)
        for line in range(0, lines, 4):
            sums[:] = 0
            start = first + line - reach  # the first row that the first of four lines sees
            for y in range(start, start + 2 * reach + 4, 4):
                a, b = _row(rows, y, left, right, nothing), _row(rows, y + 1, left, right, nothing)
                c, d = _row(rows, y + 2, left, right, nothing), _row(rows, y + 3, left, right, nothing)
                _add_four_to_four(sums, weights[y - start : y - start + 7], a, b, c, d)
            for place in range(line, min(line + 4, lines)):
                out[place, left:right] = sums[place - line, : right - left]


@njit(cache=True, nogil=True)
def _row(rows, y, left, right, nothing):
    """A part of row y, zeros beyond the image."""
    return rows[y, left:right] if 0 <= y < len(rows) else nothing[: right - left]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_four_to_four(sums, weights, a, b, c, d):
    """Add four rows (n,) to four sums (4, n), with a weight (7,) for each distance, so that what is read serves four times."""
    t, u, v, w = sums[0], sums[1], sums[2], sums[3]
    f, g, h, i, j, k, m = weights[0], weights[1], weights[2], weights[3], weights[4], weights[5], weights[6]
    for x in range(len(a)):
        p, q, r, s = a[x], b[x], c[x], d[x]
        t[x] += i * p + j * q + k * r + m * s
        u[x] += h * p + i * q + j * r + k * s
        v[x] += g * p + h * q + i * r + j * s
        w[x] += f * p + g * q + h * r + i * s
