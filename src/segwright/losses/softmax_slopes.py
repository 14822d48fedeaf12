"""Losses that work out their own derivative by the softmax. Axes: B batch, K classes, *S spatial axes.

A loss that goes through the classes one after the other leaves a long trail for autograd, which keeps all of it until the
backward pass. Its derivative by the probabilities is known as soon as its value is, takes the memory of the logits once, and
gives that by the logits in place.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Cost = Callable[[Tensor, Tensor | None], Tensor]


def of_softmax(logits: Tensor, cost: Cost) -> Tensor:
    """Scalar, at least float32: the cost of the softmax of logits (B, K, *S) of any float dtype.

    `cost(probs, slopes)` gives the scalar for probs (B, K, *S). Unless slopes is None, it also writes into it, of the same
    shape and 0 before, the derivative of the scalar by each of the probs. It is called without autograd and autocast.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()  # an exponent of half precision is too coarse
    with torch.autocast(logits.device.type, enabled=False):
        value: Tensor = _OfSoftmax.apply(logits, cost)
        return value


class _OfSoftmax(torch.autograd.Function):
    """`of_softmax` for autograd: what is kept for the backward pass is the derivative by the logits alone."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, cost: Cost) -> Tensor:
        probs = logits.softmax(dim=1).contiguous()  # classes are read one by one, also where logits are channels-last
        if not ctx.needs_input_grad[0]:
            return cost(probs, None)
        slopes = torch.zeros_like(probs)
        value = cost(probs, slopes)
        mean = torch.zeros_like(probs[:, 0])  # (B, *S), of the slopes as the probabilities weigh them
        for k in range(probs.shape[1]):  # one product (B, K, *S) less in memory
            mean.addcmul_(probs[:, k], slopes[:, k])
        ctx.save_for_backward(slopes.sub_(mean[:, None]).mul_(probs))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return grad * slopes, None
