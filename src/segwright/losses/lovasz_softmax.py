"""Lovász-Softmax: the Jaccard index of each class as a convex cost. Axes: B batch, K classes, *S spatial axes, M pixels.

With the pixels of a class in falling order of their errors, each costs its error times what it takes away from the Jaccard
index if it is wrong beside those before it. That extends the index from sets of wrong pixels to errors between 0 and 1.

Source: Berman et al. 2018, arXiv 1705.08790. Values and gradients are those of segmentation_models.pytorch, which computes in
float32 alone; an error shared by several pixels, where any order is right, may be shared out among them in another way.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from segwright.core import VOID
from segwright.losses import check_shapes
from segwright.losses.softmax_slopes import of_softmax


@dataclass(frozen=True, kw_only=True)
class LovaszSoftmax:
    """Mean of the Lovász extension of 1 - Jaccard over the classes that the truth holds; void pixels are left out.

    A class counts once for all pixels of the batch, or with `per_image` once for each sample that holds it; the samples are
    then averaged, and one that is all void costs 0.
    """

    per_image: bool = False

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        check_shapes(logits, target)
        return of_softmax(logits, partial(self._cost, target))

    def _cost(self, target: Tensor, probs: Tensor, slopes: Tensor | None) -> Tensor:
        """The loss for probs (B, K, *S); its slopes are written into `slopes`."""
        groups = target.split(1 if self.per_image else len(target))
        sizes = [len(group) for group in groups]
        parts = [None] * len(groups) if slopes is None else slopes.split(sizes)
        values = [_of_group(*group) for group in zip(groups, probs.split(sizes), parts, strict=True)]
        if slopes is not None and len(groups) > 1:
            slopes.div_(len(groups))
        return torch.stack(values).mean()


def _of_group(target: Tensor, probs: Tensor, slopes: Tensor | None) -> Tensor:
    """The mean over the classes in class maps (B, *S), as one set of pixels, for probs (B, K, *S); 0 where there is none."""
    known = target != VOID
    sizes = torch.bincount((target + 1).flatten(), minlength=probs.shape[1] + 1)[1:].tolist()  # pixels of each class
    present = [k for k, size in enumerate(sizes) if size]
    value = probs.new_zeros(())
    for k in present:
        is_class = target == k
        errors = torch.where(is_class, 1 - probs[:, k], probs[:, k])  # (B, *S)
        # A pixel of another class costs nothing once all pixels of this one are wrong before it: such need no sorting.
        least = torch.where(is_class, errors, torch.inf).min()
        where = (is_class | (known & (errors > least))).flatten().nonzero()[:, 0]  # (M,)
        ordered, order = errors.flatten()[where].sort(descending=True)
        where = where[order]
        is_hit = is_class.flatten()[where]
        steps = _steps(is_hit, sizes[k], ordered.dtype)
        value += torch.dot(ordered, steps) / len(present)
        if slopes is not None:
            flat = torch.zeros_like(errors).flatten()
            flat[where] = torch.where(is_hit, -steps, steps) / len(present)
            slopes[:, k] = flat.view_as(errors)
    return value


def _steps(is_hit: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """What each wrong pixel takes away from the Jaccard index, in this order (M,): `is_hit` are those of the class.

    With h pixels of the class and m others wrong, the index is (size - h) / (size + m). The difference of two such is
    written as one quotient, which keeps its digits however large the sets are.
    """
    hits = is_hit.cumsum(0)  # int64: float32 cannot count the pixels of a large volume
    union = torch.arange(1, len(hits) + 1, device=hits.device) - hits + size
    left = (size - hits).to(dtype) / (union - 1).to(dtype)
    return torch.where(is_hit, 1, left) / union.to(dtype)
