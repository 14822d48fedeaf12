"""How sure a network is at each pixel, beside the class that it finds there. Axes: K classes, n rows of pixels, *S of all.

The entropy of the probabilities of classes is 0 where one class is certain. Divided by its highest value, log K, it is 1 where
all are as likely. That of the mean of several networks has two parts: the mean of their entropies, by which each of them is
unsure, and the rest, by which they disagree: the mutual information of class and network.

Source: Smith and Gal 2018, "Understanding Measures of Uncertainty for Adversarial Example Detection", arXiv 1803.08533.
"""

from collections.abc import Iterable

import numpy as np

from segwright.decoding.upsample_argmax import label_dtype

UNCERTAINTY, DISAGREEMENT = "uncertainty", "disagreement"


def labels_and_uncertainty(
    parts: Iterable[tuple[int, np.ndarray]], shape: tuple[int, ...], num_classes: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels uint8 or uint16 (*S) and maps float32 (*S) from 0 to 1, by name, of logits that come as rows of pixels.

    `parts` are as `tiled_maps` gives them: the first of some rows, and maps float32 (C, n, ...) of them. The first K are
    logits; one more, if there is one, is the mean entropy of several networks in nats, and makes a map "disagreement" beside
    that called "uncertainty".
    """
    labels, entropy = np.empty(shape, label_dtype(num_classes)), np.zeros(shape, np.float32)
    found = {UNCERTAINTY: entropy}
    highest = max(np.log(num_classes), 1e-6)  # of one class, which is certain
    for first, maps in parts:
        rows, logits = slice(first, first + maps.shape[1]), maps[:num_classes]
        labels[rows] = logits.argmax(axis=0)
        logs = logits - logits.max(axis=0)
        logs -= np.log(np.exp(logs).sum(axis=0))
        entropy[rows] = np.minimum(-(np.exp(logs) * logs).sum(axis=0) / highest, 1)  # rounding goes a little above
        if len(maps) > num_classes:
            disagreement = found.setdefault(DISAGREEMENT, np.zeros(shape, np.float32))
            disagreement[rows] = np.maximum(entropy[rows] - maps[-1] / highest, 0)  # rounding goes a little below
    return labels, found
