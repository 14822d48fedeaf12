"""Each image once a round, and a share of the crops on a pixel of a class drawn evenly from those present."""

from dataclasses import dataclass

import numpy as np

from segwright.data.samplers import Choice, check_crop_share, shuffled
from segwright.data.store import Store
from segwright.data.stored_sample import StoredSample


@dataclass(frozen=True, kw_only=True)
class ClassBalanced:
    """With probability `share` a crop is centred on a class, so that rare classes are seen as often as common ones.

    The background counts as one of them, if the data have one, which tells this sampler from `foreground_patches`. All other
    crops lie anywhere.
    """

    share: float = 1 / 3  # as in nnU-Net

    def __post_init__(self) -> None:
        check_crop_share(self.share)

    def choose(self, store: Store, position: int, seed: int) -> Choice:
        """The image at a position of the endless row of crops."""
        return Choice(shuffled(store.dataset.keys, position, seed))

    def pixel(self, item: StoredSample, class_id: int | None, generator: np.random.Generator) -> np.ndarray | None:
        """A random pixel (n,) of a random class; None for any place, and where all is void."""
        if generator.random() >= self.share:
            return None
        for k in generator.permutation(np.unique(item.class_ids)):  # one of the list may have left the image
            if (pixel := item.pixel(int(k), generator)) is not None:
                return pixel
        return None
