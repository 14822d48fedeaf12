"""Masks by kernels that a network makes for each object: dynamic convolution (SOLOv2: Wang et al. 2020, arXiv 2003.10152).

The masks of n kernels on one map are the product of two matrices. What Dice's loss says of them is computed a few at a time
together with its gradient, so that neither n masks nor their truths exist at once: 2 400 of 200 x 336 would take 640 MB each.

Axes: n kernels, E channels, h, w sides of the map.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from segwright.layers.grid_targets import SampledMasks

AT_ONCE = 2**22  # values of masks, 16 MB
SMOOTH = 1e-3  # of a cell: keeps 0 / 0 from occurring and changes nothing else
LEAK = 0.01  # the least slope of a sigmoid, 0.25 in its middle: a mask that came out empty is still pulled back to its object


def dynamic_masks(kernels: Tensor, features: Tensor) -> Tensor:
    """Logits (n, h, w) of kernels (n, E) of 1x1 on a map (E, h, w)."""
    return (kernels @ features.flatten(1)).unflatten(1, features.shape[1:])


def dynamic_dice(kernels: Tensor, features: Tensor, objects: Tensor, truth: SampledMasks) -> Tensor:
    """The sum of 1 - 2 |p t| / (|p^2| + |t^2|) over the masks p of kernels (n, E) on a map (E, h, w), at least float32.

    `objects` int64 (n,) say which of the true masks t each is to be. Void cells count nowhere. Source: Milletari et al. 2016,
    arXiv 1606.04797, with squares below, as SOLO has it. Its gradient is lost where a sigmoid is flat: a kernel whose mask is
    empty would never learn another. So a hundredth of it is kept there.
    """
    return _Dice.apply(kernels, features.flatten(1), objects, truth)


class _Dice(Function):
    """Kernels (n, E), a map (E, h * w), objects (n,) and their masks to a scalar; the gradient is found beside the value."""

    @staticmethod
    def forward(ctx: Any, kernels: Tensor, features: Tensor, objects: Tensor, truth: SampledMasks) -> Tensor:
        ctx.dtypes = kernels.dtype, features.dtype
        dtype = torch.promote_types(features.dtype, torch.float32)
        half = torch.bfloat16 in ctx.dtypes  # float16 has no numbers as small as these gradients
        kernels, features = (each.to(torch.bfloat16 if half else dtype) for each in (kernels, features))
        total = torch.zeros((), dtype=dtype, device=features.device)
        of_kernels, of_features = (torch.zeros_like(each, dtype=dtype) for each in (kernels, features))
        known, step = truth.known(), max(AT_ONCE // features.shape[1], 1)
        with torch.autocast(features.device.type, enabled=False):
            for first in range(0, len(kernels), step):
                part = slice(first, first + step)
                some, which = objects[part].unique(return_inverse=True)  # several kernels are for one object
                masks = (truth.of(some) & known).to(dtype)[which]
                loss, slope = _dice_and_slope((kernels[part] @ features).to(dtype).sigmoid_().mul_(known), masks)
                total += loss
                if any(ctx.needs_input_grad[:2]):
                    slope = slope.to(features.dtype)
                    of_kernels[part] = slope @ features.mT
                    of_features += kernels[part].mT @ slope
        ctx.save_for_backward(of_kernels, of_features)
        return total

    @staticmethod
    def backward(ctx: Any, of_total: Tensor) -> tuple[Tensor | None, ...]:
        of_kernels, of_features = ctx.saved_tensors
        kernels, features = ctx.dtypes
        return (of_kernels * of_total).to(kernels), (of_features * of_total).to(features), None, None


def _dice_and_slope(probs: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of the losses of probabilities for masks of 1 and 0, both (n, h * w), and its slope at each logit (n, h * w).

    The slope of the sigmoid is taken for at least `LEAK`.
    """
    overlap, sizes = (probs * masks).sum(dim=1), probs.square().sum(dim=1) + masks.sum(dim=1) + SMOOTH
    slope = (4 * overlap / sizes.square())[:, None] * probs - (2 / sizes)[:, None] * masks
    return (1 - 2 * overlap / sizes).sum(), slope.mul_((probs * (1 - probs)).clamp_(min=LEAK))
