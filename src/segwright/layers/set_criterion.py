"""What networks of queries learn from: the set criterion on points of Mask2Former (Cheng et al. 2021, arXiv 2112.01527).

The answers of every layer are paired with the segments of their image (`matching.py`). A query of a pair learns the class of
its segment, each other query that it has none; and the masks of pairs are compared at points, by binary cross-entropy and Dice.
Costs of pairs are the same three, on points drawn evenly. Three quarters of the points of a loss lie where the mask is least
certain (PointRend, arXiv 1912.08193).

As the authors do, masks count by the number of all segments of a step, averaged over processes; and padding, which lies beyond
the planes of a truth, is no segment. What is different here: all layers of a step are paired on the same points; a point
beside a void pixel counts nothing; segments are read from planes at the points alone, so no masks (N, H, W) exist; all is
computed in single precision or wider, whatever the network runs in, and means are taken before matrix products.

The authors' code is MIT. Nothing of it is used here.

Axes: L layers, B images, Q queries, E channels, K classes, N segments of an image, M pairs of a layer, P points, h, w sides of
the masks.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from segwright.layers.matching import QueryMatches, class_costs, match_queries
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.point_sampling import sample_at_points, uncertain_points
from segwright.layers.query_masks import QueryMasks
from segwright.layers.truth_at_points import all_segments_at_points, in_planes, own_segments_at_points

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 2.0, 5.0, 5.0  # of the terms, in the cost of a pair and in the loss; the authors'
NO_OBJECT_WEIGHT = 0.1  # of a query without a segment beside one with, in the class term; most have none
SMOOTH = 1.0  # added above and below the fraction of Dice, so that an empty mask of an empty segment is right


class QueryProducts(NamedTuple):
    """The answers of all layers, where masks are products of queries and the features of pixels.

    `class_logits` (L, B, Q, K + 1), `queries` (L, B, Q, E), `features` (B, E, h, w). Masks that no loss looks at are then never
    made: queries without a segment are asked at points alone, for what they would have cost.
    """

    class_logits: Tensor
    queries: Tensor
    features: Tensor


Answers = Sequence[QueryMasks] | QueryProducts  # of all layers


def set_losses(
    answers: Answers,
    truth: Sequence[ObjectTruth],
    sides: tuple[int, int],
    *,
    points: int,
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    """The terms "classes", "masks" and "dice" of the loss, each summed over layers of answers and weighted; scalars.

    `sides` are height and width of the images of the batch in pixels, which the masks cover. Points are drawn from the
    generator, by default torch's own. An image without segments gives a class term alone; the others are then 0.
    """
    with torch.no_grad():
        matches = match_queries(point_costs(answers, truth, sides, points=points, generator=generator))
    class_logits = _class_logits(answers)
    terms = {"classes": CLASS_WEIGHT * class_loss(class_logits, matches, truth)}
    count = segments_per_process(truth)
    counts = [min(len(each.class_ids), class_logits[0].shape[1]) for each in truth]  # pairs of each image
    masks, dice = zip(
        *(
            _mask_losses(logits, segments.split(counts), truth, sides, points, generator)
            for logits, segments in zip(_masks_of_pairs(answers, matches, counts), matches.segments, strict=True)
        ),
        strict=True,
    )
    return terms | {"masks": MASK_WEIGHT * sum(masks) / count, "dice": DICE_WEIGHT * sum(dice) / count}


def class_loss(class_logits: Sequence[Tensor], matches: QueryMatches, truth: Sequence[ObjectTruth]) -> Tensor:
    """Cross-entropy of the classes of all queries (B, Q, K + 1) of each layer, a weighted mean, summed over layers: a scalar.

    A query in no pair ought to say the last class, that of no segment; it counts `NO_OBJECT_WEIGHT`.
    """
    logits = torch.stack([*class_logits])  # (L, B, Q, K + 1)
    nothing = logits.shape[-1] - 1
    starts = torch.tensor([0, *(len(each.class_ids) for each in truth)], device=logits.device).cumsum(0)  # of images, in a row
    class_ids = torch.cat([each.class_ids for each in truth])[starts[matches.images] + matches.segments]  # (L, M)
    wanted = torch.full(logits.shape[:-1], nothing, device=logits.device)
    layer = torch.arange(len(logits), device=logits.device)[:, None]
    wanted[layer, matches.images, matches.queries] = class_ids
    wide = torch.promote_types(logits.dtype, torch.float32)
    weights = torch.ones(nothing + 1, dtype=wide, device=logits.device)
    weights[-1] = NO_OBJECT_WEIGHT
    mean = F.cross_entropy(logits.flatten(0, -2).to(wide), wanted.flatten(), weights)
    return len(logits) * mean  # layers weigh the same, for each has as many pairs


def segments_per_process(truth: Sequence[ObjectTruth]) -> Tensor:
    """The number of segments of a step, averaged over the processes that share it, 1 at least: what mask terms divide by.

    With it, the mean gradient of all processes is that of one process which sees all images.
    """
    count = torch.tensor(float(sum(len(each.class_ids) for each in truth)), device=truth[0].planes.device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(count)
        count = count / dist.get_world_size()
    return count.clamp(min=1)


def point_costs(
    answers: Answers,
    truth: Sequence[ObjectTruth],
    sides: tuple[int, int],
    *,
    points: int,
    generator: torch.Generator | None,
) -> list[Tensor]:
    """What each pair of a query and a segment would cost, (L, Q, N) for each image, on as many points drawn evenly."""
    like = _mask_source(answers)
    wide = torch.promote_types(like.dtype, torch.float32)
    device = like.device if generator is None else generator.device
    drawn = torch.rand(len(truth), points, 2, dtype=wide, device=device, generator=generator).to(like.device)
    class_logits, costs = _class_logits(answers), []
    with torch.autocast(like.device.type, enabled=False):  # sums over thousands of points
        for image, (each, place) in enumerate(zip(truth, drawn, strict=True)):
            wanted, is_known = all_segments_at_points(each, in_planes(place, each, sides))  # (N, P) and (P,)
            layers = zip(class_logits, _masks_at_points(answers, image, place), strict=True)
            costs.append(
                torch.stack(
                    [
                        CLASS_WEIGHT * class_costs(logits[image], each.class_ids) + _mask_costs(masks, wanted, is_known)
                        for logits, masks in layers
                    ]
                )
            )
    return costs


def _mask_costs(logits: Tensor, wanted: Tensor, is_known: Tensor) -> Tensor:
    """The costs (Q, N) of masks with logits (Q, P) at points where segments are `wanted` (N, P), if anything is known there."""
    share = is_known.to(logits) / is_known.sum().clamp(min=1)  # (P,): sums are means, which no precision overflows
    of_wanted = (wanted * share).T  # (P, N)
    probs = logits.sigmoid()
    masks = (F.softplus(logits) @ share)[:, None] - logits @ of_wanted  # cross-entropy is softplus(x) - x t
    overlap = 2 * (probs @ of_wanted)
    smooth = SMOOTH / is_known.sum().clamp(min=1)
    dice = 1 - (overlap + smooth) / ((probs @ share)[:, None] + of_wanted.sum(0) + smooth)
    return MASK_WEIGHT * masks + DICE_WEIGHT * dice


def _mask_source(answers: Answers) -> Tensor:
    """What masks are made of."""
    return answers.features if isinstance(answers, QueryProducts) else answers[0].mask_logits


def _class_logits(answers: Answers) -> Sequence[Tensor]:
    """Those (B, Q, K + 1) of each layer."""
    return answers.class_logits.unbind() if isinstance(answers, QueryProducts) else [each.class_logits for each in answers]


def _masks_at_points(answers: Answers, image: int, place: Tensor) -> Iterator[Tensor]:
    """The logits (Q, P) of the masks of an image at points (P, 2), of each layer."""
    if isinstance(answers, QueryProducts):
        features = sample_at_points(answers.features[image][None].to(place.dtype), place[None])[0]  # (E, P)
        yield from (queries.to(place.dtype) @ features for queries in answers.queries[:, image])
    else:
        for layer in answers:
            yield sample_at_points(layer.mask_logits[image][None].to(place.dtype), place[None])[0]


def _masks_of_pairs(answers: Answers, matches: QueryMatches, counts: list[int]) -> Iterator[Tensor]:
    """The logits (M, 1, h, w) of the masks of the pairs of each layer, in single precision or wider.

    `counts` are those of each image; they sum up to M.
    """
    wide = torch.promote_types(_mask_source(answers).dtype, torch.float32)
    if isinstance(answers, QueryProducts):
        features = answers.features.to(wide)
        for queries, index in zip(answers.queries.to(wide), matches.queries, strict=True):
            each_image = zip(queries, index.split(counts), features.flatten(2), strict=True)
            with torch.autocast(features.device.type, enabled=False):
                masks = [known[taken] @ pixels for known, taken, pixels in each_image]
            yield torch.cat(masks).unflatten(1, (1, *features.shape[2:]))
    else:
        for layer, images, index in zip(answers, matches.images, matches.queries, strict=True):
            yield layer.mask_logits[images, index][:, None].to(wide)


def _mask_losses(
    logits: Tensor,
    segments: Sequence[Tensor],
    truth: Sequence[ObjectTruth],
    sides: tuple[int, int],
    points: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and Dice of the masks (M, 1, h, w) of the pairs of one layer, summed over pairs: scalars.

    `segments` are those of each image, as many as it has pairs.
    """
    if not len(logits):
        return logits.sum(), logits.sum()  # 0, with gradients
    with torch.autocast(logits.device.type, enabled=False):
        with torch.no_grad():
            place = uncertain_points(logits, _uncertainty, points, generator)  # (M, P, 2)
            parts = zip(truth, segments, place.split([len(each) for each in segments]), strict=True)
            looked_up = [own_segments_at_points(each, index, in_planes(at, each, sides)) for each, index, at in parts]
            wanted, is_known = (torch.cat(part) for part in zip(*looked_up, strict=True))  # (M, P) each
        logits = sample_at_points(logits, place)[:, 0]  # (M, P)
        each_point = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * is_known
        masks = (each_point.sum(1) / is_known.sum(1).clamp(min=1)).sum()
        probs = logits.sigmoid() * is_known
        dice = 1 - (2 * (probs * wanted).sum(1) + SMOOTH) / (probs.sum(1) + wanted.sum(1) + SMOOTH)
        return masks, dice.sum()


def _uncertainty(logits: Tensor) -> Tensor:
    """How near to one half masks (M, 1, P) are, 0 at most: (M, P)."""
    return -logits[:, 0].abs()
