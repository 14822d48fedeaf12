"""A class, then an image that holds it, then a crop on it. Axes: K classes, n spatial axes.

Source: class-aware sampling of Shen et al. 2016, "Relay backpropagation", arXiv 1512.05830, with crops besides.
"""

from dataclasses import dataclass

import numpy as np

from segwright.core.errors import UsageError
from segwright.data.samplers import Choice, shuffled
from segwright.data.store import Store
from segwright.data.stored_sample import StoredSample


@dataclass(frozen=True, kw_only=True)
class ClassBalancedImages:
    """Each class comes once a round, in a random order, and each time the next of the images that hold it.

    The background counts as a class, if the data have one. All crops are centred on the class that their image came for.
    """

    def choose(self, store: Store, position: int, seed: int) -> Choice:
        """The image at a position of the endless row of crops, and the class that it came for.

        Raises:
            UsageError: no image holds a class.
        """
        present = np.flatnonzero(store.index.frequency)
        if not len(present):
            raise UsageError(
                f"no mask of {store.dataset.source} holds a class; add some, or change the sampler: --set sampler.kind=uniform"
            )
        round_, place = divmod(position, len(present))
        k = int(np.random.default_rng([seed, 3, round_]).permutation(present)[place])
        keys = [store.dataset.keys[row] for row in store.index.images[k]]
        return Choice(shuffled(keys, round_, seed), k)

    def pixel(self, item: StoredSample, class_id: int | None, generator: np.random.Generator) -> np.ndarray | None:
        """A random pixel (n,) of the class; None for any place where resampling left none of it."""
        return None if class_id is None or item.head.truth is None else item.pixel(class_id, generator)
