"""Fast NMS: YOLACT (Bolya et al. 2019, arXiv 1904.02689, section 3.3): what is like something surer goes, all at once.

In plain non-maximum suppression a box that is itself suppressed suppresses nothing; here it does, so that all overlaps are
judged in one step. The paper finds 0.1 of mask AP lost for 12 ms gained.

Axes: B batch, N candidates, K classes, T of these that are looked at, M places for what is kept.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Kept(NamedTuple):
    """What is left, the surest first; a place that is left over has the score 0.

    `scores` (B, M), `class_ids` int64 (B, M), and `candidates` int64 (B, M), which of the N each is.
    """

    scores: Tensor
    class_ids: Tensor
    candidates: Tensor


def fast_nms(boxes: Tensor, scores: Tensor, *, overlap: float, looked_at: int, places: int) -> Kept:
    """Of boxes (B, N, 4), (x1, y1, x2, y2), with scores (B, K, N), those that no surer one of their class is like, up to M.

    Two are alike whose intersection over union is above `overlap`. Of each class the `looked_at` surest are judged, the rest
    goes. A candidate may stay in several classes; one of score 0 is not there. Shapes depend on shapes alone.
    """
    scores, order = scores.topk(min(looked_at, scores.shape[2]), dim=2)  # (B, K, T)
    batch, classes, count = order.shape
    ranked = boxes.gather(1, order.flatten(1)[..., None].expand(-1, -1, 4)).unflatten(1, (classes, count))  # (B, K, T, 4)
    surer = _pairwise_overlap(ranked).triu(diagonal=1)  # (B, K, T, T): row i is surer than column j
    scores = torch.where(surer.amax(2) <= overlap, scores, 0.0).flatten(1)  # (B, K*T)
    scores, kept = scores.topk(min(places, scores.shape[1]), dim=1)
    class_ids, candidates = kept // count, order.flatten(1).gather(1, kept)
    free = places - scores.shape[1]
    return Kept(*(F.pad(each, (0, free)) for each in (scores, class_ids, candidates)))


def _pairwise_overlap(boxes: Tensor) -> Tensor:
    """Intersection over union of boxes (..., T, 4) with each other, (..., T, T)."""
    one, other = boxes[..., :, None, :], boxes[..., None, :, :]
    sides = (torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])).clamp(min=0)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    shared = sides.prod(-1)
    return shared / (area[..., :, None] + area[..., None, :] - shared)
