"""Samples to batches. Axes: B batch, C channels, *S spatial axes.

What a batch holds depends on the seed and on its position in the run alone, never on what was loaded before: so a run can
resume at any step, and two processes see together what one would see with twice the batch.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from segwright.core import Dataset, Sample
from segwright.core.errors import naming
from segwright.plans import Plan
from segwright.tasks.semantic import Semantic
from segwright.transforms.channels import match_channels
from segwright.transforms.resize import resize

CACHE_BYTES = 2 << 30  # decoded samples kept in memory; with more data the rest is decoded again each time


@dataclass(frozen=True, eq=False)
class Batch:
    """`image` float32 (B, C, *S) and `target` int64 (B, *S), with the keys of their samples."""

    keys: list[str]
    image: torch.Tensor
    target: torch.Tensor


@dataclass(eq=False)
class Crops(TorchDataset):
    """The endless row of augmented crops of a data set: position n is always the same crop."""

    dataset: Dataset
    plan: Plan
    task: Semantic
    cache: dict[str, Sample] = field(default_factory=dict)
    cached_bytes: int = 0

    def __getitem__(self, position: int) -> tuple[str, np.ndarray, np.ndarray]:
        epoch, place = divmod(position, len(self.dataset))
        seed, shape = self.plan.training.seed, self.plan.training.crop
        order = np.random.default_rng([seed, 0, epoch]).permutation(len(self.dataset))
        key = self.dataset.keys[order[place]]
        generator = np.random.default_rng([seed, 1, position])
        with naming(f"sample {key!r}"):
            crop = self.plan.intensity(self.plan.geometric(self.prepared(key), shape, generator), generator)
            per_image = self.plan.data.normalise.mean is None  # then the whole image was measured, as inference does
            image = crop.image if per_image else self.plan.data.normalise(crop.image)
            return key, image, self.task.target(crop)

    def prepared(self, key: str) -> Sample:
        """A sample with the plan's channels, at the plan's zoom; decoded once as long as the cache has room."""
        if key in self.cache:
            return self.cache[key]
        sample = prepare(self.dataset.load(key), self.plan)
        size = sample.image.nbytes + (sample.truth.planes.nbytes if sample.truth else 0)
        if self.cached_bytes + size <= CACHE_BYTES:
            self.cache[key] = sample
            self.cached_bytes += size
        return sample


def prepare(sample: Sample, plan: Plan) -> Sample:
    """A sample with the plan's number of channels, at the plan's zoom, normalised if that is measured on each image.

    Raises:
        UsageError: the image has other channels, or holds NaN or infinity where it is normalised.
    """
    sample = resize(replace(sample, image=match_channels(sample.image, plan.data.channels)), plan.data.zoom)
    return replace(sample, image=plan.data.normalise(sample.image)) if plan.data.normalise.mean is None else sample


def collate(crops: list[tuple[str, np.ndarray, np.ndarray]]) -> Batch:
    """Crops of one shape as a batch."""
    keys, images, targets = zip(*crops, strict=True)
    return Batch(list(keys), torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets)))


def batches(crops: Crops, start: int, batch_size: int, *, rank: int, world: int) -> Iterator[Batch]:
    """The batches from position `start` of the row on: `batch_size` crops each, of which every process takes its share."""
    share = batch_size // world
    positions = (list(range(first, first + share)) for first in count(start + rank * share, batch_size))
    workers = min(8, (os.cpu_count() or 1) // world - 1) if crops.plan.training.device == "cuda" else 0  # a CPU is busy already
    yield from DataLoader(crops, batch_sampler=positions, collate_fn=collate, num_workers=max(0, workers))
