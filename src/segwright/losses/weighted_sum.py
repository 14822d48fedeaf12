"""Several losses at once, on one softmax. Axes: B batch, K classes, *S spatial axes."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from segwright.core.errors import SettingError
from segwright.core.lookup import Kind
from segwright.losses import Loss, are_regions
from segwright.losses._softmax import OverlapLoss, SharedSoftmax, SoftmaxLoss, shared_softmax
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice


@dataclass(frozen=True, kw_only=True)
class WeightedSum:
    """Sum of the terms, each times its weight. The default is the loss of nnU-Net: cross-entropy and Dice, equally.

    Terms that need no more of the softmax than others do share it: the sum takes hardly more time and memory than one of them.
    """

    terms: Annotated[tuple[Loss, ...], Kind("losses")] = (CrossEntropy(), Dice())
    weights: tuple[float, ...] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not self.terms or len(self.terms) != len(self.weights):
            raise SettingError(
                f"{len(self.terms)} terms and {len(self.weights)} weights were given; give one term or more, a weight for each"
            )

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar from logits (B, K, *S) and class maps int64 (B, *S) with VOID = -1, or what else all terms take."""
        first, *others = self.terms_of(logits, target).values()
        return sum(others, first)

    def terms_of(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Each term times its weight by the name of its file; a number tells equal ones apart. Their sum is the loss."""
        softmax = self._softmax(logits, target)
        seen: Counter[str] = Counter()
        found = {}
        for weight, term in zip(self.weights, self.terms, strict=True):
            name = type(term).__module__.rsplit(".", maxsplit=1)[-1]
            seen[name] += 1
            if softmax is not None and isinstance(term, OverlapLoss):
                value = term.of_counts(softmax.counts)
            elif softmax is not None and isinstance(term, SoftmaxLoss):
                value = term.of_softmax(softmax)
            else:
                value = term(logits, target)
            found[name if seen[name] == 1 else f"{name}_{seen[name]}"] = weight * value
        return found

    def _softmax(self, logits: Tensor, target: Tensor) -> SharedSoftmax | None:
        """What the terms share, where some of them share it and the target is a class map."""
        if are_regions(logits, target) or not any(isinstance(term, OverlapLoss | SoftmaxLoss) for term in self.terms):
            return None
        counts = any(isinstance(term, OverlapLoss) for term in self.terms)
        sums = any(isinstance(term, CrossEntropy) and term.label_smoothing > 0 for term in self.terms)
        return shared_softmax(logits, target, counts=counts, log_prob_sums=sums)
