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
    """The data set with a class "background" for what lies around objects: its own, or number 0 where all classes are things.

    A dense network has to name every pixel. Data that name stuff and no background are returned as they are: there, pixels
    of no class teach nothing.
    """
    names = [name.strip("_").lower() for name in data.classes.names]  # labelme says _background_
    if BACKGROUND in names:
        return replace(data, load=_WithBackground(data, data.classes, names.index(BACKGROUND), 0))
    if not all(data.classes.is_thing):
        return data
    own, colors = (BACKGROUND, *data.classes.names), (VOID_COLOR, *data.classes.colors)
    classes = Classes(own, colors, (False, *data.classes.is_thing))
    return replace(data, classes=classes, load=_WithBackground(data, classes, 0, 1))


@dataclass(frozen=True, eq=False)
class _WithBackground:
    """Loads samples where pixels of no segment are of the class `background`; the other classes move up by `shift`."""

    data: Dataset
    classes: Classes
    background: int
    shift: int

    def __call__(self, key: str) -> Sample:
        sample = self.data.load(key)
        if sample.truth is None:
            return sample
        truth = sample.truth
        is_nothing = (truth.planes == 0).all(axis=0)
        if not self.shift and not is_nothing.any():
            return sample
        planes = truth.planes.copy()
        planes[0][is_nothing] = len(truth) + 1
        around = Segmentation(
            planes,
            np.append(truth.class_ids + self.shift, self.background).astype(np.int32),
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
