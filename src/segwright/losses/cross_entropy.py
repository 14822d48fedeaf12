"""Cross-entropy of the softmax. Axes: B batch, K classes, *S spatial axes.

Label smoothing as in Szegedy et al. 2016, arXiv 1512.00567, and in torch: the truth of a pixel is one-hot times 1 - e, plus e
/ K for each class, and class weights w multiply each class's part, while the mean divides by the sum of w of the true classes
alone. smp's SoftCrossEntropyLoss smooths in the same way, but divides by all pixels, the void ones too; here they do not
count.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from segwright.core.errors import SettingError, ShapeError
from segwright.losses._softmax import SharedSoftmax, shared_softmax


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """Mean of -log p(true class) over all pixels of the batch that are not void; 0 where all are.

    With `class_weights`, one per class, it is the weighted mean: each pixel counts by the weight of its true class.
    `label_smoothing` is the share of a pixel's truth, from 0 up to 1, that is spread evenly over all classes.
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.class_weights is not None and not min(self.class_weights, default=-1) >= 0:
            raise SettingError(f"class_weights is {self.class_weights}; give a number of 0 or more for each class, or None")
        if not 0 <= self.label_smoothing < 1:
            raise SettingError(f"label_smoothing is {self.label_smoothing}; give a share of 0 or more and below 1, such as 0.1")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        return self.of_softmax(shared_softmax(logits, target, log_prob_sums=self.label_smoothing > 0))

    def of_softmax(self, softmax: SharedSoftmax) -> Tensor:
        """Scalar from what losses share of the softmax.

        Raises:
            ShapeError: there are not as many weights as classes.
        """
        true = softmax.counts.true  # (B, K)
        if self.class_weights is None:
            weights, weighted = torch.ones_like(true[0]), softmax.log_probs
        elif len(self.class_weights) == true.shape[1]:
            weights = true.new_tensor(self.class_weights)
            index = softmax.target.to(torch.int32).clamp_(min=0)  # half the memory of int64; where void, log_probs is 0
            weighted = softmax.log_probs * weights.index_select(0, index.flatten()).view_as(index)
        else:
            raise ShapeError(
                f"there are {len(self.class_weights)} class weights and {true.shape[1]} classes; give one weight per class"
            )
        total = (weights * true).sum()
        loss = (self.label_smoothing - 1) * weighted.sum()
        if self.label_smoothing:
            loss = loss - self.label_smoothing / len(weights) * (weights * softmax.log_prob_sums).sum()
        return loss / torch.where(total > 0, total, 1)
