"""Mirror images as test-time augmentation. Axes: B images, C channels, K classes, *S spatial axes of an image, *s of logits."""

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np

Ask = Callable[[np.ndarray], np.ndarray]  # images float32 (B, C, *S) to logits (B, K, *s)


def mirrored(ask: Ask, axes: tuple[int, ...], at_once: int = 1, *, turned: Mapping[int, int] | None = None) -> Ask:
    """An `ask` that averages the logits over the images and their mirrors along all subsets of `axes`, counted from the end.

    `turned` names, for an axis, the map that is a way along it, whose sign a mirror turns round.

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
                mirror = np.flip(part, subset)
                total += mirror * _signs(mirror, [turned[axis] for axis in subset if axis in turned]) if turned else mirror
        total /= len(subsets)
        return total

    return ask_all


def _signs(maps: np.ndarray, negative: list[int]) -> np.ndarray:
    """What each of maps (B, C, *s) is multiplied by, float32 (C, 1, ...): -1 for those that are named, else 1."""
    signs = np.ones((maps.shape[1], *[1] * (maps.ndim - 2)), np.float32)
    signs[negative] = -1
    return signs
