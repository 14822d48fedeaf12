"""Tversky loss of the softmax, or of sigmoids for regions. Axes: B batch, K classes, *S spatial axes.

Source: Salehi et al. 2017, arXiv 1706.05721. Papers and libraries call the two weights alpha and beta, and do not agree on
which is which; here they say what they weigh.
"""

from dataclasses import dataclass

from torch import Tensor

from segwright.core.errors import SettingError
from segwright.losses._overlap import check_smooth, soft_counts
from segwright.losses._softmax import SoftCounts


@dataclass(frozen=True, kw_only=True)
class Tversky:
    """1 - (TP + smooth) / (TP + a FP + b FN + smooth), of each sample and class, then averaged over both.

    TP, FP and FN are soft counts without the void pixels, a and b the weights. Both 0.5 give Dice and both 1 Jaccard; a false
    negative that weighs more raises recall. The defaults are those that the paper found best for small lesions. `over_batch`
    takes the batch as one sample. For classes that are not in the truth see `dice`.
    """

    false_positive_weight: float = 0.3
    false_negative_weight: float = 0.7
    smooth: float = 1e-5  # of a pixel: keeps 0 / 0 from occurring and changes nothing else
    over_batch: bool = False

    def __post_init__(self) -> None:
        check_smooth(self.smooth)
        for name in ("false_positive_weight", "false_negative_weight"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"{name} is {getattr(self, name)}; give a number of 0 or more, such as 0.3 or 0.7")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S) or regions."""
        return self.of_counts(soft_counts(logits, target))

    def of_counts(self, counts: SoftCounts) -> Tensor:
        """Scalar from the soft counts."""
        return self.of_classes(counts).mean()

    def of_classes(self, counts: SoftCounts) -> Tensor:
        """One loss for each sample and class, (B, K), or (1, K) over the batch."""
        counts = counts.over_batch() if self.over_batch else counts
        false_positives, false_negatives = counts.predicted - counts.overlap, counts.true - counts.overlap
        wrong = self.false_positive_weight * false_positives + self.false_negative_weight * false_negatives
        return 1 - (counts.overlap + self.smooth) / (counts.overlap + wrong + self.smooth)
