"""Mirror images as test-time augmentation. Axes: B images, C channels, K classes, *S spatial axes of an image, *s of logits."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

Ask = Callable[[np.ndarray], np.ndarray]  # images float32 (B, C, *S) to logits (B, K, *s)


def mirrored(ask: Ask, axes: tuple[int, ...], at_once: int = 1) -> Ask:
    """An `ask` that averages the logits over the images and their mirrors along all subsets of `axes`, counted from the end.

    Mirrors share a batch as far as it then holds at most `at_once` images. Logits are averaged and not probabilities, which
    amounts to the geometric instead of the arithmetic mean of the probabilities: tiles are blended and labels interpolated in
    logits too, so the order of the three does not matter, and no exponentials are taken.
    """
    subsets = [subset for count in range(len(axes) + 1) for subset in combinations(axes, count)]
    if len(subsets) == 1:
        return ask

    def ask_all(images: np.ndarray) -> np.ndarray:
        total = ask(images).copy()  # the next call may overwrite it
        step = max(1, at_once // len(images))
        for group in (subsets[n : n + step] for n in range(1, len(subsets), step)):
            logits = ask(np.concatenate([np.flip(images, subset) for subset in group]))
            for subset, part in zip(group, np.split(logits, len(group)), strict=True):
                total += np.flip(part, subset)
        total /= len(subsets)
        return total

    return ask_all
