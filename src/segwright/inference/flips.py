"""Mirror images as test-time augmentation. Axes: C channels, K classes, *S spatial axes of the image, *s of the logits."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]  # image (C, *S) to logits (K, *s)


def mirrored(run: Run, axes: tuple[int, ...]) -> Run:
    """A run that averages the logits over the image and its mirror images along all subsets of `axes`, counted from the end.

    Logits and not probabilities, which amounts to the geometric instead of the arithmetic mean of the probabilities: tiles are
    blended and labels interpolated in logits too, so the order of the three does not matter, and no exponentials are taken.
    """
    subsets = [subset for count in range(1, len(axes) + 1) for subset in combinations(axes, count)]
    if not subsets:
        return run

    def run_all(image: np.ndarray) -> np.ndarray:
        total = run(image).copy()  # the next run may overwrite it
        for subset in subsets:
            total += np.flip(run(np.ascontiguousarray(np.flip(image, subset))), subset)
        total /= len(subsets) + 1
        return total

    return run_all
