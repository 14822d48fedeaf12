"""Which query answers for which segment: one to one, at the least cost together (DETR, Carion et al. 2020, arXiv 2005.12872).

The Hungarian algorithm is scipy's and runs on the host. Costs of all layers and images come there in one copy, so that a GPU
waits once in a step.

Axes: L layers, B images, Q queries, N segments of an image, M pairs of a layer, K classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

WORST = (
    1e9  # what an infinite cost counts, or one that is not a number: beyond any real one, and small enough to add up exactly
)


class QueryMatches(NamedTuple):
    """Pairs of a query and a segment, int64 (L, M) each: which image, which of its queries, which of its segments.

    Pairs of a layer are in order of images, then of queries. An image has as many as the fewer of queries and segments.
    """

    images: Tensor
    queries: Tensor
    segments: Tensor


def match_queries(costs: Sequence[Tensor]) -> QueryMatches:
    """The pairs that cost least together, by the costs (L, Q, N) of each image.

    A cost that is infinite or not a number is taken only where nothing else is left, and breaks nothing: a network that
    diverges for a moment may recover.
    """
    shapes = [cost.shape for cost in costs]
    joined = torch.cat([cost.detach().float().flatten() for cost in costs])
    joined = joined.nan_to_num(nan=WORST, posinf=WORST, neginf=WORST).clamp(-WORST, WORST)
    on_host = joined.cpu().split([shape.numel() for shape in shapes])  # the only time that the host waits
    images, queries, segments = [], [], []
    for image, (part, shape) in enumerate(zip(on_host, shapes, strict=True)):
        pairs = [linear_sum_assignment(cost) for cost in part.view(shape).numpy()]
        count = min(shape[1:])
        images.append(torch.full((shape[0], count), image))
        queries.append(_stacked([query for query, _ in pairs], count))
        segments.append(_stacked([segment for _, segment in pairs], count))
    return QueryMatches(*(torch.cat(parts, dim=1).to(joined.device) for parts in (images, queries, segments)))


def _stacked(rows: list, count: int) -> Tensor:
    """Rows of `count` whole numbers each, of every layer, int64 (L, count)."""
    return torch.stack([torch.as_tensor(row, dtype=torch.int64) for row in rows]).view(len(rows), count)


def class_costs(class_logits: Tensor, class_ids: Tensor) -> Tensor:
    """How little queries with logits (*, Q, K + 1) expect the classes of segments (N,): (*, Q, N), from -1 to 0."""
    wide = torch.promote_types(class_logits.dtype, torch.float32)
    return -class_logits.to(wide).softmax(dim=-1)[..., class_ids]
