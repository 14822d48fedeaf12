"""Average precision of objects by their masks, as COCO scores them. Axes: D detections, G true objects, M pairs, R sums."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import ClassVar

import numpy as np

from segwright.core import Classes, Segmentation
from segwright.metrics.accumulators import mean
from segwright.metrics.matching import AREA_NAMES, NEARLY_ONE, Matches, Objects, check_rules, match
from segwright.metrics.overlaps import Overlaps, check_pair, overlaps
from segwright.metrics.precision_recall import Curves, curves
from segwright.metrics.rle_overlap import Runs, overlapping

IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # COCO's, with its roundings
MAX_DETECTIONS = (1, 10, 100)  # COCO's, of one class in one image


@dataclass(frozen=True)
class AveragePrecision:
    """Scores of instance segmentation from the matches of detected with true objects, by the IoU of their masks."""

    classes: Classes
    iou_thresholds: tuple[float, ...] = field(default=IOU_THRESHOLDS, kw_only=True)
    max_detections: tuple[int, ...] = field(default=MAX_DETECTIONS, kw_only=True)
    SCORES: ClassVar[tuple[str, ...]] = (
        *("AP", "AP50", "AP75", "AP small", "AP medium", "AP large"),
        *("AR@1", "AR@10", "AR@100", "AR small", "AR medium", "AR large"),
    )

    def __post_init__(self) -> None:
        check_rules(self.iou_thresholds, self.max_detections)

    @property
    def convention(self) -> str:
        """What is counted and how it is averaged."""
        return described(self.iou_thresholds, self.max_detections, "of masks")

    def count(self, prediction: Segmentation, truth: Segmentation) -> Matches:
        """The matches of one image, 2D or 3D, of predicted segments with an instance id and a score.

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know, or a score is NaN.
        """
        check_pair(prediction, truth, self.classes)
        shared = overlaps(prediction, truth)
        areas = shared.predicted_areas - shared.predicted_void
        rows = _detected(prediction, shared)
        columns, is_crowd = wanted(truth)
        detections = Objects(prediction.class_ids[rows], areas[rows], scores=prediction.scores[rows])
        objects = Objects(truth.class_ids[columns], shared.true_areas[columns], is_crowd=is_crowd)
        row, column, pixels = _pairs_of(shared, rows, columns)
        is_pair = detections.class_ids[row] == objects.class_ids[column]
        row, column, pixels = row[is_pair], column[is_pair], pixels[is_pair]
        alone = np.where(is_crowd[column], 0, objects.areas[column] - pixels)  # it does not matter how large a crowd is
        pairs = row, column, pixels / (detections.areas[row] + alone)
        return match(detections, objects, pairs, self.iou_thresholds, self.max_detections[-1])

    def count_runs(self, runs: Runs, detections: Objects, true_runs: Runs, truth: Objects) -> Matches:
        """The matches of each image from runs of pixels: of COCO's run lengths, or of masks bool (N, H, W) without planes.

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: a score is NaN.
        """
        pairs = overlapping(runs, detections, true_runs, truth, min(*self.iou_thresholds, NEARLY_ONE))
        return match(detections, truth, pairs, self.iou_thresholds, self.max_detections[-1])

    def score(self, state: Matches) -> dict[str, np.ndarray]:
        """Scores from 0 to 1 by name, then "AP/name" of each class; NaN where there is no object."""
        return scored(state, self.classes, self.iou_thresholds, self.max_detections)


def _detected(prediction: Segmentation, shared: Overlaps) -> np.ndarray:
    """The segments that are detections, int64 (D,): those with an instance id, but where nobody knows what is below them."""
    is_unknown = (shared.predicted_void > 0) & (shared.predicted_void == shared.predicted_areas)
    return np.flatnonzero((prediction.instance_ids > 0) & ~is_unknown)


def wanted(truth: Segmentation) -> tuple[np.ndarray, np.ndarray]:
    """The segments that are objects or crowds of them, int64 (G,), and which are crowds, bool (G,)."""
    is_crowd = (truth.instance_ids == 0) & np.array(truth.classes.is_thing)[truth.class_ids]
    chosen = np.flatnonzero((truth.instance_ids > 0) | is_crowd)
    return chosen, is_crowd[chosen]


def _pairs_of(shared: Overlaps, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detection, object and shared pixels of the pairs among the chosen segments, counted among those alone."""
    row_of, column_of = np.full(len(shared.predicted_areas), -1), np.full(len(shared.true_areas), -1)
    row_of[rows], column_of[columns] = np.arange(len(rows)), np.arange(len(columns))
    row, column = row_of[shared.predicted], column_of[shared.true]
    is_chosen = (row >= 0) & (column >= 0)
    return row[is_chosen], column[is_chosen], shared.pixels[is_chosen]


def described(iou_thresholds: Sequence[float], max_detections: Sequence[int], what: str) -> str:
    """The convention of average precision by the IoU of masks or boxes."""
    shares = f"{iou_thresholds[0]:.3g}"
    if len(iou_thresholds) > 1:
        shares = f"{len(iou_thresholds)} thresholds from {shares} to {iou_thresholds[-1]:.3g}"
    return (
        f"COCO's rules for objects, told apart by instance ids (stuff is left out): mean over classes and IoU {what} at "
        f"{shares} of the best precision at 101 recalls, for at most {max_detections[-1]} detections of a class in an image; "
        "AR@k is the recall of the best k. Crowds and void are neither to be found nor wrong to find, a class without object "
        "is left out, and of detections with equal scores those of the earlier image come first. Small, medium and large part "
        "at areas of 32 x 32 and 96 x 96."
    )


def scored(
    state: Matches, classes: Classes, iou_thresholds: Sequence[float], max_detections: Sequence[int]
) -> dict[str, np.ndarray]:
    """All scores by name, each of shape (R,), or () of a state without weights."""
    parts = [
        _summary(block, iou_thresholds, max_detections)
        for block in curves(state, len(classes), len(iou_thresholds), tuple(max_detections))
    ]
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    per_class = scores.pop("AP/")  # (R, K)
    scores |= {f"AP/{name}": per_class[:, k] for k, name in enumerate(classes.names)}
    return scores if state.weights is not None else {name: values[0] for name, values in scores.items()}


def _summary(block: Curves, iou_thresholds: Sequence[float], max_detections: Sequence[int]) -> dict[str, np.ndarray]:
    per_class = block.precision.mean(axis=2)  # (K, A, R): an object is there at all thresholds or at none
    per_range, recalls = mean(per_class.T), mean(block.recall.T)  # (R, A), (R, L, A)
    scores = {"AP": per_range[:, 0]}
    for share in (0.5, 0.75):
        at = next((t for t, threshold in enumerate(iou_thresholds) if isclose(threshold, share)), None)
        unknown = np.full(len(per_range), np.nan)
        scores[f"AP{share * 100:.0f}"] = unknown if at is None else mean(block.precision[:, 0, at].T)
    scores |= {f"AP {name}": per_range[:, a] for a, name in enumerate(AREA_NAMES) if a}
    scores |= {f"AR@{limit}": recalls[:, index, 0] for index, limit in enumerate(max_detections)}
    scores |= {f"AR {name}": recalls[:, -1, a] for a, name in enumerate(AREA_NAMES) if a}
    return scores | {"AP/": per_class[:, 0].T}
