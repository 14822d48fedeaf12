"""Boxes of objects out of what a head says of regions: Fast R-CNN (Girshick 2015, arXiv 1504.08083, section 2.2).

Axes: B batch, R regions, K classes, n objects found, M places for objects.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segwright.layers.box_coding import clip_boxes, decode_boxes
from segwright.layers.detections import Detections
from segwright.layers.suppression import padded, suppress, where

LEAST_SCORE = 0.05  # what is less sure is left out, as in all published forms
OVERLAP = 0.5  # (IoU) above which the less sure of two objects of a class is dropped
SMALLEST_SIDE = 1e-2  # pixels; what is smaller lay outside the image


class FoundBoxes(NamedTuple):
    """The objects of one image, the surest first: `boxes` (n, 4), `scores` (n,) and `class_ids` int64 (n,)."""

    boxes: Tensor
    scores: Tensor
    class_ids: Tensor


def detect_boxes(
    probs: Tensor,
    deltas: Tensor,
    regions: Tensor,
    sides: tuple[int, int],
    *,
    weights: tuple[float, float, float, float],
    count: int,
) -> FoundBoxes:
    """Up to `count` objects of an image of some sides (H, W); exactly so many while traced, those of score 0 being none.

    `probs` (R, K) say how sure it is that a region (R, 4) holds an object of a class, `deltas` (R, K, 4), or (R, 1, 4) for all
    classes, where it lies.
    """
    num_classes, boxes_each = probs.shape[1], deltas.shape[1]
    index = where((probs > LEAST_SCORE).flatten())
    region, class_ids = index // num_classes, index % num_classes
    scores = probs.flatten()[index]
    own = region * boxes_each + class_ids % boxes_each
    boxes = clip_boxes(decode_boxes(deltas.flatten(0, 1)[own], regions[region], weights), sides)
    index = where((boxes[:, 2:] - boxes[:, :2]).amin(1) >= SMALLEST_SIDE)
    boxes, scores, class_ids = boxes[index], scores[index], class_ids[index]
    kept = suppress(boxes, scores, class_ids, overlap=OVERLAP, count=count)
    found = FoundBoxes(boxes[kept], scores[kept], class_ids[kept])
    return FoundBoxes(*[padded(each, count) for each in found]) if torch.jit.is_tracing() else found


def as_detections(found: Sequence[FoundBoxes], masks: Tensor | None, count: int) -> Detections:
    """The objects of each image, padded to `count`, with the probabilities of their masks, image after image (n, h, w)."""
    boxes, scores, class_ids = (torch.stack([padded(each, count) for each in values]) for values in zip(*found, strict=True))
    if masks is None:
        return Detections(boxes, scores, class_ids, boxes.new_zeros(*boxes.shape[:2], 0, 0), boxes)
    each_image = masks.split([len(each.boxes) for each in found])
    return Detections(boxes, scores, class_ids, torch.stack([padded(each, count) for each in each_image]), boxes)
