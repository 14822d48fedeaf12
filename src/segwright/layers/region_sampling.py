"""Which regions the heads of Faster R-CNN learn from, and what: Fast R-CNN (Girshick 2015, arXiv 1504.08083, section 2.3).

Axes: R regions, N objects, K classes. Regions are (x1, y1, x2, y2) in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segwright.layers.box_coding import encode_boxes
from segwright.layers.box_matching import NONE, match_boxes
from segwright.layers.box_sampling import sample_boxes
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.void_boxes import unclear_in_void

POSITIVE_SHARE = 0.25  # of the regions that are looked at, at most, as in all published forms


class RegionSample(NamedTuple):
    """The regions of one image that heads learn from: first those with an object, `objects` int64 (P,), then those without.

    `regions` (R, 4); `class_ids` int64 (R,) of their objects, the number of classes for none.
    """

    regions: Tensor
    class_ids: Tensor
    objects: Tensor

    @property
    def positives(self) -> Tensor:
        """The regions (P, 4) that have an object."""
        return self.regions[: len(self.objects)]


def sample_regions(
    proposals: Sequence[Tensor],
    truth: Sequence[ObjectTruth],
    generator: torch.Generator | None,
    *,
    count: int,
    overlap: float,
    num_classes: int,
) -> list[RegionSample]:
    """Up to `count` regions of each image: of its proposals (m, 4), and of the boxes of its objects themselves.

    A region has the object whose box it overlaps most, if by as much as `overlap` (IoU). Regions in void are left out.
    """
    samples = []
    for found, (boxes, class_ids, planes) in zip(proposals, truth, strict=True):
        regions = torch.cat([found, boxes.to(found)])
        if not len(regions):  # the image as a whole holds no object
            height, width = planes.shape[1:]
            regions = found.new_tensor([[0, 0, width, height]])
        matches = match_boxes(regions, boxes.to(found), low=overlap, high=overlap, keeps_best=False)
        matches = unclear_in_void(matches, regions, planes)
        chosen = sample_boxes(matches, count, POSITIVE_SHARE, generator)
        samples.append(_sample(regions, matches, *chosen, class_ids, num_classes))
    return samples


def label_regions(
    regions: Sequence[Tensor], truth: Sequence[ObjectTruth], *, overlap: float, num_classes: int
) -> list[RegionSample]:
    """The regions (R, 4) of each image as a sample, without those in void.

    Each has the object whose box it overlaps most, if by `overlap` (IoU).
    """
    samples = []
    for each, (boxes, class_ids, planes) in zip(regions, truth, strict=True):
        matches = match_boxes(each, boxes.to(each), low=overlap, high=overlap, keeps_best=False)
        matches = unclear_in_void(matches, each, planes)
        indices = (matches >= 0).nonzero().flatten(), (matches == NONE).nonzero().flatten()
        samples.append(_sample(each, matches, *indices, class_ids, num_classes))
    return samples


def _sample(
    regions: Tensor, matches: Tensor, positives: Tensor, negatives: Tensor, class_ids: Tensor, num_classes: int
) -> RegionSample:
    """A sample of some of the regions (R, 4), of which the positives have the objects that `matches` (R,) tells."""
    objects = matches[positives]
    none = class_ids.new_full((len(negatives),), num_classes)
    return RegionSample(regions[torch.cat([positives, negatives])], torch.cat([class_ids[objects], none]), objects)


def box_head_losses(
    logits: Tensor,
    deltas: Tensor,
    samples: Sequence[RegionSample],
    truth: Sequence[ObjectTruth],
    *,
    weights: tuple[float, float, float, float],
    beta: float,
) -> tuple[Tensor, Tensor]:
    """How far a head is from classes, by cross-entropy, and from boxes, by smooth L1, which is linear from `beta` on; scalars.

    It says logits (R, K + 1) and deltas (R, K, 4), or (R, 1, 4) for all classes, of the regions of all images. Both are divided
    by the number of regions.
    """
    own, wanted = [], []
    counts = [len(sample.regions) for sample in samples]
    for sample, each, moves in zip(samples, truth, deltas.split(counts), strict=True):
        index = torch.arange(len(sample.objects), device=moves.device)
        own.append(moves[index, sample.class_ids[: len(index)] % moves.shape[1]])
        wanted.append(encode_boxes(each.boxes.to(sample.regions)[sample.objects], sample.positives, weights))
    classes = F.cross_entropy(logits, torch.cat([sample.class_ids for sample in samples]), reduction="sum")
    boxes = F.smooth_l1_loss(torch.cat(own), torch.cat(wanted), beta=beta, reduction="sum")
    return classes / max(len(logits), 1), boxes / max(len(logits), 1)
