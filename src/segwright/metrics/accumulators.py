"""Numbers that add up over images: the state of most metrics. Axes: R sums at once, N images, F numbers of one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Sums:
    """Finite numbers of one image or of the sum of many, float64 (*F); of R sums at once (R, *F).

    float64 adds pixel counts exactly up to 2**53 of them.
    """

    values: np.ndarray

    def __add__(self, other: Self) -> Self:
        return type(self)(self.values + other.values)

    @classmethod
    def weighted(cls, states: Sequence[Self], weights: np.ndarray) -> Self:
        """R sums of the states of N images, image n counted weights[r, n] times; weights are (R, N)."""
        table = np.stack([state.values for state in states])  # (N, *F)
        return cls((weights.astype(np.float64) @ table.reshape(len(table), -1)).reshape(len(weights), *table.shape[1:]))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, float64 of their common shape, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    is_known = ~np.isnan(values)
    return ratio(np.where(is_known, values, 0.0).sum(axis=-1), is_known.sum(axis=-1))
