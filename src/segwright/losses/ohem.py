"""Online hard example mining: cross-entropy of the pixels of each image that are not yet right. Axes: B batch, K classes,
*S spatial axes, N pixels of an image.

Source: Shrivastava et al. 2016, arXiv 1604.03540, with pixels for regions, as in BiSeNet (Yu et al. 2018, arXiv 1808.00897).
There the least number is a sixteenth of the batch's pixels, in mmsegmentation a number of pixels; here it is a share of each
image, so that one hard image does not leave the others without. mmsegmentation divides by all pixels, here as in BiSeNet by
those taken.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from segwright.core import VOID
from segwright.core.errors import SettingError
from segwright.losses._softmax import SharedSoftmax, shared_softmax
from segwright.losses.top_k import check_share


@dataclass(frozen=True, kw_only=True)
class Ohem:
    """Mean of -log p(true class) over the pixels whose p is at most `threshold`, and over the hardest `share` of each image.

    Without `threshold` the hardest `share` of each image is all that is taken. Pixels as hard as the last of a share are taken
    with it; void ones never are, and where all are void the loss is 0.
    """

    share: float = 1 / 16
    threshold: float | None = 0.7

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise SettingError(f"threshold is {self.threshold}; give a probability between 0 and 1, such as 0.7, or None")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        return self.of_softmax(shared_softmax(logits, target))

    def of_softmax(self, softmax: SharedSoftmax) -> Tensor:
        """Scalar from what losses share of the softmax."""
        log_probs = softmax.log_probs.flatten(1)  # (B, N), 0 where void
        numbers = [max(1, int(known * self.share)) for known in softmax.known.tolist()]
        pairs = zip(log_probs.detach(), numbers, strict=True)
        limits = torch.stack([each.kthvalue(number).values for each, number in pairs])  # (B,)
        if self.threshold is not None:
            limits = limits.clamp(min=log_probs.new_tensor(self.threshold).log())
        taken = (log_probs <= limits[:, None]) & (softmax.target.flatten(1) != VOID)
        number = taken.sum()
        return -(log_probs * taken).sum() / torch.where(number > 0, number, 1)
