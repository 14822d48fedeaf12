"""clDice: how far centre lines of tubes lie within each other's tubes. Axes: B batch, K classes, *S spatial axes.

Source: Shit et al. 2021, arXiv 2003.07311, in 2D and 3D. For one class it is MONAI's SoftclDiceLoss with softmax; MONAI adds
all classes of a sample up before it divides, while here each class has a value of its own, as in all overlap losses. MONAI
also adds 1e-4 to the denominator of the harmonic mean, which cannot be 0; the paper does not.
"""

from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.core import VOID
from segwright.core.errors import SettingError, ShapeError
from segwright.losses import check_shapes
from segwright.losses.softmax_slopes import of_softmax

SMOOTH = 1.0  # pixel of a skeleton, as in the authors' code: what neither holds is right
MAX_POOL: dict[int, Any] = {2: F.max_pool2d, 3: F.max_pool3d}


@dataclass(frozen=True, kw_only=True)
class ClDice:
    """1 - clDice of each sample and tubular class, then averaged over both; void pixels lie in no tube.

    clDice is the harmonic mean of two shares: of the predicted skeleton within the truth, and of the true one within the
    prediction. `iterations` of erosion reach the middle of tubes of about twice as many pixels across. `classes` are those
    that are tubular, all but class 0 where it is None. It sees the middle of tubes alone, so the authors add it to Dice, with
    equal weights at most.
    """

    iterations: int = 3
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise SettingError(f"iterations is {self.iterations}; give half the pixels across the thickest tube, 0 or more")
        if self.classes is not None and not (self.classes and min(self.classes) >= 0):
            raise SettingError(f"classes is {list(self.classes)}; give the numbers of the tubular classes, 0 or more, or None")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S).

        Raises:
            ShapeError: the logits lack a tubular class.
        """
        check_shapes(logits, target)
        classes = self.classes or tuple(range(1, logits.shape[1])) or (1,)
        if max(classes) >= logits.shape[1]:
            raise ShapeError(
                f"class {max(classes)} is to be tubular, but there are logits of {logits.shape[1]} classes, counted from 0; "
                "set classes to the numbers of some of them"
            )
        return of_softmax(logits, partial(self._cost, target, classes))

    def _cost(self, target: Tensor, classes: tuple[int, ...], probs: Tensor, slopes: Tensor | None) -> Tensor:
        """The loss for probs (B, K, *S) and class maps (B, *S); its slopes are written into `slopes`.

        One map at a time goes through autograd: what it keeps then fits a cache, and is gone before the next.
        """
        count = len(classes) * len(target)
        value = probs.new_zeros(())
        for b in range(len(target)):
            known = target[b] != VOID
            for k in classes:
                with torch.set_grad_enabled(slopes is not None):
                    part = (probs[b, k] * known).requires_grad_(slopes is not None)
                    cost = (1 - _cl_dice(part, target[b] == k, self.iterations)) / count
                value += cost.detach()
                if slopes is not None:
                    slopes[b, k] = torch.autograd.grad(cost, part)[0] * known
        return value


def _cl_dice(probs: Tensor, truth: Tensor, iterations: int) -> Tensor:
    """clDice, from 0 to 1, of probs (*S) and truth bool (*S)."""
    skeleton, true_skeleton = soft_skeleton(probs, iterations), skeleton_of(truth, iterations)
    precision = ((skeleton * truth).sum() + SMOOTH) / (skeleton.sum() + SMOOTH)
    sensitivity = ((probs * true_skeleton).sum() + SMOOTH) / (true_skeleton.sum() + SMOOTH)
    return 2 * precision * sensitivity / (precision + sensitivity)


def soft_skeleton(probs: Tensor, iterations: int) -> Tensor:
    """The soft skeleton (*S) of a map (*S): what opening takes away from it and from each of its erosions.

    Erosion is the minimum over a pixel and its neighbours at sides, dilation the maximum over those at corners too; pixels
    beyond the edge are left out.
    """
    axes = probs.ndim
    pool = partial(MAX_POOL[axes], stride=1)
    bars = [tuple(3 if other == axis else 1 for other in range(axes)) for axis in range(axes)]  # 3: a pixel and two neighbours
    negative = -probs[None, None]  # erosion is a maximum of it
    skeleton = torch.zeros_like(negative)
    for _ in range(iterations + 1):
        eroded = reduce(
            torch.maximum, [pool(negative, kernel_size=bar, padding=tuple(side // 2 for side in bar)) for bar in bars]
        )
        lost = F.relu(-negative - pool(-eroded, kernel_size=3, padding=1))
        skeleton = skeleton + F.relu(lost - skeleton * lost)
        negative = eroded
    return skeleton[0, 0]


def skeleton_of(mask: Tensor, iterations: int) -> Tensor:
    """The soft skeleton of a mask, which is hard: bool (*S) as `soft_skeleton` of 0 and 1, at a fraction of its time."""
    skeleton = torch.zeros_like(mask)
    for _ in range(iterations + 1):
        eroded = mask.clone()
        for axis in range(mask.ndim):
            _spread(torch.logical_and, mask, eroded, axis)
        opened = eroded
        for axis in range(mask.ndim):
            narrower, opened = opened, opened.clone()
            _spread(torch.logical_or, narrower, opened, axis)
        skeleton |= mask & ~opened
        mask = eroded
    return skeleton


def _spread(combine: Any, source: Tensor, onto: Tensor, axis: int) -> None:
    """Combine each pixel of a mask with its two neighbours of the source along an axis, in place."""
    size = source.shape[axis]
    combine(onto.narrow(axis, 1, size - 1), source.narrow(axis, 0, size - 1), out=onto.narrow(axis, 1, size - 1))
    combine(onto.narrow(axis, 0, size - 1), source.narrow(axis, 1, size - 1), out=onto.narrow(axis, 0, size - 1))
