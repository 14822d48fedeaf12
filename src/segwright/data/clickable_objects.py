"""Data sets as promptable networks see them: everything that a person could click on is an object. Axes: P planes, H, W."""

from dataclasses import dataclass, replace

import numpy as np

from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.classes import background_of
from segwright.metrics.connected_components import ALL_NEIGHBOURS, connected_components

SMALLEST = 16  # pixels of an object: nobody clicks on less, and of nearly all masks it is noise at a border
OBJECT = Classes.of(["object"], is_thing=[True])


def clickable_objects(data: Dataset) -> Dataset:
    """The data set with one class, "object": numbered things as they are, and each connected piece of all other segments.

    The background is none, and neither is what has fewer than 16 pixels; their pixels are then nothing. Void stays void.
    """
    return replace(data, classes=OBJECT, load=_ClickableObjects(data, background_of(data.classes)))


@dataclass(frozen=True, eq=False)
class _ClickableObjects:
    """Loads samples whose segments are objects of one class; `background` is the class that holds none, if there is one."""

    data: Dataset
    background: int | None

    def __call__(self, key: str) -> Sample:
        return self._split(self.data.load(key))

    def without_image(self, key: str) -> Sample:
        """The sample, whose image has no channels where the format can leave it out."""
        return self._split(self.data.without_images().load(key))

    def _split(self, sample: Sample) -> Sample:
        truth = sample.truth
        if truth is None:
            return sample
        is_object = truth.instance_ids > 0
        is_region = ~is_object & (truth.class_ids != (VOID if self.background is None else self.background))
        as_object = np.concatenate([[VOID, 0], np.where(is_object, np.cumsum(is_object), 0)]).astype(np.int32)
        as_region = np.concatenate([[0, 0], np.where(is_region, np.arange(1, 1 + len(truth)), 0)]).astype(np.int32)
        planes, count = as_object[truth.planes + 1], int(is_object.sum())  # objects first, then the pieces of each plane
        for plane, given in zip(planes, truth.planes if is_region.any() else (), strict=False):
            pieces, found = connected_components(as_region[given + 1], ALL_NEIGHBOURS[given.ndim])
            is_piece = pieces > 0
            plane[is_piece] = pieces[is_piece] + count
            count += found
        return replace(sample, truth=_numbered(planes, count))


def _numbered(planes: np.ndarray, count: int) -> Segmentation:
    """So many objects in planes int32 (P, *S), without those that are too small, as a segmentation."""
    areas = np.bincount(planes.reshape(-1) + 1, minlength=count + 2)[2:]
    is_kept = areas >= SMALLEST
    number = np.concatenate([[VOID, 0], np.where(is_kept, np.cumsum(is_kept), 0)]).astype(np.int32)
    kept = int(is_kept.sum())
    return Segmentation(
        number[planes + 1],
        np.zeros(kept, np.int32),
        np.arange(1, kept + 1, dtype=np.int32),
        np.ones(kept, np.float32),
        OBJECT,
    )
