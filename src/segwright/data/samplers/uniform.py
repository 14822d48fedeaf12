"""Each image once a round, and crops anywhere in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segwright.data.samplers import shuffled
from segwright.data.store import StoredSample


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every image is as likely as any other, and so is every place in it."""

    def key(self, keys: Sequence[str], position: int, seed: int) -> str:
        """The image at a position of the endless row of crops."""
        return shuffled(keys, position, seed)

    def pixel(self, item: StoredSample, generator: np.random.Generator) -> None:
        """None. One number is drawn as other samplers do, so that with one seed they see the same crops where both may."""
        generator.random()
