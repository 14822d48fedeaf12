"""One file per way to choose crops: which image comes at a position of the run, and on which of its pixels a crop lies.

What is drawn depends on the seed and on the position alone, so that a run can resume at any step and processes can share it.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from segwright.data.store import StoredSample


@runtime_checkable
class Sampler(Protocol):
    """What every file of this folder offers."""

    def key(self, keys: Sequence[str], position: int, seed: int) -> str:
        """The image at a position of the endless row of crops."""

    def pixel(self, item: StoredSample, generator: np.random.Generator) -> np.ndarray | None:
        """The pixel (n,) that a crop is centred on, None for any place."""


def shuffled(keys: Sequence[str], position: int, seed: int) -> str:
    """The key at a position where each round over all keys has an order of its own."""
    round_, place = divmod(position, len(keys))
    return keys[np.random.default_rng([seed, 0, round_]).permutation(len(keys))[place]]
