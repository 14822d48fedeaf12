"""Samples on the network's grid, each decoded and resampled once as far as memory allows.

Axes: N samples, C channels, K classes, *M of that grid.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np

from segwright.core import VOID, ClassPositions, Dataset, Sample, Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import UsageError, naming
from segwright.transforms.prepare import Preprocess

CACHE_BYTES = 2 << 30  # of samples kept in memory; with more data the rest is decoded again each time
RARE = 0.02  # of the pixels: below, a class is found by looking for it


@dataclass(eq=False)
class StoredSample:
    """One sample (C, *M), and where its classes lie, which is indexed when it is first asked for."""

    sample: Sample

    @cached_property
    def positions(self) -> ClassPositions:
        """The pixels of each class of the truth.

        Raises:
            UsageError: the sample has none.
        """
        if self.sample.truth is None:
            raise UsageError(f"sample {self.sample.key!r} has no truth; add its mask, or take it out of the data set")
        return self.sample.truth.class_positions()

    @cached_property
    def foreground(self) -> ClassPositions:
        """The same but for the background, which has no positions here: they would take nearly all of the memory.

        Raises:
            UsageError: the sample has no truth.
        """
        truth = self.sample.truth
        background = None if truth is None else background_of(truth.classes)
        if truth is None or background is None:
            return self.positions
        class_map = truth.class_map()
        class_map[class_map == background] = VOID
        return ClassPositions.of_map(class_map, len(truth.classes))


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
    """The samples of a data set under one way of preparing them; many threads may read."""

    dataset: Dataset
    preprocess: Preprocess
    items: dict[str, StoredSample] = field(default_factory=dict)
    bytes: int = 0
    lock: Lock = field(default_factory=Lock)
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
        if key in self.items:
            return self.items[key]
        item = StoredSample(self.preprocess.resampled(self.dataset.load(key)))
        truth = item.sample.truth
        size = item.sample.image.nbytes + (2 * truth.planes.nbytes if truth else 0)  # 2: positions take as much as a plane
        with self.lock:
            if key not in self.items and self.bytes + size <= CACHE_BYTES:
                self.items[key] = item
                self.bytes += size
        return item
