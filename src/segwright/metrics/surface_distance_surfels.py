"""How far two masks are apart along the surfaces between their voxels, by area. Axes: K classes, P planes, M elements.

Where `surface_distance` counts border voxels, this weighs pieces of a surface by area, in 2D pieces of a contour by length:
Nikolov et al. 2021, doi 10.2196/26151, as in DeepMind's surface-distance and MONAI with use_subvoxels. Where 8 voxels (4
pixels) meet and some but not all are of a class, is an element. Its place is that corner, its area that of the surface through
the middles between voxels in and out (marching cubes, Lorensen and Cline 1987, doi 10.1145/37401.37422).

Against border voxels: a mask one voxel thick has two surfaces, not one border; a slanting surface counts by its area, not its
voxels; unequal spacing weighs the sides unequally; percentiles are not interpolated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, ClassVar

import numpy as np
from numba import njit

from segwright.core import Classes, Segmentation
from segwright.metrics.accumulators import Sums
from segwright.metrics.nearest_distance import nearest_distance
from segwright.metrics.overlaps import check_sizes
from segwright.metrics.surface_distance import (
    RULES,
    WITHIN,
    Compared,
    averages,
    by_class,
    by_pairs,
    check_tolerance,
    comparable,
    grids_of,
    longer,
    longest,
    spacing_of,
    worst,
)


@dataclass(frozen=True)
class SurfaceDistanceSurfels:
    """Distances between surface elements, averaged over images, `Sums` (6, K) as those of `SurfaceDistance`."""

    classes: Classes
    tolerance_mm: float = 1.0  # of NSD, as for border voxels
    SCORES: ClassVar[tuple[str, ...]] = ("element HD95", "element HD", "element ASSD", "element NSD")
    NEEDS_SPACING: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance_mm)

    @property
    def convention(self) -> str:
        """What a surface element is, how distances become scores, and what happens to empty masks and void."""
        return (
            "Distances are between surface elements, which lie where voxels of a class meet others or the end of the image, "
            "each weighed by its area (in 2D its length). HD is the largest distance from a surface to the other, HD95 the "
            "larger of both directions' distances within which 95 % of the area lies, ASSD the mean over both surfaces, NSD "
            f"the share of both within {self.tolerance_mm:g}. {RULES}"
        )

    def count(self, prediction: Segmentation, truth: Segmentation, spacing_mm: tuple[float, ...] | None = None) -> Sums:
        """Scores of each class of one image, whether it has them, and its diagonal, (6, K).

        Distances are in mm, in pixels without spacing.

        Raises:
            ShapeError: prediction and truth differ in size, or the spacing in axes.
            SettingError: the spacing is not positive.
            UsageError: one of them holds a class that this metric does not know.
        """
        prediction, truth = comparable(prediction, truth, self.classes)
        steps = spacing_of(truth.shape, spacing_mm)
        predicted, true = elements(prediction, len(self.classes)), elements(truth, len(self.classes))

        def compared(ours: Any, theirs: Any) -> Compared:
            forth, back = _measured(ours, theirs, steps), _measured(theirs, ours, steps)
            distances, areas = (np.concatenate(pair) for pair in zip(forth, back, strict=True))
            hd95 = max(percentile(*forth, 95), percentile(*back, 95))  # per cent of the area
            nsd = areas[distances <= self.tolerance_mm * WITHIN].sum() / areas.sum()
            return hd95, distances.max(), float(np.average(distances, weights=areas)), nsd

        return by_pairs(predicted, true, compared, worst(truth.shape, steps))

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Distances in mm and NSD from 0 to 1: means over classes, then each class as "element HD95/liver"."""
        return averages(state, self.SCORES, self.classes)

    def limits(self, states: Sequence[Sums]) -> dict[str, tuple[float, float]]:
        """No distance is longer than the longest diagonal."""
        return longest(states, self.SCORES)


Weighed = tuple[np.ndarray, np.ndarray]


def element_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...] | None = None
) -> tuple[Weighed, Weighed]:
    """Distances in mm and areas of the surface elements of a prediction to the truth, and back, float64 (M,) each.

    Masks are bool (*S) of one shape. Areas are in mm squared, of 2D masks lengths in mm; without spacing, steps are 1. An empty
    mask has no elements, and the distances to it are infinite.

    Raises:
        ShapeError: the masks differ in shape or are not 2D or 3D, or the spacing has another number of axes.
        SettingError: the spacing is not positive.
    """
    check_sizes(prediction.shape, truth.shape)
    steps = spacing_of(truth.shape, spacing_mm)
    ours, theirs = (elements(Segmentation.panoptic((mask > 0).astype(np.int32), [0]), 1)[0] for mask in (prediction, truth))
    return _measured(ours, theirs, steps), _measured(theirs, ours, steps)


def _measured(ours: np.ndarray, theirs: np.ndarray, steps: tuple[float, float, float]) -> Weighed:
    """Distance of each of our elements int32 (M, 4) to the nearest of theirs (N, 4), and its area, float64 (M,) each."""
    return nearest_distance(ours[:, :3], theirs[:, :3], steps), areas_of_codes(steps)[ours[:, 3]]


def percentile(distances: np.ndarray, areas: np.ndarray, percent: float) -> float:
    """The smallest distance within which that share of the area lies, from distances and areas (M,), M > 0."""
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    place = min(int(np.searchsorted(share, percent / 100)), len(share) - 1)  # rounding may leave the last share below 1
    return float(distances[order[place]])


# Areas


def areas_of_codes(steps: tuple[float, float, float]) -> np.ndarray:
    """The area of an element by its code, float64 (256,): bit 4 z + 2 y + x says whether the voxel (z, y, x) around it is in.

    Of a 2D image, both slices are alike, and a step of 1 along z makes the area of the wall the length of the contour.
    """
    codes, normals = _pieces()
    faces = np.array([steps[1] * steps[2], steps[0] * steps[2], steps[0] * steps[1]])
    return np.bincount(codes, np.linalg.norm(normals * faces, axis=1), minlength=256)


@cache
def _pieces() -> tuple[np.ndarray, np.ndarray]:
    """The flat pieces of all elements for steps of 1: the code of each, int64 (T,), and its normal, float64 (T, 3).

    Of the voxels in and out the fewer are taken; those that touch along edges or corners only have a surface each.
    """
    cells = list(product((0, 1), repeat=3))
    codes: list[int] = []
    normals: list[tuple[float, ...]] = []
    for code in range(256):
        inside = {cell for bit, cell in enumerate(cells) if code >> bit & 1}
        rest = inside if len(inside) <= 4 else set(cells) - inside  # half of 8
        while rest:
            part = {min(rest)}
            while grown := {cell for cell in rest - part for other in part if _steps_apart(cell, other) == 1}:
                part |= grown
            rest = rest - part
            normals += _normals_of(part)
            codes += [code] * (len(normals) - len(codes))
    return np.array(codes), np.array(normals)


def _steps_apart(cell: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Along how many axes two of the 8 voxels differ."""
    return sum(a != b for a, b in zip(cell, other, strict=True))


def _normals_of(part: set[tuple[int, ...]]) -> list[tuple[float, ...]]:
    """Normals, as long as their area, of the flat pieces around 1 to 4 voxels connected by faces, all steps 1.

    Signs are left out, as they do not change areas.
    """
    neighbours = {cell: [other for other in part if _steps_apart(cell, other) == 1] for cell in part}
    joined = {axis for cell, others in neighbours.items() for other in others for axis in range(3) if cell[axis] != other[axis]}
    across = tuple(float(axis not in joined) for axis in range(3))  # 1 for the axes along which no two are joined
    if len(part) == 1:  # a triangle that cuts off a corner
        return [(1 / 8, 1 / 8, 1 / 8)]
    if len(part) == 2:  # a rectangle that cuts off an edge
        return [tuple(0.5 * axis for axis in across)]
    if len(part) == 3:  # half a face, and a rectangle aslant
        return [tuple(0.5 * axis for axis in across), (3 / 8, 3 / 8, 3 / 8)]
    if any(across):  # four in a square: a face
        return [across]
    inner = [cell for cell in part if len(neighbours[cell]) == 2]
    if not inner:  # one and its three neighbours: a hexagon
        return [(3 / 4, 3 / 4, 3 / 4)]
    middle = [float(a != b) for a, b in zip(*inner, strict=True)].index(1.0)  # a chain of four: the axis of its middle join
    ends = [tuple(0.25 * (axis in (middle, end)) for axis in range(3)) for end in range(3) if end != middle]
    return [(1 / 2, 1 / 2, 1 / 2), *ends]  # two triangles aslant in a line, and one at each end


# Elements


def elements(segmentation: Segmentation, num_classes: int) -> list[np.ndarray]:
    """Corner (z, y, x) and code of the surface elements of each class, int32 (M, 4) in rising order; z is 0 in 2D.

    The corner (z, y, x) is where the voxel of that index begins. One pass serves all classes.
    """
    planes, class_of = grids_of(segmentation)
    class_ids, corners = _elements(planes, class_of, is_volume=len(segmentation.shape) == 3)
    return by_class(class_ids, corners, num_classes)


@njit(cache=True, nogil=True)
def _elements(planes, class_of, is_volume):
    """Class (M,), corner and code (M, 4) of each surface element, by z, y, x."""
    P, D, H, W = planes.shape
    room = 8 * P * (W + 1)  # a row of corners in each of which all voxels differ
    class_ids, corners, count = np.empty(room, np.int32), np.empty((room, 4), np.int32), 0
    around = np.empty((P, 8), np.int32)
    nothing = np.zeros(W, np.int32)
    flags = np.zeros(-(-(W + 1) // 8) * 8, np.uint8)
    words = flags.view(np.uint64)  # 8 corners at a time: most lie within a segment
    is_empty = np.empty((D, H), np.bool_)
    for z in range(D):
        for y in range(H):
            is_empty[z, y] = planes[:, z, y].max() <= 0
    for z in range(D + 1 if is_volume else 1):
        behind = z - 1 if is_volume else 0
        for y in range(H + 1):
            if count + room > len(class_ids):
                class_ids, corners = longer(class_ids, room), longer(corners, room)
            above, below = max(y - 1, 0), min(y, H - 1)
            before, after = max(behind, 0), min(z, D - 1)
            if is_empty[before, above] and is_empty[before, below] and is_empty[after, above] and is_empty[after, below]:
                continue
            flags[:] = 0
            for p in range(P):
                _mark(
                    planes[p, behind, y - 1] if behind >= 0 and y else nothing,
                    planes[p, behind, y] if behind >= 0 and y < H else nothing,
                    planes[p, z, y - 1] if z < D and y else nothing,
                    planes[p, z, y] if z < D and y < H else nothing,
                    flags,
                )
            for word in range(len(words)):
                if words[word] == 0:
                    continue
                for x in range(word * 8, min(word * 8 + 8, W + 1)):
                    if not flags[x]:
                        continue
                    _look_around(planes, class_of, behind, z, y, x, around)
                    for entry in range(8 * P):
                        code = _code(around, entry)
                        if code not in (0, 255):  # all 8 are in: the element of another plane
                            class_ids[count] = around[entry // 8, entry % 8]
                            corners[count, 0], corners[count, 1], corners[count, 2], corners[count, 3] = z, y, x, code
                            count += 1
    return class_ids[:count], corners[:count]


@njit(cache=True, nogil=True)
def _mark(first, second, third, fourth, flags):
    """Flag corners where the voxels of the four rows (W,) that meet there are not all of one segment."""
    W = len(fourth)
    left, right = flags[:W], flags[1 : W + 1]
    for x in range(W):
        differs = (first[x] != fourth[x]) | (second[x] != fourth[x]) | (third[x] != fourth[x])
        left[x] |= differs
        right[x] |= differs
    inner, before, after = flags[1:W], fourth[: W - 1], fourth[1:]
    for x in range(W - 1):
        inner[x] |= before[x] != after[x]
    flags[0] |= fourth[0] > 0
    flags[W] |= fourth[W - 1] > 0


@njit(cache=True, nogil=True)
def _look_around(planes, class_of, behind, z, y, x, around):
    """Write the classes of the 8 voxels around a corner, -1 for none, by plane and bit of the code into (P, 8)."""
    _, D, H, W = planes.shape
    around[:] = -1
    for bit in range(8):
        slice_, row, column = z if bit & 4 else behind, y - 1 + (bit >> 1 & 1), x - 1 + (bit & 1)
        if 0 <= slice_ < D and 0 <= row < H and 0 <= column < W:
            for p in range(len(planes)):
                around[p, bit] = class_of[max(planes[p, slice_, row, column], 0)]  # void counts as nothing


@njit(cache=True, nogil=True)
def _code(around, entry):
    """Code of the class of an entry in (P, 8); 0 if it has none or an earlier entry has it too."""
    k = around[entry // 8, entry % 8]
    if k < 0:
        return 0
    code = 0
    for other in range(around.size):
        if around[other // 8, other % 8] == k:
            if other < entry:
                return 0
            code |= 1 << (other % 8)
    return code
