"""Generalised Dice loss of the softmax, or of sigmoids for regions. Axes: B batch, K classes, *S spatial axes.

Source: Sudre et al. 2017, arXiv 1707.03237. A class that is absent would weigh endlessly; as in MONAI and NiftyNet it weighs
as much as the heaviest that is present, so that what is predicted of it still costs. Nothing else of this loss is in
segmentation_models.pytorch or nnU-Net.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from segwright.core.errors import SettingError
from segwright.losses._overlap import check_smooth, soft_counts
from segwright.losses._softmax import SoftCounts

POWERS = {"square": 2, "simple": 1, "uniform": 0}


@dataclass(frozen=True, kw_only=True)
class GeneralisedDice:
    """1 - (2 sum_k w_k |P T| + smooth) / (sum_k w_k (|P| + |T|) + smooth), of each sample, then averaged.

    P are the probabilities and T the truth, both without the void pixels. `weight` is "square", the paper's w = 1 / |T|^2,
    "simple", 1 / |T|, or "uniform", 1. `over_batch` takes the batch as one sample. With "square" the sums below are near 2 /
    |T| of the smallest class: `smooth` then counts where all classes have more than some ten thousand pixels.
    """

    weight: Literal["square", "simple", "uniform"] = "square"
    smooth: float = 1e-5
    over_batch: bool = False

    def __post_init__(self) -> None:
        check_smooth(self.smooth)
        if self.weight not in POWERS:
            raise SettingError(f"weight is {self.weight!r}; choose one of {', '.join(POWERS)}")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, at least float32, from logits (B, K, *S) of any float dtype and class maps int64 (B, *S) or regions."""
        return self.of_counts(soft_counts(logits, target))

    def of_counts(self, counts: SoftCounts) -> Tensor:
        """Scalar from the soft counts."""
        counts = counts.over_batch() if self.over_batch else counts
        found = torch.where(counts.true > 0, counts.true.clamp(min=1) ** -POWERS[self.weight], 0)  # (B, K)
        heaviest = found.amax(dim=1, keepdim=True)
        weights = torch.where(counts.true > 0, found, heaviest)
        overlap = (weights * counts.overlap).sum(dim=1)  # (B,)
        size = (weights * (counts.predicted + counts.true)).sum(dim=1)
        return (1 - (2 * overlap + self.smooth) / (size + self.smooth)).mean()
