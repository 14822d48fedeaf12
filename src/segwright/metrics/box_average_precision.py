"""Average precision of objects by the boxes around them, as COCO scores them. Axes: D detections, G true objects, M pairs."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numba import njit

from segwright.core import VOID, Classes, Segmentation
from segwright.metrics.average_precision import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    AveragePrecision,
    described,
    scored,
    wanted,
)
from segwright.metrics.matching import Matches, Objects, check_rules, match
from segwright.metrics.overlaps import check_pair

CELLS = 2**18  # pairs of boxes looked at once: some MB, and large enough to hide what each turn costs


@dataclass(frozen=True)
class BoxAveragePrecision:
    """Scores of detection from the matches of detected with true objects, by the IoU of the smallest boxes around them."""

    classes: Classes
    iou_thresholds: tuple[float, ...] = field(default=IOU_THRESHOLDS, kw_only=True)
    max_detections: tuple[int, ...] = field(default=MAX_DETECTIONS, kw_only=True)
    SCORES: ClassVar[tuple[str, ...]] = tuple(f"box {name}" for name in AveragePrecision.SCORES)

    def __post_init__(self) -> None:
        check_rules(self.iou_thresholds, self.max_detections)

    @property
    def convention(self) -> str:
        """What is counted and how it is averaged."""
        return (
            described(self.iou_thresholds, self.max_detections, "of boxes") + " The area of a true object is that of its mask."
        )

    def count(self, prediction: Segmentation, truth: Segmentation) -> Matches:
        """The matches of one image, 2D or 3D, of the boxes around predicted segments with an instance id and a score.

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know, or a score is NaN.
        """
        check_pair(prediction, truth, self.classes)
        is_void = truth.planes[0] == VOID
        boxes = boxes_around(np.where(is_void, 0, prediction.planes), len(prediction))
        is_unknown = (boxes[:, 1] == boxes[:, 0]).all(axis=-1) & (prediction.areas() > 0)
        rows = np.flatnonzero((prediction.instance_ids > 0) & ~is_unknown)
        columns, is_crowd = wanted(truth)
        boxes, true_boxes = boxes[rows], boxes_around(truth.planes, len(truth))[columns]
        areas = (boxes[:, 1] - boxes[:, 0]).prod(axis=-1)
        detections = Objects(prediction.class_ids[rows], areas, scores=prediction.scores[rows])
        objects = Objects(truth.class_ids[columns], truth.areas()[columns], is_crowd=is_crowd)
        true_sizes = (true_boxes[:, 1] - true_boxes[:, 0]).prod(axis=-1)
        pairs = _box_pairs(
            (boxes[:, 0], boxes[:, 1], areas),
            detections.class_ids,
            (true_boxes[:, 0], true_boxes[:, 1], true_sizes),
            objects.class_ids,
            is_crowd,
        )
        return match(detections, objects, pairs, self.iou_thresholds, self.max_detections[-1])

    def count_boxes(self, boxes_xywh: np.ndarray, detections: Objects, true_boxes_xywh: np.ndarray, truth: Objects) -> Matches:
        """The matches of one image from boxes float64 (D, 4) and (G, 4): left, top, width and height, as in COCO's files.

        Raises:
            UsageError: a score is NaN.
        """
        corners, sizes, true_corners, true_sizes = (
            each.reshape(-1, 2, 2)[:, n] for each in (boxes_xywh, true_boxes_xywh) for n in (0, 1)
        )
        is_crowd = np.zeros(len(true_corners), bool) if truth.is_crowd is None else truth.is_crowd
        pairs = _box_pairs(
            (corners, corners + sizes, sizes.prod(axis=-1)),
            detections.class_ids,
            (true_corners, true_corners + true_sizes, true_sizes.prod(axis=-1)),
            truth.class_ids,
            is_crowd,
        )
        return match(detections, truth, pairs, self.iou_thresholds, self.max_detections[-1])

    def score(self, state: Matches) -> dict[str, np.ndarray]:
        """Scores from 0 to 1 by name, then "box AP/name" of each class; NaN where there is no object."""
        scores = scored(state, self.classes, self.iou_thresholds, self.max_detections)
        return {f"box {name}": values for name, values in scores.items()}


def boxes_around(planes: np.ndarray, count: int) -> np.ndarray:
    """First and last + 1 index per axis of the segments 1..count in planes int32 (P, *S), float64 (count, 2, axes)."""
    shape = planes.shape[1:]
    boxes = np.zeros((count + 1, 2, 3), np.int64)
    boxes[:, 0] = max(shape, default=0)
    for plane in planes:
        _grow(np.ascontiguousarray(plane).reshape((1,) * (3 - len(shape)) + shape), boxes)
    boxes[boxes[:, 1, 2] == 0] = 0  # segments without a pixel
    return boxes[1:, :, 3 - len(shape) :].astype(np.float64)


Boxes = tuple[np.ndarray, np.ndarray, np.ndarray]  # first corners (D, axes), last corners (D, axes) and areas (D,), float64


def _box_pairs(
    boxes: Boxes, class_ids: np.ndarray, true_boxes: Boxes, true_class_ids: np.ndarray, is_crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Detection, object and IoU (M,) of those of one class whose boxes overlap; of a crowd, the share of the detection."""
    step = max(1, CELLS // max(1, len(true_class_ids)))
    parts = []
    for first in range(0, max(1, len(class_ids)), step):  # at least one, which may hold nothing
        row, column = np.nonzero(class_ids[first : first + step, None] == true_class_ids)
        row += first
        sides = np.minimum(boxes[1][row], true_boxes[1][column]) - np.maximum(boxes[0][row], true_boxes[0][column])
        is_pair = (sides > 0).all(axis=-1)
        parts.append((row[is_pair], column[is_pair], sides[is_pair].prod(axis=-1)))
    row, column, shared = (np.concatenate(each) for each in zip(*parts, strict=True))
    own, true = boxes[2][row], true_boxes[2][column]
    return row, column, shared / np.where(is_crowd[column], own, own + true - shared)


@njit(cache=True, nogil=True)
def _grow(plane, boxes):
    """Make the boxes (count + 1, 2, 3) as large as the segments in a plane (D, H, W)."""
    depth, height, width = plane.shape
    for z in range(depth):
        for y in range(height):
            start = 0
            for x in range(1, width + 1):
                if x < width and plane[z, y, x] == plane[z, y, start]:
                    continue
                segment = plane[z, y, start]
                if segment > 0:
                    box = boxes[segment]
                    box[0, 0], box[0, 1], box[0, 2] = min(box[0, 0], z), min(box[0, 1], y), min(box[0, 2], start)
                    box[1, 0], box[1, 1], box[1, 2] = max(box[1, 0], z + 1), max(box[1, 1], y + 1), max(box[1, 2], x)
                start = x
