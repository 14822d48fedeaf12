"""One box around all that is in an image: a task in sixty lines. Axes: B batch, C channels, H, W."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from segwright.core import Segmentation
from segwright.tasks import Batch
from toybox import net


@dataclass(frozen=True, kw_only=True)
class Boxes:
    score: ClassVar[str] = "AP50"
    metrics: ClassVar[tuple[str, ...]] = ("average_precision",)
    spread: float = 1.0  # weight of the term that asks for the size of a box

    @classmethod
    def planned(cls, found):
        return cls(), {"task": f"{found.objects[0].count} objects were found"}

    def candidates(self, found, *, from_scratch):
        return [net.Config(width=4), net.Config(width=8)]

    def fitted(self, network, channels, classes):
        return replace(network, in_channels=channels)

    def dataset(self, data):
        return data

    def target(self, crop):
        rows, columns = np.nonzero(crop.truth.planes[0] > 0)
        if not len(rows):
            return np.full(4, np.nan, np.float32)
        ends = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
        return ends / np.tile(crop.grid.shape[::-1], 2).astype(np.float32)

    def collate(self, crops):
        keys, images, boxes = zip(*crops, strict=True)
        return Batch(list(keys), torch.from_numpy(np.stack(images)), {"boxes_xyxy": torch.from_numpy(np.stack(boxes))})

    def loss(self, network, batch, generator):
        ours, truth = boxes_of(network(batch.image)["heat"]), batch.target["boxes_xyxy"]
        error = torch.where(truth.isfinite(), ours - truth.nan_to_num(), 0).abs()
        middle = error[:, :2] + error[:, 2:]
        return {"middle": middle.mean(), "spread": self.spread * error.mean()}

    def decode(self, run, view):
        padded = view.padded(run.sizes(view.covered)[1])
        box = boxes_of(torch.from_numpy(run(padded.image[None])[0]))[0].reshape(2, 2).numpy() * padded.image.shape[:0:-1]
        (left, top), (right, bottom) = np.rint(view.points_to_source(box)).clip(0).astype(int)
        mask = np.zeros((1, *view.source.shape), bool)
        mask[0, top : max(bottom, top + 1), left : max(right, left + 1)] = True
        return Segmentation.instances(mask, [0], scores=[0.9], classes=run.classes)

    def agreement(self, outputs, reference, shape):
        return float(np.abs(outputs[0] - reference[0]).mean() < 0.05)


def boxes_of(heat):
    """Boxes (B, 4), in shares of the image, as wide as a uniform heat of the same mean and deviation."""
    ends = []
    for axis in (3, 2):
        at = (torch.arange(heat.shape[axis], dtype=heat.dtype) + 0.5) / heat.shape[axis]
        share = heat.mean(dim=(1, 5 - axis)) / heat.shape[axis]
        mean = (share * at).sum(dim=1)
        reach = (share * (at - mean[:, None]) ** 2).sum(dim=1).clamp(min=1e-6).sqrt() * 3**0.5
        ends.append(torch.stack([mean - reach, mean + reach], dim=1))
    return torch.stack(ends, dim=2).flatten(1)
