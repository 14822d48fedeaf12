"""Region proposal network: Faster R-CNN (Ren et al. 2015, arXiv 1506.01497, section 3.1), on each map of a pyramid.

At each pixel it says of A anchors how sure it is that they lie on an object, and how they must move.

Axes: B batch, E channels of the pyramid, A anchors of a pixel, n anchors of a map, m proposals of an image, h, w sides of a
map.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.box_coding import clip_boxes, decode_boxes, encode_boxes
from segwright.layers.box_matching import match_boxes
from segwright.layers.box_sampling import sample_boxes
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.suppression import padded, suppress, where
from segwright.layers.void_boxes import unclear_in_void

WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of deltas
OVERLAP = 0.7  # (IoU) above which the less sure of two proposals of a map is dropped
SMALLEST_SIDE = 1e-3  # pixels; what is smaller lay outside the image
NEGATIVE, POSITIVE = 0.3, 0.7  # overlaps (IoU) with an object, below and from which an anchor learns to say no and yes
POSITIVE_SHARE = 0.5  # of the anchors that are sampled, at most


class AnchorScores(NamedTuple):
    """What a head says of the anchors of one map: `objectness` logits (B, n), `deltas` (B, n, 4)."""

    objectness: Tensor
    deltas: Tensor


class RegionProposalHead(nn.Module):
    """Each map of a pyramid (B, E, h, w) to the scores of its anchors, n = h w A; one head looks at all maps."""

    def __init__(self, width: int, cells: int, depth: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.objectness = nn.Conv2d(width, cells, 1)
        self.deltas = nn.Conv2d(width, 4 * cells, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)  # as the paper
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, maps: Sequence[Tensor]) -> list[AnchorScores]:
        return [self._scores(level) for level in maps]

    def _scores(self, x: Tensor) -> AnchorScores:
        """The scores of one map's anchors, row by row, pixel by pixel, cell by cell, float32 or more."""
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        objectness = self.objectness(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.deltas(x).unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        if objectness.dtype.itemsize < 4:  # half a pixel of a box at 1000 needs more than 8 bits
            return AnchorScores(objectness.float(), deltas.float())
        return AnchorScores(objectness, deltas)


def propose_regions(
    scores: Sequence[AnchorScores],
    anchors: Sequence[Tensor],
    sides: Sequence[tuple[int, int]],
    *,
    candidates: int,
    count: int,
) -> list[Tensor]:
    """Up to `count` boxes (m, 4) for each image, the surest first; exactly so many while the network is traced.

    Of each map of a pyramid, with anchors (n, 4), the `candidates` it is surest of are moved, cut off at the sides (H, W) of
    their image, and freed of those that overlap surer ones. No gradient flows.
    """
    chosen: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for (objectness, deltas), level in zip(scores, anchors, strict=True):
            sure, index = objectness.topk(min(candidates, objectness.shape[1]))
            moves = deltas.gather(1, index[..., None].expand(-1, -1, 4))
            chosen.append((sure, decode_boxes(moves, level[index], WEIGHTS)))
        sure = torch.cat([each for each, _ in chosen], dim=1)
        boxes = torch.cat([each for _, each in chosen], dim=1)  # (B, up to candidates x maps, 4)
        levels = torch.cat([torch.full_like(each[0], number) for number, (each, _) in enumerate(chosen)]).long()
        return [_proposals(*each, levels, count) for each in zip(boxes, sure, sides, strict=True)]


def _proposals(boxes: Tensor, sure: Tensor, sides: tuple[int, int], levels: Tensor, count: int) -> Tensor:
    """The proposals (m, 4) of one image of the boxes (n, 4) that were found on some levels (n,)."""
    boxes = clip_boxes(boxes, sides)
    index = where((boxes[:, 2:] - boxes[:, :2]).amin(1) >= SMALLEST_SIDE)
    boxes = boxes[index]
    kept = suppress(boxes, sure[index], levels[index], overlap=OVERLAP, count=count)
    return padded(boxes[kept], count) if torch.jit.is_tracing() else boxes[kept]


def proposal_losses(
    scores: Sequence[AnchorScores],
    anchors: Sequence[Tensor],
    truth: Sequence[ObjectTruth],
    generator: torch.Generator | None,
    *,
    count: int,
    beta: float,
    divides_by_count: bool,
) -> dict[str, Tensor]:
    """How far a head is from the boxes (N, 4) of the objects of each image: `objectness` and `proposals`, scalars.

    Anchors in void are left out.

    `count` anchors of an image are looked at, half of them with an object where there are as many: is there one (binary
    cross-entropy), and where (smooth L1, which is linear from `beta` on). Both are divided by the number of anchors looked at,
    or, with `divides_by_count`, by that which was asked for.
    """
    objectness = torch.cat([each.objectness for each in scores], dim=1)  # (B, all anchors)
    deltas = torch.cat([each.deltas for each in scores], dim=1)
    places = torch.cat(list(anchors))
    logits, labels, moves, wanted = [], [], [], []
    for image, (objects, _, planes) in enumerate(truth):
        boxes = objects.to(places)
        matches = match_boxes(places, boxes, low=NEGATIVE, high=POSITIVE, keeps_best=True)
        matches = unclear_in_void(matches, places, planes)
        positives, negatives = sample_boxes(matches, count, POSITIVE_SHARE, generator)
        logits.append(objectness[image][torch.cat([positives, negatives])])
        labels.append(
            torch.cat([torch.ones_like(logits[-1][: len(positives)]), torch.zeros_like(logits[-1][len(positives) :])])
        )
        moves.append(deltas[image, positives])
        wanted.append(encode_boxes(boxes[matches[positives]], places[positives], WEIGHTS))
    looked_at = torch.cat(logits)
    total = count * len(truth) if divides_by_count else max(len(looked_at), 1)
    return {
        "objectness": F.binary_cross_entropy_with_logits(looked_at, torch.cat(labels), reduction="sum") / total,
        "proposals": F.smooth_l1_loss(torch.cat(moves), torch.cat(wanted), beta=beta, reduction="sum") / total,
    }
