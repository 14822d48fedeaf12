"""Several losses at once. Axes: B batch, K classes, *S spatial axes."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from segwright.core.errors import SettingError
from segwright.core.lookup import Kind
from segwright.losses import Loss
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """Sum of the terms, each times its weight. The default is the loss of nnU-Net: cross-entropy and Dice, equally."""

    terms: Annotated[tuple[Loss, ...], Kind("losses")] = (CrossEntropy(), Dice())
    weights: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not self.terms or len(self.terms) != len(self.weights):
            raise SettingError(
                f"{len(self.terms)} terms and {len(self.weights)} weights were given; give one term or more, a weight for each"
            )

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar from logits (B, K, *S) and class maps int64 (B, *S) with VOID = -1."""
        first, *others = self.terms_of(logits, target).values()
        return sum(others, first)

    def terms_of(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Each term times its weight by the name of its file; a number tells equal ones apart. Their sum is the loss."""
        seen: Counter[str] = Counter()
        found = {}
        for weight, term in zip(self.weights, self.terms, strict=True):
            name = type(term).__module__.rsplit(".", maxsplit=1)[-1]
            seen[name] += 1
            found[name if seen[name] == 1 else f"{name}_{seen[name]}"] = weight * term(logits, target)
        return found
