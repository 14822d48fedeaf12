"""What YOLACT learns from (arXiv 1904.02689, sections 3 and 5): the terms of its loss, image by image.

Each prior is of an object, of the background, or of nothing that counts; those of objects learn class, box and coefficients,
and of the background the hardest ones learn that they are (SSD, arXiv 1512.02325). All terms but the semantic one are divided
by the number of priors with an object.

Where the authors' own differ: an image without objects still has 3 hard priors of background, theirs none; a box counts as one
cell of the prototypes at least, since the mask of a smaller one would outweigh all others; a pixel between two objects of one
class is of this class in the semantic term; pixels that nobody knows teach nothing, where theirs lie in boxes of crowds.

Axes: B batch, N priors, K classes, Q prototypes, O objects of an image, P planes, H, W sides of the image, h, w of a map.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou

from segwright.core.segmentation import VOID
from segwright.layers.box_coding import encode_boxes
from segwright.layers.object_truth import ObjectTruth

NEUTRAL, BACKGROUND = -1, 0  # classes of priors; k + 1 is that of objects of class k
IS_OBJECT, IS_BACKGROUND = 0.5, 0.4  # overlap of a prior with an object from which, and below which, it is so
UNKNOWN = 0.7  # share of a prior in pixels that nobody knows above which it does not count as background
NEGATIVES = 3  # hard priors of the background for each of an object
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas of boxes: SSD's variances of 0.1 and 0.2
BOX_WEIGHT, MASK_WEIGHT, RESCORE_WEIGHT = 1.5, 6.125, 25.0  # beside 1 of the classes and of the semantic term
HALF = 0.5  # of a cell, or of what is sure
LEAST_AREA = 25  # cells of the prototypes that a mask has before its overlap is learned
AT_ONCE = 64  # objects whose overlaps with all priors are taken together: 20 000 priors take 50 MB then


class PriorPredictions(NamedTuple):
    """What YOLACT's heads say of each prior, and the prototypes.

    `deltas` (B, N, 4), times BOX_WEIGHTS, `logits` (B, N, K + 1) with the background first, `coefficients` (B, N, Q) from -1 to
    1, `prototypes` (B, Q, h, w) from 0 up, and `priors` (N, 4), (x1, y1, x2, y2) in pixels.
    """

    deltas: Tensor
    logits: Tensor
    coefficients: Tensor
    prototypes: Tensor
    priors: Tensor


class Matched(NamedTuple):
    """The class of each prior, int64 (N,), NEUTRAL, BACKGROUND or k + 1, and the object that it is of, int64 (N,)."""

    classes: Tensor
    objects: Tensor


@torch.no_grad()
def match_priors(priors: Tensor, truth: ObjectTruth) -> Matched:
    """The objects of one image that priors (N, 4), (x1, y1, x2, y2), stand for.

    Each is that of its object of most overlap, if that is enough; and each object has the prior that it overlaps most, the
    object with the most overlap choosing first.
    """
    classes, objects = (torch.zeros(len(priors), dtype=torch.int64, device=priors.device) for _ in range(2))
    if len(truth.boxes):
        parts = truth.boxes.to(priors.dtype).split(AT_ONCE)
        overlaps = torch.cat([box_iou(part, priors) for part in parts])  # (O, N)
        most, objects = overlaps.max(0)
        for number, prior in _best_priors(overlaps):
            most[prior], objects[prior] = 2.0, number  # above any overlap
        classes = truth.class_ids[objects] + 1
        classes[most < IS_OBJECT] = NEUTRAL
        classes[most < IS_BACKGROUND] = BACKGROUND
    classes[(classes == BACKGROUND) & (_unknown_share(priors, truth.planes) > UNKNOWN)] = NEUTRAL
    return Matched(classes, objects)


def _best_priors(overlaps: Tensor) -> list[tuple[int, int]]:
    """A prior for each object, of overlaps (O, N); no prior serves two. One that none is left for has none."""
    best, priors = overlaps.max(1)
    waiting = [
        (-value, number, prior) for number, (value, prior) in enumerate(zip(best.tolist(), priors.tolist(), strict=True))
    ]
    heapify(waiting)
    taken: dict[int, int] = {}
    while waiting and len(taken) < overlaps.shape[1]:
        _, number, prior = heappop(waiting)
        if prior in taken:  # its next best, which waits for its turn
            rest = overlaps[number].clone()
            rest[list(taken)] = -1.0
            value, next_best = rest.max(0)
            heappush(waiting, (-value.item(), number, int(next_best)))
        else:
            taken[prior] = number
    return [(number, prior) for prior, number in taken.items()]


def _unknown_share(boxes: Tensor, planes: Tensor) -> Tensor:
    """The share of each box (N, 4), by its whole pixels inside the image, that is void in planes (P, H, W), (N,)."""
    height, width = planes.shape[1:]
    is_void = (planes == VOID).any(0)
    if not is_void.any():
        return boxes.new_zeros(len(boxes))
    sums = F.pad(is_void.to(torch.float64).cumsum(0).cumsum(1), (1, 0, 1, 0))  # of all pixels above and left
    x1, x2 = (boxes[:, axis].round().long().clamp(0, width) for axis in (0, 2))
    y1, y2 = (boxes[:, axis].round().long().clamp(0, height) for axis in (1, 3))
    inside = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return (inside / ((x2 - x1) * (y2 - y1)).clamp(min=1)).to(boxes.dtype)


@torch.no_grad()
def _sampled(planes: Tensor, ids: Tensor, sides: tuple[int, int]) -> Tensor:
    """How much of each map's cell the marks `ids` (O,) have in planes (P, H, W), 0 to 1, float32 (O, h, w).

    It is what bilinear interpolation of the masks would give, which never exist.
    """
    rows, columns = (_neighbours(*each, planes.device) for each in zip(planes.shape[1:], sides, strict=True))
    found = torch.zeros(len(ids), *sides, device=planes.device)
    for row, share_y in rows:
        for column, share_x in columns:
            corner = planes[:, row][:, :, column]  # (P, h, w)
            for plane in corner:
                found += (plane == ids[:, None, None]) * (share_y[:, None] * share_x)
    return found


def _neighbours(side: int, cells: int, device: torch.device) -> tuple[tuple[Tensor, Tensor], ...]:
    """The two pixels around the centre of each cell of an axis, and the share of each: int64 and float32 (cells,)."""
    centres = ((torch.arange(cells, device=device) + 0.5) * (side / cells) - 0.5).clamp(min=0)
    first = centres.long()
    share = centres - first
    return (first, 1 - share), ((first + 1).clamp(max=side - 1), share)


def yolact_losses(
    found: PriorPredictions,
    semantic: Tensor,
    truths: Sequence[ObjectTruth],
    *,
    masks_to_train: int,
    rescore: nn.Module | None,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """The terms "class", "box", "mask" and "semantic", and "mask_overlap" where masks are rescored.

    `semantic` are logits (B, K, h, w). Of an image with more than `masks_to_train` priors with an object, as many learn masks,
    drawn from `generator`. Where nothing pulls, a term is 0, and so are the gradients of what it is made of.
    """
    matches = [match_priors(found.priors, truth) for truth in truths]
    count = sum(int((each.classes > 0).sum()) for each in matches)
    terms = {
        "class": _class_loss(found.logits, torch.stack([each.classes for each in matches])),
        "box": BOX_WEIGHT * _box_loss(found, truths, matches),
    }
    pairs = zip(truths, matches, strict=True)
    masks = [_mask_loss(found, number, *pair, masks_to_train, generator) for number, pair in enumerate(pairs)]
    terms["mask"] = MASK_WEIGHT * torch.stack([loss for loss, _ in masks]).sum()
    if rescore is not None:
        terms["mask_overlap"] = RESCORE_WEIGHT * _rescore_loss(rescore, [given for _, given in masks])
    terms = {name: term / max(count, 1) for name, term in terms.items()}
    return terms | {"semantic": _semantic_loss(semantic, truths)}


def _class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of logits (B, N, K + 1) with classes (B, N): of all priors with objects, and of the hardest without."""
    logits = logits.float()
    with torch.no_grad():
        hardness = logits.logsumexp(2) - logits[..., 0]
        hardness = hardness.masked_fill(classes != BACKGROUND, -1.0)  # below that of any prior of the background
        chosen = classes > 0
        for number, positives in enumerate(chosen.sum(1).tolist()):
            most = min(NEGATIVES * max(positives, 1), classes.shape[1] - 1)
            hardest = hardness[number].topk(most).indices
            chosen[number, hardest] = True
        chosen &= classes != NEUTRAL
    return F.cross_entropy(logits[chosen], classes[chosen], reduction="sum")


def _box_loss(found: PriorPredictions, truths: Sequence[ObjectTruth], matches: Sequence[Matched]) -> Tensor:
    """Smooth L1 of the deltas of the priors with objects."""
    loss = found.deltas[:, :0].float().sum()
    for deltas, truth, (classes, objects) in zip(found.deltas, truths, matches, strict=True):
        is_object = classes > 0
        wanted = encode_boxes(truth.boxes[objects[is_object]].float(), found.priors[is_object].float(), BOX_WEIGHTS)
        loss = loss + F.smooth_l1_loss(deltas[is_object].float(), wanted, reduction="sum")
    return loss


class _Masks(NamedTuple):
    """Logits, truth and what is inside the true boxes, all (n, h, w), of masks that learn, and their class, int64 (n,)."""

    logits: Tensor
    targets: Tensor
    inside: Tensor
    class_ids: Tensor


def _mask_loss(
    found: PriorPredictions,
    number: int,
    truth: ObjectTruth,
    match: Matched,
    masks_to_train: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, _Masks]:
    """Binary cross-entropy inside the true boxes, over their areas, of the masks of image `number`; and these masks."""
    prototypes, sides = found.prototypes[number], (found.prototypes.shape[2], found.prototypes.shape[3])
    (priors,) = torch.where(match.classes > 0)
    share = 1.0
    if len(priors) > masks_to_train:
        share = len(priors) / masks_to_train
        order = torch.randperm(len(priors), generator=generator, device=generator.device if generator else "cpu")
        priors = priors[order[:masks_to_train].to(priors.device)]
    objects, place = match.objects[priors].unique(return_inverse=True)
    targets = (_sampled(truth.planes, objects + 1, sides) > HALF)[place]  # (n, h, w)
    is_unknown = _sampled(truth.planes, objects.new_full((1,), VOID), sides) > HALF
    scale = found.priors.new_tensor([sides[1] / truth.planes.shape[2], sides[0] / truth.planes.shape[1]] * 2)
    boxes = truth.boxes[match.objects[priors]] * scale  # in cells
    inside = crop_mask(boxes, sides)
    logits = torch.einsum("nq,qhw->nhw", found.coefficients[number, priors], prototypes).float()
    losses = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none")
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1).prod(1)
    loss = share * ((losses * (inside & (~is_unknown | targets))).sum((1, 2)) / areas).sum()
    loss = loss + prototypes[:, :0].sum() + found.coefficients[number, :0].sum()  # reached by gradients even without objects
    return loss, _Masks(logits, targets, inside, match.classes[priors] - 1)


def crop_mask(boxes: Tensor, sides: tuple[int, int]) -> Tensor:
    """Whether each cell of a map is inside boxes (..., 4) that are given in cells, bool (..., h, w).

    Inside is, as in the authors' files, what begins less than a cell before a box or ends less than two behind it.
    """
    columns, rows = (torch.arange(side, device=boxes.device) for side in sides[::-1])
    x1, y1, x2, y2 = boxes[..., None].unbind(-2)  # (..., 1)
    is_column, is_row = ((each >= low - 1) & (each < high + 1) for each, low, high in ((columns, x1, x2), (rows, y1, y2)))
    return is_row[..., :, None] & is_column[..., None, :]


def _rescore_loss(rescore: nn.Module, given: Sequence[_Masks]) -> Tensor:
    """Smooth L1 between the overlaps with the truth that the network expects of masks, by their class, and those they have."""
    logits, targets, inside, class_ids = (torch.cat(each) for each in zip(*given, strict=True))
    is_large = targets.sum((1, 2)) > LEAST_AREA
    if not is_large.any():
        return 0 * rescore(logits.new_zeros(1, 1, *logits.shape[1:])).sum()
    masks, targets = logits[is_large].sigmoid() * inside[is_large], targets[is_large]
    said = masks > HALF
    overlaps = (said & targets).sum((1, 2)) / (said | targets).sum((1, 2))
    expected = rescore(masks[:, None]).float().gather(1, class_ids[is_large, None])[:, 0]
    return F.smooth_l1_loss(expected, overlaps, reduction="sum")


def _semantic_loss(logits: Tensor, truths: Sequence[ObjectTruth]) -> Tensor:
    """Binary cross-entropy of logits (B, K, h, w) with the classes' pixels, summed over classes, averaged over the rest."""
    sides = (logits.shape[2], logits.shape[3])
    targets = torch.zeros_like(logits, dtype=torch.float32)
    is_known = torch.ones_like(targets[:, :1])
    for number, truth in enumerate(truths):
        numbers = torch.cat([truth.class_ids.new_tensor([VOID, 0]), truth.class_ids + 1])  # of void, nothing, the objects
        planes = numbers[truth.planes.long() + 1]
        present = truth.class_ids.unique()
        targets[number, present] = (_sampled(planes, present + 1, sides) > HALF).float()
        is_void = _sampled(planes, planes.new_full((1,), VOID), sides) > HALF
        is_known[number] = (~is_void | targets[number].any(0)).float()
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none") * is_known
    return losses.sum() / (len(truths) * sides[0] * sides[1])
