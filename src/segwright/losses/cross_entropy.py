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
        sums = softmax.log_prob_sums  # (B, K)
        log_probs, number = softmax.log_probs, softmax.known.sum()
        if self.class_weights is not None:
            weights = sums.new_tensor(self.class_weights)
            if len(weights) != sums.shape[1]:
                raise ShapeError(
                    f"there are {len(weights)} class weights and {sums.shape[1]} classes; give one weight per class"
                )
            own = _own(weights, softmax.target)
            log_probs, number, sums = log_probs * own, own.sum(), sums * weights
        loss = (self.label_smoothing - 1) * log_probs.sum()
        if self.label_smoothing:
            loss = loss - self.label_smoothing * sums.mean(dim=1).sum()
        return loss / torch.where(number > 0, number, 1)


def _own(weights: Tensor, target: Tensor) -> Tensor:
    """The weight of each pixel's class (B, *S), from weights (K,) and a class map (B, *S); 0 where it is void."""
    index = target.to(torch.int32).add_(1)  # 0 is void now; int32 takes half the memory
    return torch.cat([weights.new_zeros(1), weights]).index_select(0, index.flatten()).view_as(target)
