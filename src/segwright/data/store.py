"""Samples on the network's grid, each decoded and resampled once as far as memory and disk allow.

Axes: N samples, K classes, *M of that grid.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np

from segwright.core import Dataset, Sample, Segmentation
from segwright.core.errors import naming
from segwright.data.disk_samples import DiskSamples
from segwright.data.stored_sample import StoredSample
from segwright.transforms.prepare import Preprocess

CACHE_BYTES = 2 << 30  # of samples kept in memory; with more data the rest is kept on disk, or decoded again each time
LARGE = 8 << 20  # bytes of a sample that is worth a place on disk: a smaller one is decoded in a few hundredths of a second
RARE = 0.02  # of the pixels: below, a class is found by looking for it


@dataclass(frozen=True, eq=False)
class ClassIndex:
    """Which classes each sample holds, `holds` bool (N, K), and of how many pixels each class has, `pixels` int64 (K,)."""

    holds: np.ndarray
    pixels: np.ndarray

    @classmethod
    def of(cls, truths: Iterable[Segmentation | None], num_classes: int) -> "ClassIndex":
        """The index of truths, of which one at a time is needed; a sample without one holds nothing."""
        holds, pixels = [], np.zeros(num_classes, np.int64)
        for truth in truths:
            counts = np.zeros(num_classes, np.int64)
            if truth is not None:
                np.add.at(counts, truth.class_ids, truth.areas())
            holds.append(counts > 0)
            pixels += counts
        return cls(np.array(holds, bool).reshape(-1, num_classes), pixels)

    @cached_property
    def frequency(self) -> np.ndarray:
        """The share of the samples that hold each class, float64 (K,)."""
        return self.holds.sum(axis=0) / max(len(self.holds), 1)

    @cached_property
    def rare(self) -> np.ndarray:
        """The classes that have some pixels, but few."""
        return np.flatnonzero((self.pixels > 0) & (self.pixels < RARE * self.pixels.sum()))

    @cached_property
    def images(self) -> list[np.ndarray]:
        """The numbers of the samples that hold each class."""
        return [np.flatnonzero(column) for column in self.holds.T]


@dataclass(eq=False)
class Store:
    """The samples of a data set under one way of preparing them; many threads may read.

    The first that come are kept in memory, large ones among the rest on `disk`, if there is one. Where a sample is kept changes
    nothing but time.
    """

    dataset: Dataset
    preprocess: Preprocess
    disk: DiskSamples | None = None
    items: dict[str, StoredSample] = field(default_factory=dict)
    bytes: int = 0
    lock: Lock = field(default_factory=Lock)
    making: dict[str, Lock] = field(default_factory=dict)
    indexing: Lock = field(default_factory=Lock)

    @property
    def index(self) -> ClassIndex:
        """Which classes each sample holds, on the grid of the files: one pass over all masks when it is first asked for.

        Raises:
            UsageError: a sample cannot be read.
        """
        with self.indexing:  # many threads may ask at once, and one pass is enough
            return self._index

    @cached_property
    def _index(self) -> ClassIndex:
        return ClassIndex.of(self._truths(), len(self.dataset.classes))

    def _truths(self) -> Iterator[Segmentation | None]:
        masks = self.dataset.without_images()
        for key in masks.keys:
            with naming(f"sample {key!r}"):
                sample = masks.load(key)
            yield sample.truth

    def read(self, key: str) -> StoredSample:
        """The item of a key.

        Raises:
            UsageError: the sample cannot be read, or has other channels than the network.
        """
        if (item := self._kept(key)) is not None:
            return item
        with self.lock:
            making = self.making.setdefault(key, Lock())
        with making:  # one thread decodes a sample for all that ask for it
            return self._kept(key) or self._made(key)

    def _kept(self, key: str) -> StoredSample | None:
        item = self.items.get(key)
        return item if item is not None and item.is_there() else None

    def _made(self, key: str) -> StoredSample:
        """The item of a key, decoded, and kept where there is room."""
        sample = self.dataset.load(key)
        size = self._bytes(sample)
        with self.lock:
            fits = self.bytes + size <= CACHE_BYTES
            self.bytes += size if fits else 0
        if fits or self.disk is None or size < LARGE:
            item = StoredSample.of(self.preprocess.resampled(sample))
        else:
            item = self.disk.stored(sample, self.preprocess)
        if fits or item.folder is not None:
            self.items[key] = item
        return item

    def _bytes(self, sample: Sample) -> int:
        """The memory that a sample will take on the network's grid."""
        image, normalise = sample.image.dtype, self.preprocess.normalise
        each = 4 if normalise.mean is None else image.itemsize  # 4: of what is normalised, float32
        planes = 0 if sample.truth is None else 4 * len(sample.truth.planes)
        return math.prod(self.preprocess.shape_of(sample.grid, sample.key)) * (self.preprocess.all_channels * each + planes)
