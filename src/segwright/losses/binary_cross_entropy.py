"""Binary cross-entropy of sigmoids, for regions that overlap. Axes: B batch, K classes, *S spatial axes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from segwright.core.errors import SettingError, ShapeError
from segwright.losses._binary import MarginCost, mean_margin_cost
from segwright.losses._softmax import computed_in


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """Mean of -log of the probability of the truth, over all pixels and classes that are not void; 0 where all are.

    The target tells of each class by itself, (B, K, *S) of 1, 0 and VOID; a class map is taken as one class against the rest.
    `positive_weights`, one per class, multiply what pixels of the class cost, as torch's pos_weight; the mean divides by
    their number all the same. `label_smoothing` e makes truths of 1 - e / 2 and e / 2, as `cross_entropy` does with two
    classes (Szegedy et al. 2016, arXiv 1512.00567); segmentation_models.pytorch names half of it, and divides by the void
    pixels too.
    """

    positive_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.positive_weights is not None and not min(self.positive_weights, default=-1) >= 0:
            raise SettingError(
                f"positive_weights is {self.positive_weights}; give a number of 0 or more for each class, or None"
            )
        if not 0 <= self.label_smoothing < 1:
            raise SettingError(f"label_smoothing is {self.label_smoothing}; give a share of 0 or more and below 1, such as 0.1")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and regions (B, K, *S) or class maps int64 (B,
        *S).

        Raises:
            ShapeError: logits and target, or weights and classes, do not belong together.
        """
        weights = self.positive_weights or (1.0,) * logits.shape[1]
        if len(weights) != logits.shape[1]:
            raise ShapeError(
                f"there are {len(weights)} positive weights and {logits.shape[1]} classes; give one weight per class"
            )
        weight = torch.tensor(weights, dtype=computed_in(logits), device=logits.device)
        # -t w log s(x) - (1 - t) log s(-x) for truths t of 1 - h and h, by -log s(-z) = z - log s(z)
        h = self.label_smoothing / 2
        slants = (torch.full_like(weight, h), weight * h) if h else (None, None)
        cost = MarginCost(_cross_entropy, weight * (1 - h) + h, 1 - h + weight * h, *slants)
        return mean_margin_cost(logits, target, cost)


def _cross_entropy(margin: Tensor) -> tuple[Tensor, Tensor]:
    """-log s(z) and its slope, s(z) - 1."""
    return F.logsigmoid(margin).neg_(), torch.sigmoid(-margin).neg_()
