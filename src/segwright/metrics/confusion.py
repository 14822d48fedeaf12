"""How often which class was taken for which: accuracy, IoU, Dice.

Axes: K classes, F scores, R sums at once, *S spatial axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from segwright.core import VOID, Classes, Segmentation
from segwright.core.classes import background_of
from segwright.metrics.accumulators import Sums, mean, ratio
from segwright.metrics.conventions import SEGWRIGHT, Convention
from segwright.metrics.joint_histogram import count_labels, count_layers
from segwright.metrics.overlaps import check_pair, check_sizes

TITLES = ("IoU", "Dice", "precision", "recall")  # the scores of a class
MEANS = ("mIoU", "Dice", "precision", "recall")  # over classes, in the same order; mean accuracy is another name of mean recall


@dataclass(frozen=True)
class Confusion:
    """Scores of semantic segmentation from the correct, true and predicted pixels of each class.

    A pixel may hold several classes, as the overlapping regions of a tumour: then each class is counted by itself, and pixel
    accuracy and kappa are unknown. Mean accuracy and mean recall are two names of one number.
    """

    classes: Classes
    rules: Convention = field(default=SEGWRIGHT, kw_only=True)
    SCORES: ClassVar[tuple[str, ...]] = (
        *("mIoU", "pixel accuracy", "mean accuracy", "frequency-weighted IoU"),
        *("Dice", "precision", "recall", "kappa"),
    )

    @property
    def convention(self) -> str:
        """What is added up, averaged and left out."""
        return self.rules.sentence(self.classes)

    def count(self, prediction: Segmentation, truth: Segmentation) -> Sums:
        """What one image adds: its `pixels` (3, K + 2), or its own scores (2, F) where the convention averages images.

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know.
        """
        return self.state(self.pixels(prediction, truth))

    def pixels(self, prediction: Segmentation, truth: Segmentation) -> np.ndarray:
        """Correct, true and predicted pixels of one image, float64 (3, K + 2): of each class, of none, and of several at once.

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know.
        """
        check_pair(prediction, truth, self.classes)
        present, place = np.unique(np.concatenate([truth.class_ids, prediction.class_ids]), return_inverse=True)
        none = len(present)  # a table of the classes of this image, however many there are: the column of no class
        void = none if self.rules.void == "no class" else none + 1
        row_of = np.concatenate([[void, none], place[: len(truth)]])
        column_of = np.concatenate([[none, none], place[len(truth) :]])
        background = background_of(self.classes)
        if self.rules.background == "void" and background is not None:
            row_of[2:][truth.class_ids == background] = none + 1
        if len(truth.planes) == len(prediction.planes) == 1:
            own = _class_pixels(count_labels(prediction.planes[0], column_of, truth.planes[0], row_of, none)[: none + 1])
        else:
            own = count_layers(prediction.planes, column_of, truth.planes, row_of, none)
        pixels = np.zeros((3, len(self.classes) + 2))
        pixels[:, present], pixels[:, -2:] = own[:, :none], own[:, none:]
        return pixels

    def state(self, pixels: np.ndarray) -> Sums:
        """The state of an image, or of R images at once, with these `pixels` (..., 3, K + 2)."""
        if self.rules.images == "added up":
            return Sums(pixels)
        values = np.stack(list(self._scores(pixels).values()), axis=-1)  # (..., F)
        return Sums(np.stack([np.nan_to_num(values), ~np.isnan(values)], axis=-2).astype(np.float64))

    def matrix(self, prediction: Segmentation, truth: Segmentation) -> np.ndarray:
        """Pixels by true class (rows) and predicted class (columns), int64 (K, K + 1); the last column is no class at all.

        Void pixels are left out whatever the convention; of several planes, a later one covers an earlier one.

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know.
        """
        check_pair(prediction, truth, self.classes)
        none = len(self.classes)
        predicted, column_of = _labels(prediction, none)
        true, row_of = _labels(truth, none)
        return count_labels(predicted, column_of, true, row_of, none)[:none]

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Scores by name: means over classes, then `IoU`, `Dice`, `precision` and `recall` of each class.

        All are from 0 to 1, but for kappa, which is from -1 to 1.
        """
        if self.rules.images == "added up":
            return self._scores(state.values)
        scores = dict(zip(self.names, np.moveaxis(ratio(state.values[..., 0, :], state.values[..., 1, :]), -1, 0), strict=True))
        shape = (*state.values.shape[:-1], len(TITLES), len(self.classes))
        total, known = np.moveaxis(
            state.values[..., len(self.SCORES) :].reshape(shape)[..., self.averaged], -3, 0
        )  # (..., 4, K)
        if self.rules.images == "averaged by class":
            scores |= _means(mean(ratio(total, known)))
        elif self.rules.images == "averaged with classes":
            scores |= _means(ratio(total.sum(axis=-1), known.sum(axis=-1)))
        return scores

    def limits(self, states: Sequence[Sums]) -> dict[str, tuple[float, float]]:
        """Agreement may be worse than by chance."""
        return {"kappa": (-1.0, 1.0)}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all F scores, in their order."""
        return (*self.SCORES, *(f"{title}/{name}" for title in TITLES for name in self.classes.names))

    @property
    def averaged(self) -> list[int]:
        """The classes that means are over."""
        left_out = background_of(self.classes) if self.rules.background != "a class" else None
        return [k for k in range(len(self.classes)) if k != left_out]

    def _scores(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Scores by name from pixels (..., 3, K + 2)."""
        table, averaged = self._class_scores(pixels), self.averaged
        scores = _means(mean(table[..., averaged]))
        actual = pixels[..., 1, averaged]
        weighted = (np.nan_to_num(table[..., 0, averaged]) * actual).sum(axis=-1)  # IoU
        scores["frequency-weighted IoU"] = ratio(weighted, actual.sum(axis=-1))
        scores["pixel accuracy"], scores["kappa"] = _agreement(pixels)
        by_class = np.moveaxis(table.reshape(*table.shape[:-2], -1), -1, 0)  # (4 K, ...)
        return {name: scores[name] for name in self.SCORES} | dict(zip(self.names[len(self.SCORES) :], by_class, strict=True))

    def _class_scores(self, pixels: np.ndarray) -> np.ndarray:
        """IoU, Dice, precision and recall, float64 (..., 4, K), with what the convention says of absent classes."""
        correct, actual, predicted = np.moveaxis(pixels[..., : len(self.classes)], -2, 0)  # (..., K) each
        wholes = np.stack([actual + predicted - correct, (actual + predicted) / 2, predicted, actual], axis=-2)
        table = ratio(correct[..., None, :], wholes)
        if self.rules.absent_from == "truth":
            table = np.where(actual[..., None, :] > 0, table, np.nan)
        return table if self.rules.absent_score is None else np.nan_to_num(table, nan=self.rules.absent_score)


def _labels(segmentation: Segmentation, none: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (*S), and the class of the labels -1, 0, 1, ...; several planes are laid over each other first."""
    if len(segmentation.planes) == 1:
        return segmentation.planes[0], np.concatenate([[none, none], segmentation.class_ids])
    labels = np.where(segmentation.planes[0] == VOID, VOID, segmentation.class_map())
    return labels, np.array([none, *range(none)])


def _means(values: np.ndarray) -> dict[str, np.ndarray]:
    """Means over classes by name, from those of IoU, Dice, precision and recall, (..., 4)."""
    return dict(zip(MEANS, np.moveaxis(values, -1, 0), strict=True)) | {"mean accuracy": values[..., -1]}


def _agreement(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixel accuracy and Cohen's kappa of pixels (..., 3, K + 2); NaN where a pixel holds several classes.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales", doi 10.1177/001316446002000104.
    """
    correct, actual, predicted = np.moveaxis(pixels[..., :-1], -2, 0)  # (..., K + 1), no class among them
    total, agreed, chance = actual.sum(axis=-1), correct.sum(axis=-1), (actual * predicted).sum(axis=-1)
    is_known = ~pixels[..., -1].any(axis=-1)
    accuracy, kappa = ratio(agreed, total), ratio(total * agreed - chance, total * total - chance)
    return np.where(is_known, accuracy, np.nan), np.where(is_known, kappa, np.nan)


def _class_pixels(matrix: np.ndarray) -> np.ndarray:
    """Correct, true and predicted pixels of each class, of no class and of several (0), float64 (3, K + 2).

    The confusion matrix is (K, K + 1), or (K + 1, K + 1) where the truth knows pixels of no class.
    """
    square = np.zeros((matrix.shape[1], matrix.shape[1]), np.int64)
    square[: len(matrix)] = matrix
    sums = np.stack([np.diag(square), square.sum(axis=1), square.sum(axis=0)])
    return np.pad(sums, ((0, 0), (0, 1))).astype(np.float64)


def class_sums(matrix: np.ndarray) -> Sums:
    """The state that a confusion matrix (K, K + 1) makes, where images are added up."""
    return Sums(_class_pixels(matrix))


def confusion_matrix(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by true class and predicted class, int64 (K, K + 1), from two class maps (*S) of any integer dtype.

    A label outside 0..K-1, such as VOID or 255, is no class: left out where the truth has it, the last column elsewhere.

    Raises:
        ShapeError: the maps differ in size.
    """
    check_sizes(prediction.shape, truth.shape)
    class_of = np.array([num_classes, *range(num_classes)])
    return count_labels(prediction, class_of, truth, class_of, num_classes)[:num_classes]


def dice_of_iou(iou: np.ndarray) -> np.ndarray:
    """Dice = 2 IoU / (1 + IoU), of any shape. It holds class by class; a mean of Dice is no function of a mean of IoU."""
    return 2 * iou / (1 + iou)


def iou_of_dice(dice: np.ndarray) -> np.ndarray:
    """IoU = Dice / (2 - Dice), of any shape; the inverse of `dice_of_iou`."""
    return dice / (2 - dice)
