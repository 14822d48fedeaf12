"""What is where: truth and prediction alike, for every task. Axes: P planes, N segments, K classes, *S spatial axes.

Views pass over the pixels once, however many segments there are (segment_kernels.py).
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from segwright.core.classes import MAX_CLASSES, Classes
from segwright.core.errors import ShapeError
from segwright.core.visualise import html_picture, paint

T = TypeVar("T")
VOID = -1
ALL_TAKEN = 255  # eight bits, one for each plane that is taken at a pixel
WORD = 8  # bytes of a mask that are read at once
MANY_PIXELS = 10_000_000  # from here on threads save more than their start takes, a few tenths of a millisecond
MOST_THREADS = 4  # these wait for the memory, which is not faster for more
PARTS = 8  # of a piece of work, so that threads end at about one time
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
        highest, lowest = int(segment_map.max(initial=0)), int(segment_map.min(initial=0))
        if highest > len(class_ids) or lowest < VOID:
            raise ShapeError(
                f"the segment map holds {lowest}..{highest}; {len(class_ids)} class ids allow -1..{len(class_ids)}"
            )
        planes = np.ascontiguousarray(segment_map, dtype=np.int32)[None]
        return cls._of(planes, class_ids, instance_ids, scores, classes)

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
        numbers = np.arange(1, len(masks) + 1) if instance_ids is None else instance_ids
        return cls._of(_layered(masks), class_ids, numbers, scores, classes)

    @classmethod
    def regions(cls, masks: np.ndarray, classes: Classes) -> "Segmentation":
        """Stuff that may overlap from bool masks (K, *S), one of each class; each class that occurs has a plane of its own.

        So a later class covers an earlier one in `class_map()`.
        """
        present = np.flatnonzero(masks.reshape(len(masks), -1).any(axis=1))
        planes = np.zeros((max(1, len(present)), *masks.shape[1:]), np.int32)
        for index, k in enumerate(present):
            planes[index][masks[k]] = index + 1
        return cls._of(planes, present, None, None, classes)

    @classmethod
    def _of(
        cls,
        planes: np.ndarray,
        class_ids: Sequence[int] | np.ndarray,
        instance_ids: Sequence[int] | np.ndarray | None,
        scores: Sequence[float] | np.ndarray | None,
        classes: Classes | None,
    ) -> "Segmentation":
        """Segments of planes int32 (P, *S) with what is not given filled in, as `panoptic` says."""
        class_ids = np.asarray(class_ids, dtype=np.int32)
        return cls(
            planes=planes,
            class_ids=class_ids,
            instance_ids=np.zeros(len(class_ids), np.int32) if instance_ids is None else np.asarray(instance_ids, np.int32),
            scores=np.ones(len(class_ids), np.float32) if scores is None else np.asarray(scores, np.float32),
            classes=classes or Classes.of([f"class_{k}" for k in range(int(class_ids.max(initial=0)) + 1)]),
        )

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
        planes, flat = self._flat_planes(), found.reshape(len(self), math.prod(self.shape))

        def write(part: tuple[range, int]) -> None:
            pixels, plane = part
            segment_kernels.masks(planes[plane], pixels.start, pixels.stop, flat)

        # Threads go plane by plane, as those that write to one page at once both have to wait for it.
        parts = [(pixels, plane) for pixels in _parts(flat.shape[1]) for plane in range(len(planes))]
        _in_threads(write, parts, planes.size + found.size)
        return found

    def with_void(self, is_void: np.ndarray) -> "Segmentation":
        """The same, but void where `is_void` (*S); segments that lose all their pixels there are gone."""
        planes = self.planes.copy()
        planes[:, is_void] = 0
        planes[0, is_void] = VOID
        result = replace(self, planes=planes)
        return result.those((result.areas() > 0) | (self.areas() == 0))

    def those(self, is_kept: np.ndarray) -> "Segmentation":
        """Some of the segments, where bool (N,), in their order; pixels that only others have are then nothing."""
        if is_kept.all():
            return self
        number = np.concatenate([[VOID, 0], np.where(is_kept, np.cumsum(is_kept), 0)]).astype(np.int32)  # of void, nothing, ...
        return Segmentation(
            number[self.planes + 1], self.class_ids[is_kept], self.instance_ids[is_kept], self.scores[is_kept], self.classes
        )

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

    For each pixel, a byte tells which of eight planes are taken there, so that all of them are looked at in one pass. Most of
    a mask is empty: where it is not, is found first, and only there the pixels are looked at twice.
    """
    from segwright.core import segment_kernels

    shape = masks.shape[1:]
    height, width = math.prod(shape[:-1]), shape[-1]
    mask_bytes = np.ascontiguousarray(masks).view(np.uint8).reshape(len(masks), height, width)
    extents = np.zeros((len(masks), 4), dtype=np.int64)
    words = mask_bytes.reshape(-1)[: mask_bytes.size // WORD * WORD].view(np.uint64)

    def find(part: range) -> None:
        segment_kernels.extents(mask_bytes, words, part.start, part.stop, extents)

    _in_threads(find, _parts(len(masks)), masks.size)
    places = _places(mask_bytes, extents)
    planes = np.zeros((1 + int(places.max(initial=0)), height, width), dtype=np.int32)

    def write(plane: int) -> None:
        for index in np.flatnonzero(places == plane):
            segment_kernels.write_below(mask_bytes[index], extents[index], np.int32(index + 1), planes[plane])

    _in_threads(write, range(len(planes)), planes.size)
    return planes.reshape(len(planes), *shape)


def _places(mask_bytes: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """The plane of each of the masks uint8 (N, H, W), which have these extents, int64 (N,)."""
    from segwright.core import segment_kernels

    taken = [np.zeros(mask_bytes.shape[1:], dtype=np.uint8)]
    places = np.zeros(len(mask_bytes), dtype=np.int64)
    for index, (mask, extent) in enumerate(zip(mask_bytes, extents, strict=True)):
        eight = 0
        while (used := int(segment_kernels.bits_below(mask, extent, taken[eight]))) == ALL_TAKEN:
            eight += 1
            if eight == len(taken):
                taken.append(np.zeros_like(taken[0]))
        free = ~used & (used + 1)  # the lowest bit that is not set
        segment_kernels.set_below(mask, extent, np.uint8(free), taken[eight])
        places[index] = 8 * eight + free.bit_length() - 1
    return places


def _parts(count: int) -> list[range]:
    """The numbers 0..count-1 in at most `PARTS` parts of about one length."""
    limits = [count * part // PARTS for part in range(PARTS + 1)]
    return [range(start, stop) for start, stop in pairwise(limits) if start < stop]


def _in_threads(work: Callable[[T], None], parts: Sequence[T], pixels: int) -> None:
    """Do a piece of work with each part: in threads where all parts together are many pixels. Kernels hold no lock."""
    if len(parts) < 2 or pixels < MANY_PIXELS:
        for part in parts:
            work(part)
        return
    from concurrent.futures import ThreadPoolExecutor  # loading it takes some milliseconds

    with ThreadPoolExecutor(min(MOST_THREADS, len(parts), _cores())) as pool:
        list(pool.map(work, parts))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
