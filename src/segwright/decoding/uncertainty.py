"""How sure a network is at each pixel, beside the class that it finds there. Axes: K classes, n rows of pixels, *S of all.

What these probabilities add up to, by which the quality of the whole is told, is added up in the same pass.

The entropy of the probabilities of classes is 0 where one class is certain. Divided by its highest value, log K, it is 1 where
all are as likely. That of the mean of several networks has two parts: the mean of their entropies, by which each of them is
unsure, and the rest, by which they disagree: the mutual information of class and network. Of regions, it is the mean of the
entropies of the classes, each of which is there or not, divided by log 2.

Source: Smith and Gal 2018, "Understanding Measures of Uncertainty for Adversarial Example Detection", arXiv 1803.08533.
"""

from collections.abc import Iterable

import numpy as np

from segwright.decoding.expected_dice import OverlapSums
from segwright.decoding.upsample_argmax import label_dtype

UNCERTAINTY, DISAGREEMENT = "uncertainty", "disagreement"


def labels_and_uncertainty(
    parts: Iterable[tuple[int, np.ndarray]], shape: tuple[int, ...], num_classes: int, missing: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray], OverlapSums]:
    """Labels uint8 or uint16 (*S) and maps float32 (*S) from 0 to 1, by name, of logits that come as rows of pixels; and sums.

    `parts` are as `tiled_maps` gives them: the first of some rows, and maps float32 (C, n, ...) of them. The first K are
    logits; one more, if there is one, is the mean entropy of several networks in nats, and makes a map "disagreement" beside
    that called "uncertainty". Sums are of all pixels but those `missing`, bool (*S).
    """
    labels, entropy = np.empty(shape, label_dtype(num_classes)), np.zeros(shape, np.float32)
    sums = OverlapSums.of_none(num_classes)
    found = {UNCERTAINTY: entropy}
    highest = max(np.log(num_classes), 1e-6)  # of one class, which is certain
    for first, maps in parts:
        rows, logits = slice(first, first + maps.shape[1]), maps[:num_classes]
        labels[rows] = logits.argmax(axis=0)
        logs = logits - logits.max(axis=0)
        logs -= np.log(np.exp(logs).sum(axis=0))
        probs = np.exp(logs)
        sums.add_classes(probs, labels[rows], None if missing is None else missing[rows])
        entropy[rows] = np.clip(-(probs * logs).sum(axis=0) / highest, 0, 1)  # rounding goes a little beyond
        if len(maps) > num_classes:
            disagreement = found.setdefault(DISAGREEMENT, np.zeros(shape, np.float32))
            disagreement[rows] = np.maximum(entropy[rows] - maps[-1] / highest, 0)  # likewise
    return labels, found, sums


def regions_and_uncertainty(
    parts: Iterable[tuple[int, np.ndarray]], shape: tuple[int, ...], num_classes: int, missing: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray], OverlapSums]:
    """The same of regions: where each class is, bool (K, *S), which is where its logit is above 0, the maps, and sums."""
    is_inside, entropy = np.empty((num_classes, *shape), bool), np.zeros(shape, np.float32)
    sums = OverlapSums.of_none(num_classes)
    found = {UNCERTAINTY: entropy}
    for first, maps in parts:
        rows, logits = slice(first, first + maps.shape[1]), maps[:num_classes]
        is_inside[:, rows] = logits > 0
        odds = np.exp(-np.abs(logits))  # of what is less likely; the entropy is the same whichever that is
        probs = np.where(logits > 0, 1, odds) / (1 + odds)
        sums.add_regions(probs, None if missing is None else missing[rows])
        entropy[rows] = (np.log1p(odds) + np.abs(logits) * odds / (1 + odds)).mean(axis=0) / np.log(2)
        if len(maps) > num_classes:
            disagreement = found.setdefault(DISAGREEMENT, np.zeros(shape, np.float32))
            disagreement[rows] = np.maximum(entropy[rows] - maps[-1] / np.log(2), 0)  # rounding goes a little below
    return is_inside, found, sums
