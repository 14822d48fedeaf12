"""Soft counts for overlap losses, of the softmax or, where regions overlap, of sigmoids. Axes: B batch, K classes, *S spatial
axes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from segwright.core.errors import SettingError
from segwright.losses import are_regions
from segwright.losses._softmax import SoftCounts, across, as_planes, computed_in, gradient_over, shared_softmax, slices


def soft_counts(logits: Tensor, target: Tensor) -> SoftCounts:
    """Counts (B, K) of logits (B, K, *S) and class maps int64 (B, *S), or regions (B, K, *S) of 1, 0 and VOID.

    Raises:
        ShapeError: the two do not belong together.
    """
    if are_regions(logits, target):
        return SoftCounts(*_Sigmoid.apply(logits, target))
    return shared_softmax(logits, target, counts=True).counts


def check_smooth(smooth: float) -> None:
    """Nothing, where `smooth` keeps 0 / 0 from occurring.

    Raises:
        SettingError: it does not.
    """
    if not smooth > 0:
        raise SettingError(f"smooth is {smooth}; give a number above 0, such as 1e-5, for classes that are absent")


class _Sigmoid(Function):
    """Logits and regions (B, K, *S) to overlap, predicted and true (B, K)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
        dtype = computed_in(logits)
        probs = torch.empty_like(logits, dtype=dtype)  # 0 where the target is void
        overlap, predicted, true = (torch.zeros(logits.shape[:2], dtype=dtype, device=logits.device) for _ in range(3))
        for part in slices(logits):
            truth = as_planes(target[part], dtype)  # (K, R, ...)
            p = as_planes(logits[part], dtype).sigmoid().mul_(truth >= 0)
            truth = truth.clamp(min=0)
            probs[part] = p
            overlap[part[0]] += (p * truth).flatten(1).sum(dim=1)
            predicted[part[0]] += p.flatten(1).sum(dim=1)
            true[part[0]] += truth.flatten(1).sum(dim=1)
        ctx.save_for_backward(probs, target)
        ctx.dtype = logits.dtype
        ctx.mark_non_differentiable(true)
        return overlap, predicted, true

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        probs, target = ctx.saved_tensors
        of_overlap, of_predicted, _ = gradients
        gradient = gradient_over(probs, ctx.dtype)
        for part in slices(probs):
            p, truth = as_planes(probs[part], probs.dtype), as_planes(target[part], probs.dtype).clamp(min=0)
            found = truth.mul_(across(of_overlap[part[0]], p)).add_(across(of_predicted[part[0]], p))
            gradient[part] = found.mul_(p).mul_(1 - p)
        return gradient, None
