"""Semantic segmentation: one class per pixel. Axes: B batch, K classes, *S spatial axes, *s those of the network's output."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.core.picture import VOID_COLOR
from segwright.losses import Loss

BACKGROUND = "background"


def with_background(data: Dataset) -> Dataset:
    """The data set with a class "background", number 0, for what lies around objects, where all its classes are things.

    A dense network has to name every pixel. Data that also name stuff are returned as they are: there, nothing is void.
    """
    if not all(data.classes.is_thing) or BACKGROUND in data.classes.names:
        return data
    names, colors = (BACKGROUND, *data.classes.names), (VOID_COLOR, *data.classes.colors)
    classes = Classes(names, colors, (False, *data.classes.is_thing))
    return replace(data, classes=classes, load=_WithBackground(data, classes))


@dataclass(frozen=True, eq=False)
class _WithBackground:
    data: Dataset
    classes: Classes

    def __call__(self, key: str) -> Sample:
        sample = self.data.load(key)
        if sample.truth is None:
            return sample
        truth = sample.truth
        planes = truth.planes.copy()
        planes[0][(planes == 0).all(axis=0)] = len(truth) + 1
        around = Segmentation(
            planes,
            np.append(truth.class_ids + 1, 0).astype(np.int32),
            np.append(truth.instance_ids, 0).astype(np.int32),
            np.append(truth.scores, 1).astype(np.float32),
            self.classes,
        )
        return replace(sample, truth=around)


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
