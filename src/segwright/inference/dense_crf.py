"""Class probabilities drawn to the edges of their image: a fully connected CRF, solved by mean field.

Kraehenbuehl and Koltun 2011, "Efficient inference in fully connected CRFs with Gaussian edge potentials", arXiv 1210.5644, in
the form of pydensecrf: every pixel is tied to every other, by a Gaussian of the distance between them (which removes specks)
and by one of distance and colour (which draws borders to edges). Tied pixels that differ in class cost energy, whatever the two
classes are (Potts). Kernels are normalised symmetrically, and a pixel is tied to itself, as there.

Images of up to 64 x 64 pixels are computed exactly, pair by pair. In larger ones the first Gaussian is nearly so (see
`spatial_gaussian`), and the second is approximated by a permutohedral lattice, as in pydensecrf, which takes one for both.

A pixel without a colour, or without probabilities (NaN), takes no part: the others come out as if it were not there.

An iteration passes once over the image, band by band: what pixels are told, their probabilities, and what they tell others, so
that probabilities stay in the cache and are never written to memory.

Axes: K classes, C of them with padding, (H, W) of the image, N = H * W pixels, n of them in a band.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isfinite

import numba
import numpy as np
from numba import njit

from segwright.core.errors import SettingError, ShapeError
from segwright.inference.image_bands import ImageBands
from segwright.inference.pairwise_kernel import PairwiseKernel, symmetric_factors
from segwright.inference.permutohedral import Lattice, add_slice, blur, gather, splat
from segwright.inference.spatial_gaussian import spatial_gaussian

EXACT_PIXELS = 64 * 64  # up to here all pairs are looked at: 64 MB of them, and a tenth of a second
LOWEST = np.float32(1e-5)  # of a probability, as in pydensecrf: a network that is certain is not infinitely so
LANES = 8  # float32 numbers that a processor handles at once: classes are padded to a multiple
BLOCK = 2**8  # pixels of which logits become probabilities step by step: they stay in the nearest cache


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
        with ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS) as pool:  # type: ignore[attr-defined]
            bands = ImageBands.of(pool, H, W)
            logits, known = _logits(probs, bands)
            known &= np.isfinite(image).all(axis=0).reshape(-1)
            kernels = self._kernels(image, known, logits.shape[1], bands)
            scratch = [np.empty((bands.longest, logits.shape[1]), np.float32) for _ in bands.pieces]
            refined = np.empty((K, H * W), np.float32)

            def pass_over(listening: list[PairwiseKernel], telling: list[PairwiseKernel]) -> None:
                def run(piece: int, first: int, stop: int) -> None:
                    before, q = logits[first:stop], scratch[piece][: stop - first]
                    for kernel in listening:
                        kernel.tell(piece, first, stop, before, q)
                        before = q
                    if not listening:
                        q[:] = before
                    softmax_in_place(q)
                    for kernel in telling:
                        kernel.take(piece, first, stop, q)
                    if not telling:
                        _write_rows(q, first, refined)

                bands.each(run)
                for kernel in telling:
                    kernel.exchange()

            pass_over([], kernels)
            for _ in range(self.iterations - 1 if kernels else 0):
                pass_over(kernels, kernels)
            if kernels:
                pass_over(kernels, [])
        return refined.reshape(K, H, W)

    def _kernels(self, image: np.ndarray, known: np.ndarray, channels: int, bands: ImageBands) -> list[PairwiseKernel]:
        """What passes `channels` numbers of each pixel between the pixels (N,) that are `known`."""
        _, H, W = image.shape
        is_small = H * W <= EXACT_PIXELS
        features = np.empty((5, H, W), np.float64 if is_small else np.float32)
        np.divide(np.arange(W), self.bilateral_sxy, out=features[0])
        np.divide(np.arange(H)[:, None], self.bilateral_sxy, out=features[1])
        np.divide(image, self.bilateral_srgb, out=features[2:], casting="same_kind")
        points = features.reshape(5, -1)
        if is_small:
            distance = _pairs(points[:2] * (self.bilateral_sxy / self.gaussian_sxy), known)
            return [_Pairs(self.gaussian_compat * distance + self.bilateral_compat * _pairs(points, known), channels)]
        kernels: list[PairwiseKernel] = []
        if self.gaussian_compat:
            kernels.append(spatial_gaussian(known, self.gaussian_sxy, self.gaussian_compat, channels, bands))
        if self.bilateral_compat:
            kernels.append(_DistanceAndColour.of(points, known, self.bilateral_compat, channels, bands))
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


class _Pairs:
    """A kernel between all pairs of pixels, float32 (N, N), normalised."""

    def __init__(self, kernel: np.ndarray, channels: int) -> None:
        self.kernel, self.taken = kernel, np.empty((len(kernel), channels), np.float32)

    def take(self, piece: int, first: int, stop: int, q: np.ndarray) -> None:
        """Take up the probabilities (n, C) of the pixels of a piece from `first` up to `stop`."""
        self.taken[first:stop] = q

    def exchange(self) -> None:
        """Turn what all pixels gave into what they will be told."""
        self.told = self.kernel @ self.taken

    def tell(self, piece: int, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels of a piece from `first` up to `stop` are told."""
        np.add(before, self.told[first:stop], out=out)


def _pairs(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The normalised Gaussian float32 (N, N) of features (F, N), in standard deviations, between pixels that are `known`."""
    features = np.where(known, features, 0)
    halves = (features**2).sum(axis=0) / 2
    kernel = np.exp(np.minimum(features.T @ features - halves[:, None] - halves, 0)).astype(np.float32)
    kernel *= known[:, None] & known
    factors = (1 / np.sqrt(np.maximum(kernel.sum(axis=1, dtype=np.float64), 1))).astype(np.float32)  # it is tied to itself by 1
    kernel *= factors[:, None]
    kernel *= factors
    return kernel


class _DistanceAndColour:
    """The Gaussian of distance and colour by a permutohedral lattice, whose weights hold the normalisation."""

    def __init__(self, lattice: Lattice, compat: float, channels: int, bands: ImageBands) -> None:
        self.lattice, self.compat, self.bands = lattice, np.float32(compat), bands
        ends = np.cumsum([0, *(len(numbers) for numbers in lattice.numbers)])
        self.firsts = ends[:-1].tolist()  # row of each piece
        self.taken = np.zeros((ends[-1] + 1, channels), np.float32)  # at the corners of each piece
        self.told = np.zeros((lattice.size + 1, channels), np.float32)  # at all corners

    @classmethod
    def of(
        cls, features: np.ndarray, known: np.ndarray, compat: float, channels: int, bands: ImageBands
    ) -> "_DistanceAndColour":
        """That of features (5, N), in standard deviations, of pixels that are `known`, for so many numbers of each."""
        lattice = Lattice.of(features, known, bands.cuts, bands.pool)
        factors = symmetric_factors(cls(lattice, 1.0, 1, bands), bands)

        def normalise(piece: int, first: int, stop: int) -> None:
            lattice.weights[first:stop] *= factors[first:stop, None]

        bands.each(normalise)
        return cls(lattice, compat, channels, bands)

    def take(self, piece: int, first: int, stop: int, q: np.ndarray) -> None:
        """Take up the probabilities (n, C) of the pixels of a piece from `first` up to `stop`."""
        lattice = self.lattice
        if len(lattice.numbers[piece]):
            splat(q, lattice.corners[first:stop], lattice.weights[first:stop], self.firsts[piece], self.taken)

    def exchange(self) -> None:
        """Turn what all pixels gave into what they will be told."""
        size, rows = self.lattice.size, self.lattice.rows
        now, then = self.told, self.taken
        self.bands.share(lambda first, stop: gather(self.taken, rows, first, stop, self.told), size)
        then[size] = 0
        for neighbours in self.lattice.neighbours:  # an even number of times, so that `told` holds the last
            self.bands.share(lambda first, stop, a=now, b=then, n=neighbours: blur(a, n, first, stop, b), size)  # type: ignore[misc]
            now, then = then, now

        def clear(first: int, stop: int) -> None:
            self.taken[first:stop] = 0

        self.bands.share(clear, len(self.taken))

    def tell(self, piece: int, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels of a piece from `first` up to `stop` are told."""
        lattice = self.lattice
        if before is not out:
            out[:] = before
        if len(numbers := lattice.numbers[piece]):
            add_slice(self.told, lattice.corners[first:stop], numbers, lattice.weights[first:stop], self.compat, out)


def _logits(probs: np.ndarray, bands: ImageBands) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms float32 (N, C) of probabilities (K, H, W), and which pixels have any, bool (N,); equal ones for the others.

    Classes that pad K have a probability of 0.
    """
    flat = probs.reshape(len(probs), -1)
    logits = np.empty((flat.shape[1], -(-len(probs) // LANES) * LANES), np.float32)
    known = np.empty(len(logits), np.bool_)

    def run(piece: int, first: int, stop: int) -> None:
        logs = np.maximum(flat[:, first:stop], LOWEST, dtype=np.float32)
        known[first:stop] = np.isfinite(logs).all(axis=0)
        _write_pixels(np.log(logs, out=logs), known[first:stop], logits[first:stop])

    bands.each(run)
    return logits, known


@njit(cache=True, nogil=True)
def _write_pixels(logs, known, logits):
    """Write logarithms (K, n) to logits (n, C) of known pixels, zeros to the others, and what makes 0 to padded classes."""
    K = len(logs)
    for start in range(0, len(logits), BLOCK):
        stop = min(start + BLOCK, len(logits))
        for k in range(logits.shape[1]):
            for n in range(start, stop):
                logits[n, k] = logs[k, n] if k < K else np.float32(-1e30)
        for n in range(start, stop):
            if not known[n]:
                logits[n, :K] = 0


@njit(cache=True, nogil=True)
def _write_rows(values, first, out):
    """Write values (n, C) of pixels `first`, ... to `out` (K, N)."""
    for start in range(0, len(values), BLOCK):
        for k in range(len(out)):
            for i in range(start, min(start + BLOCK, len(values))):
                out[k, first + i] = values[i, k]


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
