"""Class probabilities drawn to the edges of their image: a fully connected CRF, solved by mean field.

Kraehenbuehl and Koltun 2011, "Efficient inference in fully connected CRFs with Gaussian edge potentials", arXiv 1210.5644, in
the form of pydensecrf: every pixel is tied to every other, by a Gaussian of the distance between them (which removes specks)
and by one of distance and colour (which draws borders to edges). Tied pixels that differ in class cost energy, whatever the two
classes are (Potts). Kernels are normalised symmetrically, and a pixel is tied to itself, as there.

Images of up to 64 x 64 pixels are computed exactly, pair by pair. In larger ones the first Gaussian ends at three standard
deviations, and the second is approximated by a permutohedral lattice, as in pydensecrf, which takes one for both.

A pixel without a colour, or without probabilities (NaN), takes no part: the others come out as if it were not there.

Axes: K classes, C of them with padding, (H, W) of the image, N = H * W pixels, V corners of the lattice, T taps of a kernel.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Protocol

import numba
import numpy as np
from numba import njit

from segwright.core.errors import SettingError, ShapeError
from segwright.inference.permutohedral import Lattice, add_slice, blur, splat

EXACT_PIXELS = 64 * 64  # up to here all pairs are looked at: 64 MB of them, and a tenth of a second
REACH = 3  # standard deviations of the Gaussian of distance in larger images: 0.3 % of it lies beyond
LOWEST = 1e-5  # of a probability, as in pydensecrf: a network that is certain is not infinitely so
LANES = 8  # float32 numbers that a processor handles at once: classes are padded to a multiple
PIECES = 4  # of the pixels, spread onto lattices of their own by as many threads; few, as each may be as large as the image
BAND = 2**14  # pixels in a piece of work: a millisecond, ten times what handing it to a thread costs
BLOCK = 2**8  # pixels of which logits become probabilities step by step: they stay in the nearest cache
TILE = 2**10  # numbers of a row that are blurred at a time: with the rows around them they stay in the cache


@dataclass(frozen=True, kw_only=True)
class DenseCRF:
    """Refines class probabilities by the colours of their image, in so many `iterations`.

    `gaussian_*` is the kernel of distance alone and `bilateral_*` that of distance and colour: `sxy` are standard deviations in
    pixels, `srgb` that of colours in steps of 0 to 255, `compat` what two tied pixels of different classes cost (0 leaves the
    kernel out). The defaults are those of pydensecrf's example and of the paper's ten iterations; DeepLab took
    `bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4, gaussian_sxy=1`.
    """

    iterations: int = 10
    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_compat: float = 10.0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise SettingError(f"iterations is {self.iterations}; give 1 or more, such as 10")
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            if not (isfinite(value := getattr(self, name)) and value > 0):
                raise SettingError(f"{name} is {value}; give a standard deviation above 0, such as {getattr(DenseCRF, name):g}")
        for name in ("gaussian_compat", "bilateral_compat"):
            if not (isfinite(value := getattr(self, name)) and value >= 0):
                raise SettingError(
                    f"{name} is {value}; give 0 to leave the kernel out, or more, such as {getattr(DenseCRF, name):g}"
                )

    def __call__(self, image: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """Probabilities float32 (K, H, W) from `probs` (K, H, W) and an image (3, H, W), RGB in 0 to 255, or (1, H, W), grey.

        Grey stands for the colour with three equal parts. A pixel that is NaN in either keeps its probabilities, equal ones if
        it has none.

        Raises:
            ShapeError: the two do not lie over each other, or the image is neither RGB nor grey.
        """
        _check(image, probs)
        K, H, W = probs.shape
        has_probs = np.isfinite(probs).all(axis=0)
        known = (has_probs & np.isfinite(image).all(axis=0)).reshape(-1)
        logits = np.full((H * W, -(-K // LANES) * LANES), -1e30, np.float32)  # of a padded class, whose probability is 0
        flat = (probs if has_probs.all() else np.where(has_probs, probs, 1.0)).reshape(K, -1)
        with ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS) as pool:  # type: ignore[attr-defined]
            work = _Work(pool, W)
            work.bands(lambda first, stop: _write_logs(flat, first, stop, logits), H)
            kernels = self._kernels(image, known, work)
            q = np.empty_like(logits)

            def start(first: int, stop: int) -> None:
                q[first:stop] = logits[first:stop]
                softmax_in_place(q[first:stop])

            def update(first: int, stop: int) -> None:
                before, out = logits[first:stop], q[first:stop]
                for kernel in kernels:
                    kernel.tell(first, stop, before, out)
                    before = out
                softmax_in_place(out)

            work.bands(start, H)
            for _ in range(self.iterations if kernels else 0):
                for kernel in kernels:
                    kernel.spread(q)
                work.bands(update, H)
            refined = np.empty((K, H * W), np.float32)
            work.bands(lambda first, stop: _write_rows(q, first, stop, refined), H)
        return refined.reshape(K, H, W)

    def _kernels(self, image: np.ndarray, known: np.ndarray, work: "_Work") -> "list[_Kernel]":
        """What passes messages between the pixels (N,) that are `known`."""
        _, H, W = image.shape
        places = np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1).reshape(-1, 2)
        colours = np.broadcast_to(image.reshape(len(image), -1).T, (H * W, 3))
        features = np.concatenate([places / self.bilateral_sxy, colours / self.bilateral_srgb], axis=1, dtype=np.float32)
        if H * W <= EXACT_PIXELS:
            distance = _pairs(places / self.gaussian_sxy, known)
            return [_Pairs(self.gaussian_compat * distance + self.bilateral_compat * _pairs(features, known))]
        kernels: list[_Kernel] = []
        if self.gaussian_compat:
            kernels.append(_Distance.of(known, self.gaussian_sxy, self.gaussian_compat, work))
        if self.bilateral_compat:
            kernels.append(_DistanceAndColour.of(features, known, self.bilateral_compat, work))
        return kernels


def _check(image: np.ndarray, probs: np.ndarray) -> None:
    """See that an image and probabilities lie over each other.

    Raises:
        ShapeError: they do not.
    """
    if probs.ndim != 3 or 0 in probs.shape or image.shape[1:] != probs.shape[1:] or len(image) not in (1, 3):
        raise ShapeError(
            f"the image is {image.shape} and the probabilities are {probs.shape}; a dense CRF needs (3, H, W), RGB, or "
            "(1, H, W), grey, and (K, H, W) of the same height and width: pick three channels, such as image[:3]"
        )


@dataclass(frozen=True, eq=False)
class _Work:
    """Threads that share an image `width` pixels wide. Kernels hold no lock; numba's own threads may not be nested."""

    pool: ThreadPoolExecutor
    width: int

    def bands(self, run: Callable[[int, int], None], height: int) -> None:
        """Call `run` with the first pixel of each band of whole rows, and that behind its last."""
        step = max(1, BAND // self.width)
        self.each(lambda first, stop: run(first * self.width, stop * self.width), height, step)

    def each(self, run: Callable[[int, int], None], count: int, step: int) -> None:
        """Call `run` with the first of each `step` of so many things, and that behind the last."""
        firsts = range(0, count, step)
        list(self.pool.map(lambda first: run(first, min(first + step, count)), firsts))


class _Kernel(Protocol):
    """What ties pixels to each other."""

    def spread(self, q: np.ndarray) -> None:
        """Take up the probabilities (N, C) of an iteration."""

    def tell(self, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels from `first` up to `stop` are told."""


@dataclass(frozen=True, eq=False)
class _Distance:
    """The Gaussian of distance: one pass along the rows, one along the columns, with the same `taps` (T,) to either side."""

    taps: np.ndarray
    factors: np.ndarray  # float32 (N,): the normalisation of each pixel, 0 where it takes no part
    compat: float
    work: _Work
    rows: list[np.ndarray]  # what the pass along the rows left, float32 (H, W * C)

    @classmethod
    def of(cls, known: np.ndarray, sigma: float, compat: float, work: _Work) -> "_Distance":
        """That of standard deviation `sigma` between pixels that are `known`."""
        reach = min(ceil(REACH * sigma), max(work.width, len(known) // work.width))
        steps = np.arange(1 + 3 * ceil(reach / 3))  # three at a time
        taps = np.where(steps <= reach, np.exp(-((steps / sigma) ** 2) / 2), 0).astype(np.float32)
        plain = cls(taps, known.astype(np.float32), 1.0, work, [])
        return cls(taps, _normalisation(plain, known), compat, work, [])

    def spread(self, q: np.ndarray) -> None:
        """Take up the probabilities (N, C) of an iteration."""
        height, width = len(q) // self.work.width, self.work.width
        rows = np.empty((height, width * q.shape[1]), np.float32) if not self.rows else self.rows.pop()

        def run(first: int, stop: int) -> None:
            _along_rows(q, self.factors, self.taps, first // width, stop // width, rows)

        self.work.bands(run, height)
        self.rows.append(rows)

    def tell(self, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels from `first` up to `stop` are told."""
        width = self.work.width
        factors = (np.float32(self.compat) * self.factors[first:stop]).reshape(-1, width)
        lines = (len(factors), width, out.shape[1])
        _along_columns(self.rows[0], factors, self.taps, first // width, before.reshape(lines), out.reshape(lines))


class _Pairs:
    """A kernel between all pairs of pixels, float32 (N, N), normalised."""

    def __init__(self, kernel: np.ndarray) -> None:
        self.kernel = kernel

    def spread(self, q: np.ndarray) -> None:
        """Take up the probabilities (N, C) of an iteration."""
        self.told = self.kernel @ q

    def tell(self, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels from `first` up to `stop` are told."""
        np.add(before, self.told[first:stop], out=out)


def _pairs(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The normalised Gaussian float32 (N, N) of features (N, F), in standard deviations, between pixels that are `known`."""
    features = np.where(known[:, None], features, 0).astype(np.float64)
    halves = (features**2).sum(axis=1) / 2
    kernel = np.exp(np.minimum(features @ features.T - halves[:, None] - halves, 0)).astype(np.float32)
    kernel *= known[:, None] & known
    factors = (1 / np.sqrt(np.maximum(kernel.sum(axis=1, dtype=np.float64), 1))).astype(np.float32)  # it is tied to itself by 1
    kernel *= factors[:, None]
    kernel *= factors
    return kernel


@dataclass(frozen=True, eq=False)
class _DistanceAndColour:
    """The Gaussian of distance and colour by a permutohedral lattice, whose weights hold the normalisation."""

    lattice: Lattice
    weights: np.ndarray  # float32 (N, 6)
    compat: float
    work: _Work
    values: list[np.ndarray]  # at the corners, float32 (V + 1, C)

    @classmethod
    def of(cls, features: np.ndarray, known: np.ndarray, compat: float, work: _Work) -> "_DistanceAndColour":
        """That of features (N, 5), in standard deviations, of pixels that are `known`."""
        lattice = Lattice.of(features, known)
        plain = cls(lattice, lattice.weights, 1.0, work, [])
        factors = _normalisation(plain, known)
        return cls(lattice, lattice.weights * factors[:, None], compat, work, [])

    def spread(self, q: np.ndarray) -> None:
        """Take up the probabilities (N, C) of an iteration."""
        lattice, size = self.lattice, self.lattice.size
        pieces = PIECES if PIECES * size <= len(q) else 1  # where every pixel has corners of its own, memory goes first
        if not self.values:
            self.values[:] = np.empty((pieces + 1, size + 1, q.shape[1]), np.float32)
        *parts, then = self.values
        cuts = [len(q) * piece // pieces for piece in range(pieces + 1)]

        def spread_piece(piece: int, _: int) -> None:
            span = slice(cuts[piece], cuts[piece + 1])
            parts[piece][:] = 0
            splat(q[span], lattice.corners[span], self.weights[span], parts[piece])

        self.work.each(spread_piece, pieces, 1)
        now = parts[0]
        for part in parts[1:]:
            now += part
        then[size] = 0
        for neighbours in lattice.neighbours:
            self.work.each(
                lambda first, stop, a=now, b=then, n=neighbours: blur(a, n[first:stop], first, b),  # type: ignore[misc]
                size,
                BAND,
            )
            now, then = then, now

    def tell(self, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels from `first` up to `stop` are told."""
        span = slice(first, stop)
        if before is not out:
            out[:] = before
        add_slice(self.values[0], self.lattice.corners[span], self.weights[span], np.float32(self.compat), out)


def _normalisation(plain: "_Distance | _DistanceAndColour", known: np.ndarray) -> np.ndarray:
    """What a kernel is multiplied by on both sides: one over the root of the sum over its row, float32 (N,), 0 if not known."""
    sums = np.zeros((len(known), 1), np.float32)
    plain.spread(known.astype(np.float32)[:, None])
    plain.tell(0, len(known), sums, sums)
    return np.where(known & (sums[:, 0] > 0), 1 / np.sqrt(np.maximum(sums[:, 0], 1e-20)), 0).astype(np.float32)


@njit(cache=True, nogil=True)
def _write_logs(probs, first, stop, out):
    """Write the logarithms of probabilities (K, N) of some pixels to `out` (N, C)."""
    for k in range(len(probs)):
        for n in range(first, stop):
            out[n, k] = np.log(max(np.float32(probs[k, n]), np.float32(LOWEST)))


@njit(cache=True, nogil=True)
def _write_rows(values, first, stop, out):
    """Write some of the pixels of values (N, C) to `out` (K, N)."""
    for n in range(first, stop):
        for k in range(len(out)):
            out[k, n] = values[n, k]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _along_rows(q, factors, taps, first, stop, out):
    """Write rows of `out` (H, W * C): the values (N, C) times their factors (N,), blurred along the rows."""
    C = q.shape[1]
    length, margin = out.shape[1], (len(taps) - 1) * C
    width = length // C
    line = np.zeros(margin + length + margin, np.float32)
    for y in range(first, stop):
        for x in range(width):
            place, factor, values = line[margin + x * C : margin + (x + 1) * C], factors[y * width + x], q[y * width + x]
            for c in range(C):
                place[c] = factor * values[c]
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
def _along_columns(rows, factors, taps, first, before, out):
    """Write to lines (h, W, C) from `first` on what was before, and rows (H, W * C) blurred down, times factors (h, W)."""
    lines, width, C = out.shape
    reach = len(taps) - 1
    weights = np.zeros(2 * reach + 10, np.float32)  # by distance, from -reach - 3 on: the last block of four reaches beyond
    for t in range(-reach, reach + 1):
        weights[t + reach + 3] = taps[abs(t)]
    tile = max(1, TILE // C)
    sums, nothing = np.empty((4, tile * C), np.float32), np.zeros(tile * C, np.float32)
    for left in range(0, width, tile):
        right = min(left + tile, width)
        span = (left * C, right * C)
        for line in range(0, lines, 4):
            sums[:] = 0
            start = first + line - reach  # the first row that the first of four lines sees
            for y in range(start, start + 2 * reach + 4, 4):
                a, b = _row(rows, y, span, nothing), _row(rows, y + 1, span, nothing)
                c, d = _row(rows, y + 2, span, nothing), _row(rows, y + 3, span, nothing)
                _add_four_to_four(sums, weights[y - start : y - start + 7], a, b, c, d)
            for place in range(line, min(line + 4, lines)):
                for x in range(left, right):
                    told, values = out[place, x], sums[place - line, (x - left) * C : (x - left + 1) * C]
                    was, factor = before[place, x], factors[place, x]
                    for c in range(C):
                        told[c] = was[c] + factor * values[c]


@njit(cache=True, nogil=True)
def _row(rows, y, span, nothing):
    """A part of row y, zeros beyond the image."""
    return rows[y, span[0] : span[1]] if 0 <= y < len(rows) else nothing[: span[1] - span[0]]


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


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nnan", "nsz"})
def softmax_in_place(values):
    """Turn logits (n, C) into probabilities in place."""
    for first in range(0, len(values), BLOCK):
        pixels = values[first : first + BLOCK]
        flat = pixels.reshape(-1)
        for n in range(len(pixels)):
            pixel, top = pixels[n], np.float32(-1e30)
            for c in range(len(pixel)):
                top = max(top, pixel[c])
            for c in range(len(pixel)):
                pixel[c] -= top
        for i in range(len(flat)):
            flat[i] = _exp(flat[i])
        for n in range(len(pixels)):
            pixel, total = pixels[n], np.float32(0)
            for c in range(len(pixel)):
                total += pixel[c]
            factor = np.float32(1) / total
            for c in range(len(pixel)):
                pixel[c] *= factor


@njit(cache=True, nogil=True, fastmath={"contract"})
def _exp(x):
    """e to the power of x, float32 of 0 or less, to its last bits or so; the compiler lets several run at once."""
    x = max(
        x, np.float32(-46.0)
    )  # 1e-20, which is nothing to a sum; numbers near the end of float32 take a hundred times as long
    power = np.floor(x * np.float32(1.44269504) + np.float32(0.5))  # of two
    r = (x - power * np.float32(0.693359375)) + power * np.float32(2.12194440e-4)  # in two parts, so that no bit is lost
    p = np.float32(1 / 720)  # the series of the exponential function, which |r| < 0.35 ends after seven terms
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(1 / 2)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    return p * np.int32((np.int32(power) + np.int32(127)) << np.int32(23)).view(np.float32)
