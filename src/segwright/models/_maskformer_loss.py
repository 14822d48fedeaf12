"""What MaskFormer learns from (arXiv 2107.06278, section 3): classes of queries, and focal and Dice losses of whole masks.

The answers of every layer are paired with the segments of their image (`matching.py`), by what class and mask would cost at the
size of the masks. A query of a pair learns the class of its segment, each other query that it has none; and the masks of pairs,
brought to the size of the image, are compared with all its pixels.

As the authors do, masks count by the number of all segments of a step, averaged over processes; and padding, which lies beyond
the planes of a truth, is no segment. What is different here: pixels that nobody knows teach nothing; masks of queries in no
pair are computed without gradients, and those of pairs a few at a time, so that no masks (M, H, W) exist; costs and losses are
computed in single precision or wider, whatever the network runs in.

Axes: L layers, B images, Q queries, K classes, N segments of an image, M pairs of all layers, E channels, P planes, H, W sides
of the image, h, w sides of the masks.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from segwright.layers.matching import class_costs, match_queries
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.set_criterion import class_loss, segments_per_process

MASK_WEIGHT, DICE_WEIGHT = 20.0, 1.0  # beside 1 of the classes, in the cost of a pair and in the loss; the authors'
SEGMENT_SHARE = 0.25  # what a pixel of the segment counts in the focal loss, and 1 less this one outside: RetinaNet's alpha
SMOOTH = 1.0  # added above and below the fraction of Dice, so that an empty mask of an empty segment is right
AT_ONCE = 1 << 21  # pixels of masks of pairs that are looked at together, 8 MB for each step of the computation


def maskformer_losses(
    class_logits: Tensor, embeddings: Tensor, pixels: Tensor, truth: Sequence[ObjectTruth], sides: tuple[int, int]
) -> dict[str, Tensor]:
    """The terms "classes", "masks" and "dice" of the loss, each summed over layers and weighted; scalars.

    `class_logits` (L, B, Q, K + 1) and `embeddings` (L, B, Q, E) are what each layer says of the queries; a mask is the product
    of an embedding and `pixels` (B, E, h, w). `sides` are height and width of the images in pixels, which the masks cover.
    """
    planes = [_to_sides(each.planes, sides) for each in truth]
    matches = match_queries(pair_costs(class_logits, embeddings, pixels, truth, planes))
    counts = [min(len(each.class_ids), class_logits.shape[2]) for each in truth]  # pairs of a layer
    pairs = zip(matches.queries.split(counts, dim=1), matches.segments.split(counts, dim=1), planes, strict=True)
    layer = torch.arange(len(embeddings), device=embeddings.device)[:, None]
    terms = []
    for image, (queries, segments, each) in enumerate(pairs):
        known = embeddings[layer, image, queries].flatten(0, 1)  # (M, E)
        terms.append(_mask_terms(_products(known, pixels[image]), segments.flatten(), each))
    focal, dice = (torch.cat(parts).sum() for parts in zip(*terms, strict=True))
    count = segments_per_process(truth)
    classes = class_loss([*class_logits], matches, truth)
    return {"classes": classes, "masks": MASK_WEIGHT * focal / count, "dice": DICE_WEIGHT * dice / count}


@torch.no_grad()
def pair_costs(
    class_logits: Tensor, embeddings: Tensor, pixels: Tensor, truth: Sequence[ObjectTruth], planes: Sequence[Tensor]
) -> list[Tensor]:
    """What each pair of a query and a segment would cost, (L, Q, N) for each image, by planes (P, H, W) of its size.

    Of the planes, the pixels are looked at that lie in the upper left corners of those of the masks.
    """
    costs, wide = [], torch.promote_types(pixels.dtype, torch.float32)
    with torch.autocast(pixels.device.type, enabled=False):  # sums over thousands of pixels
        for image, (each, whole) in enumerate(zip(truth, planes, strict=True)):
            marks = whole[:, *_nearest(whole.shape[1:], pixels.shape[2:], whole.device)].flatten(1)  # (P, h * w)
            wanted = torch.zeros(len(each.class_ids) + 1, marks.shape[1], dtype=wide, device=marks.device)
            wanted = wanted.scatter_(0, marks.clamp(min=0).long(), 1.0)[1:]  # (N, h * w); the first was nothing
            share = (marks >= 0).all(0).to(wide)
            logits = (_products(known, pixels[image]).flatten(1) for known in embeddings[:, image])
            masks = [_mask_costs(of_layer, wanted, share) for of_layer in logits]
            costs.append(class_costs(class_logits[:, image], each.class_ids) + torch.stack(masks))
    return costs


def _products(embeddings: Tensor, pixels: Tensor) -> Tensor:
    """The logits (M, h, w) of masks, of embeddings (M, E) and pixels (E, h, w)."""
    wide = torch.promote_types(pixels.dtype, torch.float32)
    with torch.autocast(pixels.device.type, enabled=False):
        return (embeddings.to(wide) @ pixels.to(wide).flatten(1)).unflatten(1, pixels.shape[1:])


def _mask_costs(logits: Tensor, wanted: Tensor, is_known: Tensor) -> Tensor:
    """What masks of pairs cost, (Q, N), by logits (Q, S) and segments (N, S) at S pixels, known or not (S,), all numbers."""
    count = is_known.sum().clamp(min=1)
    share = is_known / count  # sums are means, which no precision overflows
    of_wanted = (wanted * share).T  # (S, N)
    probs, outside = logits.sigmoid(), F.softplus(logits)  # the second is the cross-entropy outside a segment
    inside = (outside - logits) * (1 - probs).square() * SEGMENT_SHARE
    outside *= probs.square() * (1 - SEGMENT_SHARE)
    focal = (outside @ share)[:, None] + (inside - outside) @ of_wanted
    smooth = SMOOTH / count
    dice = 1 - (2 * probs @ of_wanted + smooth) / ((probs @ share)[:, None] + of_wanted.sum(0) + smooth)
    return MASK_WEIGHT * focal + DICE_WEIGHT * dice


def _mask_terms(logits: Tensor, segments: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
    """The focal and the Dice loss (M,) of masks (M, h, w) of one image that ought to be its `segments` (M,)."""
    if not len(logits):
        nothing = logits.sum((1, 2))  # with gradients
        return nothing, nothing
    count = max(1, AT_ONCE // planes[0].numel())
    is_known = (planes >= 0).all(0)
    parts = [
        checkpoint(_whole_masks, some, which, planes, is_known, use_reentrant=False, preserve_rng_state=False)
        for some, which in zip(logits.split(count), segments.split(count), strict=True)
    ]
    focal, dice = (torch.cat(part) for part in zip(*parts, strict=True))
    return focal, dice


def _whole_masks(logits: Tensor, segments: Tensor, planes: Tensor, is_known: Tensor) -> tuple[Tensor, Tensor]:
    """The focal and the Dice loss (m,) of a few masks (m, h, w) at all known pixels (H, W) of their image."""
    with torch.autocast(logits.device.type, enabled=False):
        wide = torch.promote_types(logits.dtype, torch.float32)
        logits = F.interpolate(logits[None].to(wide), size=planes.shape[1:], mode="bilinear", align_corners=False)[0].flatten(1)
        wanted = (planes == segments[:, None, None, None] + 1).any(1) & is_known
        wanted, share = wanted.flatten(1).to(wide), is_known.flatten().to(wide)
        probs = logits.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        sides = (1 - SEGMENT_SHARE) + (2 * SEGMENT_SHARE - 1) * wanted
        focal = (entropy * (probs - wanted).square() * sides) @ share / share.sum().clamp(min=1)
        dice = 1 - (2 * (probs * wanted).sum(1) + SMOOTH) / (probs @ share + wanted.sum(1) + SMOOTH)
        return focal, dice


def _to_sides(planes: Tensor, sides: tuple[int, int]) -> Tensor:
    """Planes (P, *, *) with nothing to the right and below, up to the sides of the image."""
    _, height, width = planes.shape
    return F.pad(planes, (0, sides[1] - width, 0, sides[0] - height))


def _nearest(sides: Sequence[int], wanted: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """The rows (h, 1) and columns (w,) of a map of some sides that one of the wanted sides has by torch's "nearest" rule."""
    rows, columns = (torch.arange(few, device=device) * many // few for many, few in zip(sides, wanted, strict=True))
    return rows[:, None], columns
