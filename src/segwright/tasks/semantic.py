"""Semantic segmentation: one class per pixel. Axes: B batch, K classes, *S spatial axes, *s those of the network's output."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from segwright.core import Sample
from segwright.core.errors import UsageError
from segwright.losses import Loss


@dataclass(frozen=True)
class Semantic:
    """What a sample teaches a dense network, and how far the network's answer is from it."""

    criterion: Loss

    def target(self, sample: Sample) -> np.ndarray:
        """The class map int64 (*S) to learn, VOID (-1) where nobody knows.

        Raises:
            UsageError: the sample has no truth.
        """
        if sample.truth is None:
            raise UsageError(f"sample {sample.key!r} has no truth to learn from; add its mask, or take it out of the data set")
        return sample.truth.class_map().astype(np.int64)

    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The criterion of logits (B, K, *s), brought to the size of the target (B, *S), which the authors of all models do."""
        if logits.shape[2:] != target.shape[1:]:
            mode = "bilinear" if target.ndim == 3 else "trilinear"
            logits = F.interpolate(logits, size=target.shape[1:], mode=mode, align_corners=False)
        return self.criterion(logits, target)
