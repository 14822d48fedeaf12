"""The normalisation of what ties pixels to each other. Axes: N pixels, C numbers of each."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segwright.inference.image_bands import ImageBands
from segwright.inference.pairwise_kernel import symmetric_factors


class Plain:
    """Every pixel is told the sum of all, times what it takes part with."""

    def __init__(self, parts: np.ndarray) -> None:
        self.parts, self.taken = parts, np.zeros((len(parts), 1), np.float32)

    def take(self, piece, first, stop, q):
        self.taken[first:stop] = q * self.parts[first:stop, None]

    def exchange(self):
        self.sum = self.taken.sum()

    def tell(self, piece, first, stop, before, out):
        out[:] = before + self.sum * self.parts[first:stop, None]


def test_by_hand_a_row_of_the_normalised_kernel_sums_to_one_where_all_take_part():
    with ThreadPoolExecutor(2) as pool:
        factors = symmetric_factors(Plain(np.ones(20, np.float32)), ImageBands.of(pool, 5, 4))
    assert factors.dtype == np.float32 and np.allclose(20 * factors**2, 1)


def test_who_is_told_nothing_has_no_part():
    parts = np.ones(20, np.float32)
    parts[7:9] = 0
    with ThreadPoolExecutor(2) as pool:
        factors = symmetric_factors(Plain(parts), ImageBands.of(pool, 5, 4))
    assert (factors[7:9] == 0).all() and np.allclose(18 * np.delete(factors, [7, 8]) ** 2, 1)
