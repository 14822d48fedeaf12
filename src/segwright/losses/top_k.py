"""Cross-entropy of the hardest pixels of the batch. Axes: B batch, K classes, *S spatial axes.

Source: Wu et al. 2016, arXiv 1605.06885, as nnU-Net's TopKLoss has it. That counts pixels of an ignored label among all, so
that more than the share of the others are taken; here the share is of the pixels that are not void.
"""

from dataclasses import dataclass

from torch import Tensor

from segwright.core.errors import SettingError
from segwright.losses._softmax import SharedSoftmax, shared_softmax


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Mean of -log p(true class) over the `share` of the batch's pixels where it is highest; void ones do not count.

    At least one pixel is taken, and none where all are void: the loss is 0 then.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        check_share(self.share)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        return self.of_softmax(shared_softmax(logits, target))

    def of_softmax(self, softmax: SharedSoftmax) -> Tensor:
        """Scalar from what losses share of the softmax."""
        known = int(softmax.known.sum())
        number = min(known, max(1, int(known * self.share)))
        hardest = softmax.log_probs.flatten().topk(number, largest=False, sorted=False).values  # void ones, 0, are the easiest
        return -hardest.sum() / max(1, number)


def check_share(share: float) -> None:
    """Nothing, where `share` is a share of pixels.

    Raises:
        SettingError: it is not.
    """
    if not 0 < share <= 1:
        raise SettingError(f"share is {share}; give a share of the pixels above 0 and up to 1, such as 0.1")
