"""Several losses at once. Axes: B batch, K classes, *S spatial axes."""

from dataclasses import dataclass

from torch import Tensor

from segwright.core.errors import SettingError
from segwright.losses import Loss
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """Sum of the terms, each times its weight. The default is the loss of nnU-Net: cross-entropy and Dice, equally."""

    terms: tuple[Loss, ...] = (CrossEntropy(), Dice())
    weights: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not self.terms or len(self.terms) != len(self.weights):
            raise SettingError(
                f"{len(self.terms)} terms and {len(self.weights)} weights were given; give one term or more, a weight for each"
            )

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar from logits (B, K, *S) and class maps int64 (B, *S) with VOID = -1."""
        first, *others = (weight * term(logits, target) for weight, term in zip(self.weights, self.terms, strict=True))
        return sum(others, first)
