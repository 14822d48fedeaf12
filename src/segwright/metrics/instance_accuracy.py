"""How many objects are found, by the accuracy TP / (TP + FP + FN). Axes: K classes, T thresholds, N predicted, G true, M pairs.

Papers on nuclei call this accuracy "average precision" too, although it has nothing to do with the area under a curve that COCO
calls so; here it is never called AP.

Source: Caicedo et al. 2019 (Data Science Bowl 2018), doi 10.1038/s41592-019-0612-7; Schmidt et al. 2018 (StarDist), doi
10.1007/978-3-030-00934-2_30. The matches are those of StarDist's own code (an IoU equal to the threshold is enough).
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from segwright.core import Classes, Segmentation
from segwright.core.errors import SettingError
from segwright.metrics.accumulators import Sums, mean, ratio
from segwright.metrics.overlaps import check_pair
from segwright.metrics.panoptic_quality import NUMBER_BITS, FoundSegments, found_segments

LOOSE, STRICT = 0.5, 0.75  # thresholds that papers report alone
PER_CLASS = ("object accuracy", "accuracy@0.5", "object F1@0.5")


@dataclass(frozen=True)
class InstanceAccuracy:
    """Accuracy of objects at thresholds of IoU, from `Sums` (K, 3 T + 3).

    The sums hold matches, false positives and misses at each threshold, then the IoU of matches at 0.5, the accuracies of
    single images and the number of images that have one.
    """

    classes: Classes
    thresholds: tuple[float, ...] = field(default=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95), kw_only=True)
    SCORES: ClassVar[tuple[str, ...]] = (
        *("object accuracy", "accuracy@0.5", "accuracy@0.75", "object accuracy per image"),
        *("object precision@0.5", "object recall@0.5", "object F1@0.5", "mean matched IoU@0.5", "mean true IoU@0.5"),
    )

    def __post_init__(self) -> None:
        if not self.thresholds or not 0 < min(self.thresholds) <= max(self.thresholds) <= 1:
            raise SettingError(f"thresholds are {self.thresholds}; give some above 0 and up to 1, such as (0.5, 0.75)")

    @property
    def convention(self) -> str:
        """How objects are matched and what is averaged."""
        listed = ", ".join(f"{each:g}" for each in self.thresholds)
        return (
            "Accuracy is TP / (TP + FP + FN), the 'average precision' of papers on nuclei, not COCO's. As many objects of one "
            "class as possible are matched one to one where their IoU reaches the threshold, then those of more IoU; void is "
            "left out of the union, predicted objects with more than half of their pixels in void or in crowds of their class "
            "are no false positives, crowds need not be found, stuff is not counted. TP, FP and FN are added up over images; "
            "'per image' is the mean over images with true or predicted objects, as in the Data Science Bowl. 'object "
            f"accuracy' is the mean over the IoU {listed}. Matched IoU is the mean over matched objects, true IoU the same "
            "with 0 for each missed one. Scores are means over the classes that occur."
        )

    @property
    def counted(self) -> tuple[float, ...]:
        """The thresholds at which objects are matched (T,), in rising order."""
        return tuple(sorted({*self.thresholds, LOOSE, STRICT}))

    def count(self, prediction: Segmentation, truth: Segmentation) -> Sums:
        """What was matched on one image, (K, 3 T + 3).

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know.
        """
        check_pair(prediction, truth, self.classes)
        found, num_classes = found_segments(prediction, truth, self.classes), len(self.classes)
        table = np.zeros((num_classes, 3, len(self.counted)))
        matched_iou = np.zeros(num_classes)
        close_predicted, close_true, close_iou = _candidates(found, min(self.counted))
        is_excused = found.is_excused()
        is_guess, is_object = found.predicted_ids % 2**NUMBER_BITS != 0, found.true_ids % 2**NUMBER_BITS != 0
        for place, threshold in enumerate(self.counted):
            is_close = close_iou >= threshold
            predicted, true, iou = close_predicted[is_close], close_true[is_close], close_iou[is_close]
            chosen = one_to_one(predicted, true, iou)
            predicted, true, iou = predicted[chosen], true[chosen], iou[chosen]
            is_false, is_missed = is_guess & ~is_excused, is_object.copy()
            is_false[predicted], is_missed[true] = False, False
            classes = found.true_classes
            of_each = (classes[true], found.predicted_classes[is_false], classes[is_missed])
            table[:, :, place] = np.stack([np.bincount(each, minlength=num_classes) for each in of_each], axis=1)
            if threshold == LOOSE:
                matched_iou[:] = np.bincount(classes[true], iou, num_classes)
        accuracy = self._mean_accuracy(table)
        of_image = np.stack([matched_iou, np.nan_to_num(accuracy), ~np.isnan(accuracy)], axis=1)
        return Sums(np.concatenate([table.reshape(num_classes, -1), of_image], axis=1))

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Scores from 0 to 1 by name: means over classes, at each threshold, and then of each class."""
        counts, rest = np.split(state.values, [-3], axis=-1)
        table = counts.reshape(*counts.shape[:-1], 3, len(self.counted))
        matched, false, missed = np.moveaxis(table[..., self.counted.index(LOOSE)], -1, 0)
        iou, of_images, images = np.moveaxis(rest, -1, 0)
        per_class = {
            "object accuracy": self._mean_accuracy(table),
            **{f"accuracy@{each:g}": _accuracies(table)[..., place] for place, each in enumerate(self.counted)},
            "object accuracy per image": ratio(of_images, images),
            "object precision@0.5": ratio(matched, matched + false),
            "object recall@0.5": ratio(matched, matched + missed),
            "object F1@0.5": ratio(2 * matched, 2 * matched + false + missed),
            "mean matched IoU@0.5": ratio(iou, matched),
            "mean true IoU@0.5": ratio(iou, matched + missed),
        }
        scores = {title: mean(values) for title, values in per_class.items()}
        for title in PER_CLASS:
            scores |= {f"{title}/{name}": per_class[title][..., k] for k, name in enumerate(self.classes.names)}
        return scores

    def _mean_accuracy(self, table: np.ndarray) -> np.ndarray:
        """The mean over `thresholds` (..., K) of the accuracies of a table (..., K, 3, T)."""
        return _accuracies(table)[..., [self.counted.index(each) for each in self.thresholds]].mean(axis=-1)


def _accuracies(table: np.ndarray) -> np.ndarray:
    """TP / (TP + FP + FN) (..., K, T) of matches, false positives and misses (..., K, 3, T), NaN where there are none."""
    return ratio(table[..., 0, :], table.sum(axis=-2))


def _candidates(found: FoundSegments, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted objects (M,) and true objects (M,) of one class whose IoU reaches a threshold, and their IoU, float64 (M,)."""
    predicted, true, iou = found.shared.predicted, found.shared.true, found.iou()
    is_object = (found.predicted_ids[predicted] % 2**NUMBER_BITS != 0) & (found.true_ids[true] % 2**NUMBER_BITS != 0)
    chosen = is_object & found.same_class() & (iou >= threshold)
    return predicted[chosen], true[chosen], iou[chosen]


def one_to_one(predicted: np.ndarray, true: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """The places of as many pairs (M,) as possible of which no two share an object; of several answers, that of most IoU.

    Above an IoU of 0.5, disjoint objects are never in two pairs; where some are, each connected group is solved by itself.
    """
    is_shared = (np.bincount(predicted)[predicted] > 1) | (np.bincount(true)[true] > 1) if len(iou) else np.zeros(0, bool)
    chosen = [np.flatnonzero(~is_shared)]
    if is_shared.any():
        open_pairs = np.flatnonzero(is_shared)
        rows, columns = predicted[open_pairs], true[open_pairs] + predicted.max() + 1
        size = columns.max() + 1
        _, group_of = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), (size, size)), directed=False)
        order = np.argsort(group_of[rows], kind="stable")
        starts = np.flatnonzero(np.diff(group_of[rows[order]], prepend=-1))
        for group in np.split(open_pairs[order], starts[1:]):
            chosen.append(group[_assigned(predicted[group], true[group], iou[group])])
    return np.concatenate(chosen)


def _assigned(predicted: np.ndarray, true: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """The places of the best pairs of one connected group."""
    from scipy.optimize import linear_sum_assignment  # takes a third of a second to load, which few metrics need

    rows, row = np.unique(predicted, return_inverse=True)
    columns, column = np.unique(true, return_inverse=True)
    gain, place = np.zeros((len(rows), len(columns))), np.full((len(rows), len(columns)), -1)
    gain[row, column] = 1 + iou / (2 * min(gain.shape))  # all IoU together weigh less than one more match
    place[row, column] = np.arange(len(iou))
    found = place[linear_sum_assignment(gain, maximize=True)]
    return found[found >= 0]
