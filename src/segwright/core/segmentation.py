"""What is where: truth and prediction alike, for every task. Axes: P planes, N segments, K classes, *S spatial axes.

Views pass over the pixels once, however many segments there are (segment_kernels.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segwright.core.class_positions import ClassPositions
from segwright.core.classes import MAX_CLASSES, Classes
from segwright.core.errors import ShapeError
from segwright.core.picture import html_picture, paint

VOID = -1
ALL_TAKEN = 255  # eight bits, one for each plane that is taken at a pixel
LABEL_DTYPES = (np.uint8, np.int32, np.int64)  # of class maps that are read as they are; others become int32


@dataclass(frozen=True, eq=False)
class Segmentation:
    """N segments on a grid *S.

    `planes` is int32 (P, *S): i + 1 marks segment i, 0 nothing, -1 void (nobody knows). Segments that overlap lie in
    different planes. `class_ids` int32 (N,) index `classes`; `instance_ids` int32 (N,) are 0 for stuff, and the same number
    means the same object through a video; `scores` float32 (N,) are 1 for truth.
    """

    planes: np.ndarray
    class_ids: np.ndarray
    instance_ids: np.ndarray
    scores: np.ndarray
    classes: Classes

    def __post_init__(self) -> None:
        count = len(self.class_ids)
        if self.planes.ndim not in (3, 4):
            raise ShapeError(f"planes are {self.planes.shape}; (P, H, W) or (P, D, H, W) is needed")
        if not count == len(self.instance_ids) == len(self.scores):
            raise ShapeError(
                f"{count} class ids, {len(self.instance_ids)} instance ids and {len(self.scores)} scores were given; "
                "give one of each per segment"
            )
        if count and not 0 <= self.class_ids.min() <= self.class_ids.max() < len(self.classes):
            raise ShapeError(
                f"class ids reach from {self.class_ids.min()} to {self.class_ids.max()}, but there are {len(self.classes)} "
                f"classes (0..{len(self.classes) - 1}); mark pixels without a class as void ({VOID})"
            )

    @classmethod
    def semantic(cls, class_map: np.ndarray, classes: Classes | None = None) -> "Segmentation":
        """One stuff segment per class that occurs in an integer class map (*S), where VOID (-1) marks void.

        Raises:
            ShapeError: the map is not of integers, holds a value below -1, or a class that `classes` lacks.
        """
        limit = len(classes) if classes else MAX_CLASSES
        if not np.issubdtype(class_map.dtype, np.integer):
            raise ShapeError(f"a class map holds integers, not {class_map.dtype}; take the argmax of probabilities first")
        lowest, highest = int(class_map.min(initial=0)), int(class_map.max(initial=0))
        if lowest < VOID or highest >= limit:
            raise ShapeError(
                f"the class map holds {lowest}..{highest}, but there are {limit} classes (0..{limit - 1}); "
                f"mark pixels without a class as void ({VOID})"
            )
        from segwright.core import segment_kernels

        dtype = class_map.dtype if class_map.dtype in LABEL_DTYPES else np.dtype(np.int32)  # its values fit, as was checked
        labels = np.ascontiguousarray(class_map, dtype=dtype)
        is_there = np.zeros(highest + 2, dtype=bool)  # void, then class 0, ...
        segment_kernels.classes_present(labels.reshape(-1), is_there)
        present = np.flatnonzero(is_there[1:])
        segment_of = np.zeros(highest + 2, dtype=np.int32)
        segment_of[0] = VOID
        segment_of[present + 1] = np.arange(1, len(present) + 1)
        segment_map = np.empty(class_map.shape, dtype=np.int32)
        segment_kernels.look_up(labels.reshape(-1), segment_of, segment_map.reshape(-1))
        classes = classes or Classes.of([f"class_{k}" for k in range(highest + 1)])
        return cls.panoptic(segment_map, present, classes=classes)

    @classmethod
    def panoptic(
        cls,
        segment_map: np.ndarray,
        class_ids: Sequence[int] | np.ndarray,
        instance_ids: Sequence[int] | np.ndarray | None = None,
        *,
        scores: Sequence[float] | np.ndarray | None = None,
        classes: Classes | None = None,
    ) -> "Segmentation":
        """Disjoint segments from one map (*S) where i + 1 marks segment i, 0 nothing and -1 void. All are stuff by default.

        Raises:
            ShapeError: the map names a segment that has no class id.
        """
        class_ids = np.asarray(class_ids, dtype=np.int32)
        highest, lowest = int(segment_map.max(initial=0)), int(segment_map.min(initial=0))
        if highest > len(class_ids) or lowest < VOID:
            raise ShapeError(
                f"the segment map holds {lowest}..{highest}; {len(class_ids)} class ids allow -1..{len(class_ids)}"
            )
        return cls(
            planes=np.ascontiguousarray(segment_map, dtype=np.int32)[None],
            class_ids=class_ids,
            instance_ids=np.zeros(len(class_ids), np.int32) if instance_ids is None else np.asarray(instance_ids, np.int32),
            scores=np.ones(len(class_ids), np.float32) if scores is None else np.asarray(scores, np.float32),
            classes=classes or Classes.of([f"class_{k}" for k in range(int(class_ids.max(initial=0)) + 1)]),
        )

    @classmethod
    def instances(
        cls,
        masks: np.ndarray,
        class_ids: Sequence[int] | np.ndarray,
        *,
        instance_ids: Sequence[int] | np.ndarray | None = None,
        scores: Sequence[float] | np.ndarray | None = None,
        classes: Classes | None = None,
    ) -> "Segmentation":
        """Objects from bool masks (N, *S), which may overlap; they are numbered 1, 2, ... unless ids are given.

        Raises:
            ShapeError: the masks are not bool, or there is not one class id per mask.
        """
        if masks.dtype != bool:
            raise ShapeError(f"masks are {masks.dtype}, bool is needed; compare them with a threshold, such as masks > 0")
        if len(masks) != len(class_ids):
            raise ShapeError(f"{len(masks)} masks and {len(class_ids)} class ids were given; give one class id per mask")
        planes = _layered(masks)
        flat = cls.panoptic(
            planes[0],
            class_ids,
            np.arange(1, len(masks) + 1) if instance_ids is None else instance_ids,
            scores=scores,
            classes=classes,
        )
        return cls(planes, flat.class_ids, flat.instance_ids, flat.scores, flat.classes)

    def __len__(self) -> int:
        return len(self.class_ids)

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape *S."""
        return self.planes.shape[1:]

    def class_map(self) -> np.ndarray:
        """Class of each pixel, int32 (*S), VOID (-1) where it is void or nothing; a later plane covers an earlier one.

        Raises:
            ShapeError: the planes hold a segment that there is not.
        """
        from segwright.core import segment_kernels

        class_of = np.concatenate([[VOID, VOID], self.class_ids]).astype(np.int32)  # of void, nothing, the segments
        result = np.empty(self.shape, dtype=np.int32)
        if not segment_kernels.class_map(self._flat_planes(), class_of, result.reshape(-1)):
            raise ShapeError(
                f"planes hold {self.planes.min()}..{self.planes.max()}, but there are {len(self)} segments; "
                f"0..{len(self)} and {VOID} for void are what they may hold"
            )
        return result

    def class_positions(self) -> ClassPositions:
        """Where the pixels of each class of `class_map()` are, so that one can be drawn at once."""
        return ClassPositions.of_map(self.class_map(), len(self.classes))

    def mask(self, index: int) -> np.ndarray:
        """Pixels of one segment, bool (*S)."""
        found = self.planes[0] == index + 1
        for plane in self.planes[1:]:
            found |= plane == index + 1
        return found

    def masks(self) -> np.ndarray:
        """Pixels of all segments, bool (N, *S)."""
        from segwright.core import segment_kernels

        found = np.zeros((len(self), *self.shape), dtype=bool)  # memory that is never written to costs nothing
        segment_kernels.masks(self._flat_planes(), found.reshape(len(self), math.prod(self.shape)))
        return found

    def areas(self) -> np.ndarray:
        """Number of pixels of each segment, int64 (N,)."""
        from segwright.core import segment_kernels

        counts = np.zeros(len(self), dtype=np.int64)
        segment_kernels.areas(self._flat_planes(), counts)
        return counts

    def boxes_xyxy(self) -> np.ndarray:
        """Smallest box around each segment of a 2D grid, float32 (N, 4), right and bottom edge exclusive; zeros if empty.

        Raises:
            ShapeError: the grid is not 2D.
        """
        if len(self.shape) != 2:
            raise ShapeError(f"boxes are for 2D grids, this one is {self.shape}; take one slice, or use masks()")
        from segwright.core import segment_kernels

        low, high = np.full((len(self), 2), max(self.shape)), np.full((len(self), 2), -1)
        segment_kernels.boxes(np.ascontiguousarray(self.planes, dtype=np.int32), low, high)
        return np.where(high[:, :1] >= 0, np.concatenate([low, high + 1], axis=1), 0).astype(np.float32)

    def _flat_planes(self) -> np.ndarray:
        """The planes as int32 (P, n), n pixels in the order of memory."""
        return np.ascontiguousarray(self.planes, dtype=np.int32).reshape(len(self.planes), math.prod(self.shape))

    def _repr_html_(self) -> str:
        """The picture and legend that a notebook shows."""
        class_map = self.class_map()
        while class_map.ndim > 2:
            class_map = class_map[len(class_map) // 2]
        return html_picture(paint(class_map, self.classes.palette), self.classes, np.unique(class_map[class_map >= 0]))


def _layered(masks: np.ndarray) -> np.ndarray:
    """Planes int32 (P, *S) of masks bool (N, *S): each in the first plane where all of its pixels are free.

    For each pixel, a byte tells which of eight planes are taken there, so that all of them are looked at in one pass.
    """
    from segwright.core import segment_kernels

    shape, size = masks.shape[1:], math.prod(masks.shape[1:])
    taken = [np.zeros(size, dtype=np.uint8)]
    places = []  # plane, first pixel and end of each mask
    for mask in masks:
        mask_bytes = mask.reshape(-1).view(np.uint8)
        first, end = segment_kernels.extent(mask_bytes)
        mask_bytes = mask_bytes[first:end]
        eight = 0
        while (used := int(segment_kernels.bits_below(mask_bytes, taken[eight][first:end]))) == ALL_TAKEN:
            eight += 1
            if eight == len(taken):
                taken.append(np.zeros(size, dtype=np.uint8))
        free = ~used & (used + 1)  # the lowest bit that is not set
        segment_kernels.set_below(mask_bytes, np.uint8(free), taken[eight][first:end])
        places.append((8 * eight + free.bit_length() - 1, first, end))
    planes = np.zeros((1 + max((plane for plane, _, _ in places), default=0), size), dtype=np.int32)
    for number, (mask, (plane, first, end)) in enumerate(zip(masks, places, strict=True), start=1):
        mask_bytes = mask.reshape(-1).view(np.uint8)[first:end]
        segment_kernels.write_below(mask_bytes, np.int32(number), planes[plane, first:end])
    return planes.reshape(len(planes), *shape)
