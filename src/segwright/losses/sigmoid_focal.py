"""Focal loss of sigmoids, each class against the rest. Axes: B batch, K classes, *S spatial axes.

Source: Lin et al. 2017, arXiv 1708.02002, as torchvision's sigmoid_focal_loss with reduction "mean" has it: alpha for what is
there, 1 - alpha for what is not, and the mean over pixels and classes (the paper divides by the number of objects found,
which pixels do not have). MONAI's FocalLoss without use_softmax and segmentation_models.pytorch's are the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.losses._binary import MarginCost, mean_margin_cost
from segwright.losses._softmax import computed_in
from segwright.losses.focal import check_focus


@dataclass(frozen=True, kw_only=True)
class SigmoidFocal:
    """Mean of -(1 - p)^gamma log p over all pixels and classes that are not void, with p the probability of the truth.

    What is there weighs `alpha`, what is not 1 - alpha; without alpha both weigh 1. The target tells of each class by itself,
    (B, K, *S) of 1, 0 and VOID; a class map is taken as one class against the rest.
    """

    gamma: float = 2.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        check_focus(self.gamma, self.alpha)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and regions (B, K, *S) or class maps int64 (B,
        *S)."""
        present, absent = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        ones = torch.ones(logits.shape[1], dtype=computed_in(logits), device=logits.device)
        return mean_margin_cost(logits, target, MarginCost(self._curve, ones * present, ones * absent))

    def _curve(self, margin: Tensor) -> tuple[Tensor, Tensor]:
        """-q^gamma log p and its slope, q^gamma (gamma p log p - q), for p = s(z) and q = 1 - p."""
        log_p, q = F.logsigmoid(margin), torch.sigmoid(-margin)
        focus = q**self.gamma
        slope = (log_p * (1 - q)).mul_(self.gamma).sub_(q).mul_(focus)
        return log_p.mul_(focus).neg_(), slope
