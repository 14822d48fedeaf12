"""Each image once a round, and crops anywhere in it."""

from dataclasses import dataclass

import numpy as np

from segwright.data.samplers import Choice, shuffled
from segwright.data.store import Store
from segwright.data.stored_sample import StoredSample


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every image is as likely as any other, and so is every place in it."""

    def choose(self, store: Store, position: int, seed: int) -> Choice:
        """The image at a position of the endless row of crops."""
        return Choice(shuffled(store.dataset.keys, position, seed))

    def pixel(self, item: StoredSample, class_id: int | None, generator: np.random.Generator) -> None:
        """None. One number is drawn as other samplers do, so that with one seed they see the same crops where both may."""
        generator.random()
