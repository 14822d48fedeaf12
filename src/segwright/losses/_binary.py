"""Losses of sigmoids, one for each pixel and class, with a backward that is computed beside the value. Axes: B batch, K
classes, *S spatial axes.

A logit x counts by its margin z, which is x where the class is there and -x where it is not. The gradient is found in the
same pass as the value, slice by slice in a core's cache, and is all that is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from segwright.core import VOID
from segwright.losses import are_regions
from segwright.losses._softmax import across, as_planes, computed_in, gradient_over, known_and_index, slices

Curve = Callable[[Tensor], tuple[Tensor, Tensor]]  # margins to what they cost, and to the slope of that


@dataclass(frozen=True)
class MarginCost:
    """What a margin z costs: weight * curve(z) + slant * z, each (K,), for classes that are there and others that are not."""

    curve: Curve
    present: Tensor
    absent: Tensor
    present_slant: Tensor | None = None
    absent_slant: Tensor | None = None

    def of(self, margin: Tensor, weight: Tensor, slant: Tensor | None) -> tuple[Tensor, Tensor]:
        """Costs of margins, and the slopes of the costs; weights and slants are broadcast."""
        cost, slope = self.curve(margin)
        cost, slope = cost.mul_(weight), slope.mul_(weight)
        return (cost, slope) if slant is None else (cost.add_(margin * slant), slope.add_(slant))


def mean_margin_cost(logits: Tensor, target: Tensor, cost: MarginCost) -> Tensor:
    """Mean over pixels and classes without the void ones, of logits (B, K, *S) and class maps (B, *S) or regions (B, K, *S).

    In a class map each pixel is of its class and of no other. Where all is void the mean is 0.

    Raises:
        ShapeError: the two do not belong together.
    """
    return _MeanCost.apply(logits, target, cost, are_regions(logits, target))


class _MeanCost(Function):
    """Logits (B, K, *S) and a class map (B, *S), or regions (B, K, *S), to a scalar."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, cost: MarginCost, has_regions: bool) -> Tensor:
        dtype = computed_in(logits)
        known = (target != VOID).sum() * (1 if has_regions else logits.shape[1])
        number = torch.where(known > 0, known, 1).to(dtype)
        # undivided: half precision has no numbers so small
        slopes = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        total = torch.zeros((), dtype=dtype, device=logits.device)
        for part in slices(logits):
            x = as_planes(logits[part], dtype)  # (K, R, ...)
            if has_regions:
                value, slope = _of_regions(x, as_planes(target[part], dtype), cost)
            else:
                value, slope = _of_class_map(x, target[part[0], part[2]], cost)
            total += value
            if slopes is not None:
                slopes[part] = slope
        if slopes is not None:
            ctx.save_for_backward(slopes, number)
        return total / number

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor) -> tuple[Tensor | None, ...]:
        slopes, number = ctx.saved_tensors
        gradient = gradient_over(slopes, slopes.dtype)
        for part in slices(slopes):
            gradient[part] = slopes[part] * (of_mean / number).to(number.dtype)
        return gradient, None, None, None


def _of_regions(x: Tensor, truth: Tensor, cost: MarginCost) -> tuple[Tensor, Tensor]:
    """Sum of the costs of logits (K, R, ...) for truths of 1, 0 and VOID, and the slope at each logit."""
    present, known = truth.clamp(min=0), truth >= 0
    sign = 2 * present - 1
    weight = torch.lerp(across(cost.absent, x), across(cost.present, x), present)
    slant = None
    if cost.absent_slant is not None and cost.present_slant is not None:
        slant = torch.lerp(across(cost.absent_slant, x), across(cost.present_slant, x), present)
    value, slope = cost.of(x * sign, weight, slant)
    return value.mul_(known).sum(), slope.mul_(sign).mul_(known)


def _of_class_map(x: Tensor, classes: Tensor, cost: MarginCost) -> tuple[Tensor, Tensor]:
    """Sum of the costs of logits (K, R, ...) for a class map (R, ...), and the slope at each logit.

    All classes are taken for absent first, then each pixel's own is set right: no one-hot truth is needed.
    """
    known, index = known_and_index(classes, x.dtype)
    x_own = x.gather(0, index[None])[0]  # (R, ...)
    absent_slant = None if cost.absent_slant is None else across(cost.absent_slant, x)
    value, slope = cost.of(-x, across(cost.absent, x), absent_slant)
    own = index.flatten()
    present = cost.present.index_select(0, own).view_as(index)
    slant = None if cost.present_slant is None else cost.present_slant.index_select(0, own).view_as(index)
    value_own, slope_own = cost.of(x_own, present, slant)
    value.scatter_(0, index[None], value_own[None])
    slope.neg_().scatter_(0, index[None], slope_own[None])
    if known is not None:
        value, slope = value.mul_(known), slope.mul_(known)
    return value.sum(), slope
