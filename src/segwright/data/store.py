"""Samples on the network's grid, each decoded and resampled once as far as memory allows. Axes: C channels, *M of that grid."""

from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

from segwright.core import ClassPositions, Dataset, Sample
from segwright.core.errors import UsageError
from segwright.transforms.prepare import Preprocess

CACHE_BYTES = 2 << 30  # of samples kept in memory; with more data the rest is decoded again each time


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


@dataclass(eq=False)
class Store:
    """The samples of a data set under one way of preparing them; many threads may read."""

    dataset: Dataset
    preprocess: Preprocess
    items: dict[str, StoredSample] = field(default_factory=dict)
    bytes: int = 0
    lock: Lock = field(default_factory=Lock)

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
