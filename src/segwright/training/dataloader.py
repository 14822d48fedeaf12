"""Samples to batches. Axes: B batch, C channels, *S spatial axes.

What a batch holds depends on the seed and on its position in the run alone, never on what was loaded before: so a run can
resume at any step, and two processes see together what one would see with twice the batch.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from typing import Any, TypeVar

import numpy as np
import torch

from segwright.core import Dataset, Sample
from segwright.core.errors import naming
from segwright.data.disk_samples import DiskSamples
from segwright.data.store import Store
from segwright.data.stored_sample import StoredSample
from segwright.plans.plan import Plan
from segwright.tasks import Batch, Task
from segwright.transforms.copy_paste import paste

AHEAD = 2  # batches made while a GPU works on one
MOST_THREADS = 8  # that make crops: kernels and decoders hold no lock, so more than this only wait for Python


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CropDataset:
    """The endless row of augmented crops of a data set: position n is always the same crop. Many threads may ask.

    Where the plan says how many of them differ, these are `kept`.
    """

    store: Store
    plan: Plan
    kept: dict[int, tuple[str, np.ndarray, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Dataset, plan: Plan) -> "CropDataset":
        """The crops of a data set that a plan asks for."""
        return cls(Store(data, plan.data.preprocess, DiskSamples(plan.training.crop)), plan)

    def __getitem__(self, position: int) -> tuple[str, np.ndarray, Any]:
        if self.plan.training.num_crops is None:
            return self._made(position)
        position = self._place(position)
        if position not in self.kept:
            self.kept[position] = self._made(position)
        return self.kept[position]

    @property
    def kept_bytes(self) -> int:
        """The bytes that a crop takes which is kept, on average over those that are; 0 where none is."""
        sizes = [_bytes_of((image, target)) for _, image, target in self.kept.values()]
        return sum(sizes) // max(len(sizes), 1)

    def _made(self, position: int) -> tuple[str, np.ndarray, Any]:
        plan = self.plan
        generator = np.random.default_rng([plan.training.seed, 1, position])
        crop = self._placed(position, generator, _whole)
        with naming(f"sample {crop.key!r}"):
            crop = plan.augmentation.change_values(crop, generator, plan.data.preprocess.class_channels)
            return crop.key, plan.data.preprocess.values(crop.image), plan.task.target(crop)

    def truth(self, position: int) -> Sample:
        """The crop at a position with an image of no channels (0, *S), which takes less time to make."""
        position = self._place(position)
        return self._placed(position, np.random.default_rng([self.plan.training.seed, 1, position]), StoredSample.without_image)

    def _place(self, position: int) -> int:
        """Where the crop of a position came first: once there were as many as may differ, they come again in other orders."""
        training = self.plan.training
        if training.num_crops is None or position < training.num_crops:
            return position
        round_, place = divmod(position, training.num_crops)
        return int(np.random.default_rng([training.seed, 5, round_]).permutation(training.num_crops)[place])

    def _placed(self, position: int, generator: np.random.Generator, part: Callable[[StoredSample], StoredSample]) -> Sample:
        """The crop of part of a sample at a position: where it lies, and what is pasted into it."""
        plan = self.plan
        key, class_id = plan.sampler.choose(self.store, position, plan.training.seed)
        with naming(f"sample {key!r}"):
            item = self.store.read(key)
            centre = partial(plan.sampler.pixel, item, class_id)
            crop = part(item).crop(plan.augmentation.geometric, plan.training.crop, generator, centre)
        return self._with_rare(crop, position, part)

    def _with_rare(self, crop: Sample, position: int, part: Callable[[StoredSample], StoredSample]) -> Sample:
        """A crop, pasted into it an object of a rare class out of another image, where that is due and possible."""
        plan, store = self.plan, self.store
        generator = np.random.default_rng([plan.training.seed, 4, position])  # its own: all else is as without pasting
        if not plan.augmentation.copy_paste.is_due(generator) or not len(store.index.rare):
            return crop
        k = int(generator.choice(store.index.rare))
        holding = [store.dataset.keys[row] for row in store.index.images[k]]
        key = str(generator.choice([other for other in holding if other != crop.key] or holding))
        with naming(f"sample {key!r}"):
            item = store.read(key)
            centre = partial(item.pixel, k)
            donor = part(item).crop(plan.augmentation.geometric, plan.training.crop, generator, centre)
        return paste(crop, donor, k, generator)

    def parts(self, positions: Sequence[int], accumulate: int) -> list[Batch]:
        """The crops at some positions, as so many batches of one size."""
        return _collated(self.plan.task, [self[position] for position in positions], accumulate)


def _bytes_of(target: Any) -> int:
    """The bytes of all arrays in a target."""
    if isinstance(target, torch.Tensor | np.ndarray):
        return int(target.nbytes)
    parts = target.values() if isinstance(target, Mapping) else target if isinstance(target, list | tuple) else ()
    return sum(map(_bytes_of, parts))


def _whole(item: StoredSample) -> StoredSample:
    return item


def batches(crops: CropDataset, start: int, accumulate: int, *, rank: int, world: int) -> Iterator[list[Batch]]:
    """The batches from position `start` of the row on, of which every process takes its share, each in parts to accumulate.

    For a GPU they are made ahead by threads, which share the decoded samples, and lie in pinned memory; a CPU is busy already.
    """
    training = crops.plan.training
    share = training.batch_size // world
    positions = (range(first, first + share) for first in count(start + rank * share, training.batch_size))
    if training.device == "cpu":
        yield from (crops.parts(ahead, accumulate) for ahead in positions)
        return
    pool = ThreadPoolExecutor(max(1, min(MOST_THREADS, (os.cpu_count() or 1) // world - 1)))
    try:
        for made in ahead_of(([pool.submit(crops.__getitem__, n) for n in ahead] for ahead in positions), AHEAD):
            parts = _collated(crops.plan.task, [crop.result() for crop in made], accumulate)
            yield [Batch(part.keys, part.image.pin_memory(), pinned(part.target)) for part in parts]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def ahead_of(started: Iterator[T], count: int) -> Iterator[T]:
    """The items of an iterator, which is asked for `count` more of them than were taken."""
    waiting = deque(islice(started, count))
    for item in started:
        waiting.append(item)
        yield waiting.popleft()
    yield from waiting


def _collated(task: Task, crops: list[tuple[str, np.ndarray, Any]], accumulate: int) -> list[Batch]:
    """Crops as so many batches of one size."""
    size = len(crops) // accumulate
    return [task.collate(crops[first : first + size]) for first in range(0, len(crops), size)]


def pinned(target: Any) -> Any:
    """A target whose tensors lie in pinned memory, from which a GPU fetches them while it works."""
    if isinstance(target, torch.Tensor):
        return target.pin_memory()
    if isinstance(target, Mapping):
        return {name: pinned(value) for name, value in target.items()}
    if isinstance(target, tuple) and hasattr(target, "_fields"):  # a named tuple stays one
        return type(target)(*map(pinned, target))
    return [pinned(value) for value in target] if isinstance(target, list | tuple) else target
