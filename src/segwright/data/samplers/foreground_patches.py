"""Each image once a round, and a share of the crops on a pixel of a foreground class drawn evenly from those present."""

from dataclasses import dataclass

import numpy as np

from segwright.data.samplers import Choice, check_crop_share, foreground_pixel, shuffled
from segwright.data.store import Store
from segwright.data.stored_sample import StoredSample


@dataclass(frozen=True, kw_only=True)
class ForegroundPatches:
    """With probability `share` a crop is centred on a class that is not the background; all other crops lie anywhere.

    Data without a background have foreground alone. As in nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z), which
    takes a fixed number of each batch instead.
    """

    share: float = 1 / 3  # as in nnU-Net

    def __post_init__(self) -> None:
        check_crop_share(self.share)

    def choose(self, store: Store, position: int, seed: int) -> Choice:
        """The image at a position of the endless row of crops."""
        return Choice(shuffled(store.dataset.keys, position, seed))

    def pixel(self, item: StoredSample, class_id: int | None, generator: np.random.Generator) -> np.ndarray | None:
        """A random pixel (n,) of a random foreground class; None for any place, and where there is no foreground."""
        return foreground_pixel(item, generator) if generator.random() < self.share else None
