"""Images with rare classes several times a round. Axes: N images, K classes, n spatial axes.

Source: Gupta et al. 2019, "LVIS: a dataset for large vocabulary instance segmentation", arXiv 1908.03195.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from segwright.core.errors import SettingError
from segwright.data.samplers import Choice, check_crop_share, foreground_pixel
from segwright.data.store import ClassIndex, Store
from segwright.data.stored_sample import StoredSample


@dataclass(frozen=True, kw_only=True)
class RepeatFactor:
    """An image comes max(1, sqrt(t / f)) times a round, f the share of the images that hold the rarest of its classes.

    t is the `threshold`: classes in more than that share of the images are common. Fractions are drawn anew for each round, so
    that they hold on average; where no class is rare, the images are those of `uniform`. With probability `share` a crop is
    centred on a foreground class of its image, as by `foreground_patches`; the authors took whole images.
    """

    threshold: float = 0.001  # the authors', for 1203 classes in 100 000 images
    share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise SettingError(f"threshold is {self.threshold}; it is a share of the images, give a number above 0 and up to 1")
        check_crop_share(self.share)

    def choose(self, store: Store, position: int, seed: int) -> Choice:
        """The image at a position of the endless row of crops."""
        ends = _ends(store.index, self.threshold)
        round_, place = divmod(position, int(ends[-1]))
        start = np.random.default_rng([seed, 2, round_]).random()  # of a ruler over all images: each gets its share, up or down
        repeats: np.ndarray = np.diff(np.floor(np.concatenate([[0.0], ends]) + start).astype(np.int64))
        order = np.random.default_rng([seed, 0, round_]).permutation(int(ends[-1]))
        return Choice(store.dataset.keys[int(np.repeat(np.arange(len(ends)), repeats)[order[place]])])

    def pixel(self, item: StoredSample, class_id: int | None, generator: np.random.Generator) -> np.ndarray | None:
        """A random pixel (n,) of a random foreground class; None for any place, and where there is no foreground."""
        return foreground_pixel(item, generator) if generator.random() < self.share else None


def repeat_factors(index: ClassIndex, threshold: float) -> np.ndarray:
    """How often each image comes, float64 (N,), 1 or more."""
    frequency = np.maximum(index.frequency, 1 / max(len(index.holds), 1))  # a class that no image holds repeats none
    factor = np.maximum(1.0, np.sqrt(threshold / frequency))  # (K,)
    return np.where(index.holds, factor, 1.0).max(axis=1, initial=1.0)


@lru_cache(maxsize=4)  # the same for each crop of a run; a few, as training and planning may take turns
def _ends(index: ClassIndex, threshold: float) -> np.ndarray:
    """Where each image ends on a ruler of one round, float64 (N,): rising, the last a whole number.

    Shares are stretched a little to the next whole number of crops, so that rounds are of one length and a position tells its
    round.
    """
    factors = repeat_factors(index, threshold)
    total = np.ceil(factors.sum())
    ends = np.cumsum(factors) * (total / factors.sum())
    ends[-1] = total  # but for rounding
    return ends
