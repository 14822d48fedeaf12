"""What ties the pixels of an image to each other, and how it is normalised. Axes: N pixels, n of a band, C numbers of each."""

from typing import Protocol

import numpy as np

from segwright.inference.image_bands import ImageBands


class PairwiseKernel(Protocol):
    """Passes numbers between pixels: band by band it takes them, exchanges them, and band by band it tells."""

    def take(self, piece: int, first: int, stop: int, q: np.ndarray) -> None:
        """Take up the numbers (n, C) of the pixels of a piece from `first` up to `stop`."""

    def exchange(self) -> None:
        """Turn what all pixels gave into what they will be told."""

    def tell(self, piece: int, first: int, stop: int, before: np.ndarray, out: np.ndarray) -> None:
        """Write to `out` (n, C) what was `before` (n, C), and what the pixels of a piece from `first` up to `stop` are told."""


def symmetric_factors(plain: PairwiseKernel, bands: ImageBands) -> np.ndarray:
    """What a kernel of one number a pixel is multiplied by on both sides: one over the root of the sum of a row, float32 (N,).

    Pixels that it tells nothing have 0.
    """
    ones, factors = np.ones((bands.longest, 1), np.float32), np.empty(bands.height * bands.width, np.float32)
    bands.each(lambda piece, first, stop: plain.take(piece, first, stop, ones[: stop - first]))
    plain.exchange()

    def read(piece: int, first: int, stop: int) -> None:
        sums = np.zeros((stop - first, 1), np.float32)
        plain.tell(piece, first, stop, sums, sums)
        factors[first:stop] = np.where(sums[:, 0] > 0, 1 / np.sqrt(np.maximum(sums[:, 0], 1e-20)), 0)

    bands.each(read)
    return factors
