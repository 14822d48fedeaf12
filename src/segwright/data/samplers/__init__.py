"""One file per way to choose crops: which image comes at a position of the run, and on which of its pixels a crop lies.

What is drawn depends on the data, the seed and the position alone, so that a run can resume at any step and processes can
share it. Axes: n spatial axes.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from segwright.core.errors import SettingError
from segwright.data.store import Store
from segwright.data.stored_sample import StoredSample


class Choice(NamedTuple):
    """The image of a crop, by its key, and the class that it was chosen for, if for one."""

    key: str
    class_id: int | None = None


@runtime_checkable
class Sampler(Protocol):
    """What every file of this folder offers."""

    def choose(self, store: Store, position: int, seed: int) -> Choice:
        """The image at a position of the endless row of crops."""

    def pixel(self, item: StoredSample, class_id: int | None, generator: np.random.Generator) -> np.ndarray | None:
        """The pixel (n,) that a crop is centred on, None for any place; `class_id` is what the image was chosen for."""


def check_crop_share(share: float) -> None:
    """Nothing, where a share of the crops is one.

    Raises:
        SettingError: it is not.
    """
    if not 0 <= share <= 1:
        raise SettingError(f"share is {share}; it is a probability, give a number from 0 to 1")


def shuffled(keys: Sequence[str], position: int, seed: int) -> str:
    """The key at a position where each round over all keys has an order of its own."""
    round_, place = divmod(position, len(keys))
    return keys[np.random.default_rng([seed, 0, round_]).permutation(len(keys))[place]]


def foreground_pixel(item: StoredSample, generator: np.random.Generator) -> np.ndarray | None:
    """A random pixel (n,) of a class drawn evenly from those present but the background; None where there are none."""
    present = item.foreground()
    return item.pixel(int(generator.choice(present)), generator) if len(present) else None
