"""Dice loss of the softmax: one minus the soft overlap. Axes: B batch, K classes, *S spatial axes, W the last of them.

Source: Milletari et al. 2016, arXiv 1606.04797, with the sum and not the sum of squares below, as in Drozdzal et al. 2016,
arXiv 1608.04117, and in nnU-Net.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from segwright.core import VOID
from segwright.core.errors import SettingError
from segwright.losses import check_shapes


@dataclass(frozen=True, kw_only=True)
class Dice:
    """1 - (2 |P T| + smooth) / (|P| + |T| + smooth), of each sample and class, then averaged over both.

    P is the softmax and T the truth, both without the void pixels. A class that is not in the truth of a sample costs
    nearly 1, however small its probabilities are, and pulls hardly at all; a sample that is all void costs 0.
    """

    smooth: float = 1e-5  # of a pixel: keeps 0 / 0 from occurring and changes nothing else

    def __post_init__(self) -> None:
        if not self.smooth > 0:
            raise SettingError(f"smooth is {self.smooth}; give a number above 0, such as 1e-5, for classes that are absent")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S)."""
        check_shapes(logits, target)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        known, index = target != VOID, target.clamp(min=0)  # (B, *S)
        probs = logits.softmax(dim=1) * known[:, None]  # (B, K, *S)
        hits = probs.gather(1, index[:, None])[:, 0]  # (B, *S), the probability of the true class
        overlap, truth = _by_class(hits, index, logits.shape[1]), _by_class(known.to(hits), index, logits.shape[1])  # (B, K)
        size = probs.flatten(2).sum(dim=2) + truth
        return (1 - (2 * overlap + self.smooth) / (size + self.smooth)).mean()


def _by_class(values: Tensor, index: Tensor, num_classes: int) -> Tensor:
    """Sums (B, K) of values (B, *S) over the pixels of each class in `index` (B, *S).

    Each line of W pixels is summed on its own first: float32 keeps its digits, and a GPU's threads seldom meet.
    """
    lines = values.new_zeros(*values.shape[:-1], num_classes)
    return lines.scatter_add(-1, index, values).flatten(1, -2).sum(dim=1)
