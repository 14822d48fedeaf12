"""How often which class was taken for which: accuracy, IoU and Dice. Axes: K classes, N pixels, P planes, *S spatial axes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit

from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError, UsageError
from segwright.metrics.sums import Sums, mean, ratio


@dataclass(frozen=True)
class Confusion:
    """Scores of semantic segmentation from the correct, true and predicted pixels of each class, `Sums` (3, K)."""

    classes: Classes
    SCORES: ClassVar[tuple[str, ...]] = ("mIoU", "pixel accuracy", "mean accuracy", "frequency-weighted IoU", "Dice")
    convention: ClassVar[str] = (
        "Pixels of all images are added up before anything is divided; pixels void in the truth are left out, a pixel given no "
        "class counts as wrong, and a class neither in the truth nor predicted is NaN and left out of means."
    )

    def count(self, prediction: Segmentation, truth: Segmentation) -> Sums:
        """Correct, true and predicted pixels of each class of one image, (3, K).

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know.
        """
        return class_sums(self.matrix(prediction, truth))

    def matrix(self, prediction: Segmentation, truth: Segmentation) -> np.ndarray:
        """Pixels by true class (rows) and predicted class (columns), int64 (K, K + 1); the last column is no class at all.

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know.
        """
        for name, given in (("prediction", prediction), ("truth", truth)):
            highest = int(given.class_ids.max(initial=0))
            if highest >= len(self.classes):
                raise UsageError(
                    f"the {name} holds class {highest} ({given.classes.names[highest]}), the metric knows {len(self.classes)} "
                    "classes; give both the same classes, such as those of the data set"
                )
        return joint_counts(*labels_of(prediction, len(self.classes)), *labels_of(truth, len(self.classes)))

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Scores from 0 to 1 by name: means over classes, then `IoU`, `Dice`, `precision` and `recall` of each class."""
        correct, actual, predicted = np.moveaxis(state.values, -2, 0)  # (..., K) each
        iou, dice = ratio(correct, actual + predicted - correct), ratio(2 * correct, actual + predicted)
        precision, recall = ratio(correct, predicted), ratio(correct, actual)
        total = actual.sum(axis=-1)
        scores = {
            "mIoU": mean(iou),
            "pixel accuracy": ratio(correct.sum(axis=-1), total),
            "mean accuracy": mean(recall),
            "frequency-weighted IoU": ratio((np.nan_to_num(iou) * actual).sum(axis=-1), total),
            "Dice": mean(dice),
        }
        for title, values in (("IoU", iou), ("Dice", dice), ("precision", precision), ("recall", recall)):
            scores |= {f"{title}/{name}": values[..., k] for k, name in enumerate(self.classes.names)}
        return scores


def class_sums(matrix: np.ndarray) -> Sums:
    """Correct, true and predicted pixels of each class, (3, K), from a confusion matrix (K, K + 1)."""
    square = matrix[:, : len(matrix)]
    return Sums(np.stack([np.diag(square), matrix.sum(axis=1), square.sum(axis=0)]).astype(np.float64))


def confusion_matrix(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Pixels by true class and predicted class, int64 (K, K + 1), from two class maps (*S) of any integer dtype.

    A label outside 0..K-1, such as VOID or 255, is no class: left out where the truth has it, the last column elsewhere.

    Raises:
        ShapeError: the maps differ in size.
    """
    class_of = np.array([num_classes, *range(num_classes)])
    return joint_counts(prediction, class_of, truth, class_of)


def labels_of(segmentation: Segmentation, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (*S) and the class of the labels -1, 0, 1, ..., K for none.

    A single plane is read as it is, its classes looked up while counting; several are laid over each other first.
    """
    if len(segmentation.planes) > 1:
        return segmentation.class_map(), np.array([num_classes, *range(num_classes)])
    return segmentation.planes[0], np.array([num_classes, num_classes, *segmentation.class_ids])


def joint_counts(
    prediction: np.ndarray, predicted_class_of: np.ndarray, truth: np.ndarray, true_class_of: np.ndarray
) -> np.ndarray:
    """Pixels by true class and predicted class, int64 (K, K + 1), from labels (*S) and the class of the labels -1, 0, ..."""
    if prediction.shape != truth.shape:
        raise ShapeError(
            f"the prediction is {prediction.shape} and the truth {truth.shape}; predict at the size of the original image"
        )
    num_classes = int(true_class_of[0])  # the class of a label that stands for none
    table = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    tally(prediction.ravel(), predicted_class_of, truth.ravel(), true_class_of, table)
    return table[:num_classes]


@njit(cache=True, nogil=True)
def tally(
    prediction: np.ndarray, predicted_class_of: np.ndarray, truth: np.ndarray, true_class_of: np.ndarray, table: np.ndarray
) -> None:
    """Add each pixel of the labels (N,) to a table (K + 1, K + 1). Several tables in turn were no faster than one."""
    predicted_end, true_end = np.uint64(len(predicted_class_of)), np.uint64(len(true_class_of))
    for n in range(len(truth)):
        p, t = np.int64(prediction[n]) + 1, np.int64(truth[n]) + 1
        column = predicted_class_of[p if np.uint64(p) < predicted_end else 0]  # as unsigned, a negative number is large
        table[true_class_of[t if np.uint64(t) < true_end else 0], column] += 1
