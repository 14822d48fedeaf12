"""Focal loss of the softmax. Axes: B batch, K classes, *S spatial axes.

Source: Lin et al. 2017, arXiv 1708.02002, with the softmax in place of the sigmoid, as MONAI's FocalLoss with use_softmax.
That divides by pixels times classes, though each pixel costs by one class alone; here it is the mean over pixels, K times as
much.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from segwright.core.errors import SettingError
from segwright.losses._softmax import SharedSoftmax, shared_softmax


@dataclass(frozen=True, kw_only=True)
class Focal:
    """Mean of -(1 - p)^gamma log p over all pixels that are not void, with p the probability of the true class.

    Pixels of class 0, the background, weigh 1 - alpha and all others `alpha`, as in MONAI; without alpha all weigh 1. The
    mean divides by the number of pixels either way.
    """

    gamma: float = 2.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        check_focus(self.gamma, self.alpha)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        return self.of_softmax(shared_softmax(logits, target))

    def of_softmax(self, softmax: SharedSoftmax) -> Tensor:
        """Scalar from what losses share of the softmax."""
        log_p = softmax.log_probs  # (B, *S), 0 where void
        tiny = torch.finfo(log_p.dtype).tiny  # where p is 1, a power below 1 would have an endless slope
        losses = (-log_p.expm1()).clamp(min=tiny) ** self.gamma * log_p
        if self.alpha is not None:
            losses = losses * torch.where(softmax.target == 0, 1 - self.alpha, self.alpha)
        number = softmax.known.sum()
        return -losses.sum() / torch.where(number > 0, number, 1)


def check_focus(gamma: float, alpha: float | None) -> None:
    """Nothing, where these are settings of a focal loss.

    Raises:
        SettingError: they are not.
    """
    if not gamma >= 0:
        raise SettingError(f"gamma is {gamma}; give a number of 0 or more, such as 2, the paper's")
    if alpha is not None and not 0 <= alpha <= 1:
        raise SettingError(f"alpha is {alpha}; give a weight from 0 to 1, such as 0.25, the paper's, or None")
