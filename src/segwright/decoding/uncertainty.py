"""How sure a network is at each pixel, beside the class that it finds there. Axes: K classes, n rows of pixels, *S of all.

What these probabilities add up to, by which the quality of the whole is told, is added up in the same pass.

The entropy of the probabilities of classes is 0 where one class is certain. Divided by its highest value, log K, it is 1 where
all are as likely. That of the mean of several networks has two parts: the mean of their entropies, by which each of them is
unsure, and the rest, by which they disagree: the mutual information of class and network. Of regions, it is the mean of the
entropies of the classes, each of which is there or not, divided by log 2.

Source: Smith and Gal 2018, "Understanding Measures of Uncertainty for Adversarial Example Detection", arXiv 1803.08533.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from segwright.decoding.expected_dice import OverlapSums
from segwright.decoding.upsample_argmax import label_dtype

UNCERTAINTY, DISAGREEMENT = "uncertainty", "disagreement"
PIECE = 2**21  # logits that are looked at at once: 8 MB, near a core

Parts = Iterable[tuple[int, np.ndarray]]  # the first of some rows, and maps float32 (C, n, ...) of them
Missing = Callable[[slice], np.ndarray | None]  # of some rows, bool (n, ...), where any pixel is
Row = tuple[int, np.ndarray, dict[str, np.ndarray]]  # the first of some rows, what is found there, and maps float32 (n, ...)


def label_rows_and_uncertainty(parts: Parts, num_classes: int, sums: OverlapSums, missing: Missing) -> Iterator[Row]:
    """Labels uint8 or uint16 (n, ...) and maps from 0 to 1, by name, of logits that come as rows of pixels.

    `parts` are as `tiled_maps` gives them. The first K of their maps are logits; one more, if there is one, is the mean entropy
    of several networks in nats, and makes a map "disagreement" beside that called "uncertainty". Pixels that are not missing
    are added to `sums`.
    """
    highest = max(np.log(num_classes), 1e-6)  # of one class, which is certain
    for first, maps in _pieces(parts):
        logits = maps[:num_classes]
        labels = logits.argmax(axis=0).astype(label_dtype(num_classes))
        logs = logits - logits.max(axis=0)
        logs -= np.log(np.exp(logs).sum(axis=0))
        probs = np.exp(logs)
        sums.add_classes(probs, labels, missing(slice(first, first + len(labels))))
        entropy = np.clip(-(probs * logs).sum(axis=0) / highest, 0, 1).astype(np.float32)  # rounding goes a little beyond
        yield first, labels, _named(entropy, maps, num_classes, highest)


def region_rows_and_uncertainty(parts: Parts, num_classes: int, sums: OverlapSums, missing: Missing) -> Iterator[Row]:
    """The same of regions: where each class is, bool (K, n, ...), which is where its logit is above 0, and the maps."""
    for first, maps in _pieces(parts):
        logits = maps[:num_classes]
        odds = np.exp(-np.abs(logits))  # of what is less likely; the entropy is the same whichever that is
        sums.add_regions(np.where(logits > 0, 1, odds) / (1 + odds), missing(slice(first, first + maps.shape[1])))
        entropy = (np.log1p(odds) + np.abs(logits) * odds / (1 + odds)).mean(axis=0) / np.log(2)
        yield first, logits > 0, _named(entropy.astype(np.float32), maps, num_classes, np.log(2))


def _pieces(parts: Parts) -> Iterator[tuple[int, np.ndarray]]:
    """The same in fewer rows at a time, as what is computed of logits takes several times their memory."""
    for first, maps in parts:
        count = max(1, PIECE // (maps[:, 0].size or 1))
        for row in range(0, maps.shape[1], count):
            yield first + row, maps[:, row : row + count]


def _named(entropy: np.ndarray, maps: np.ndarray, num_classes: int, highest: float) -> dict[str, np.ndarray]:
    """The maps of some rows by name, of their entropy, as a share of the highest, and all that is known of them."""
    if len(maps) == num_classes:
        return {UNCERTAINTY: entropy}
    apart = np.maximum(entropy - maps[-1] / highest, 0)  # rounding goes a little below
    return {UNCERTAINTY: entropy, DISAGREEMENT: apart.astype(np.float32)}


def whole_of(rows: Iterable[Row], shape: tuple[int, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What is found in all rows of a grid (*S), and maps float32 (*S) by name."""
    found, whole = np.empty(0), dict[str, np.ndarray]()
    for first, part, maps in rows:
        before = part.shape[: part.ndim - len(shape)]  # of regions, their number
        if not whole:
            found, whole = np.empty((*before, *shape), part.dtype), {name: np.empty(shape, np.float32) for name in maps}
        here = slice(first, first + part.shape[len(before)])
        found[(*(slice(None) for _ in before), here)] = part
        for name, values in maps.items():
            whole[name][here] = values
    return found, whole


def rows_of(missing: np.ndarray | None) -> Missing:
    """The pixels that are missing in some rows, where those of the whole grid, bool (*S), are known, or none is."""
    return lambda rows: None if missing is None else missing[rows]
