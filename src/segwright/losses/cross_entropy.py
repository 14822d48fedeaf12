"""Cross-entropy of the softmax. Axes: B batch, K classes, *S spatial axes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.core import VOID
from segwright.core.errors import SettingError, ShapeError
from segwright.losses import check_shapes


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Mean of -log p(true class) over all pixels of the batch that are not void; 0 where all are.

    With `class_weights`, one per class, it is the weighted mean: each pixel counts by the weight of its true class.
    """

    class_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.class_weights is not None and not min(self.class_weights, default=-1) >= 0:
            raise SettingError(f"class_weights is {self.class_weights}; give a number of 0 or more for each class, or None")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        check_shapes(logits, target)
        logits = logits if logits.dtype == torch.float64 else logits.float()  # an exponent of half precision is too coarse
        if self.class_weights is None:
            weights, total = None, (target != VOID).sum()
        elif len(self.class_weights) == logits.shape[1]:
            weights = logits.new_tensor(self.class_weights)
            total = torch.where(target != VOID, weights[target.clamp(min=0)], 0).sum()
        else:
            raise ShapeError(
                f"there are {len(self.class_weights)} class weights and {logits.shape[1]} classes; give one weight per class"
            )
        if (
            logits.ndim > 2 and logits.stride(1) == 1
        ):  # channels-last: torch would copy them, rows of classes it reads as they lie
            logits, target = logits.movedim(1, -1).flatten(0, -2), target.flatten()
        loss = F.cross_entropy(logits, target, weights, ignore_index=VOID, reduction="sum")
        return loss / torch.where(total > 0, total, 1)
