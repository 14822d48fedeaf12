"""How far two masks are apart along their borders. Axes: K classes, P planes, M border voxels, *S spatial axes.

A border voxel is a pixel or voxel of a class with a neighbour across an edge (2D) or a face (3D) that is not of it; beyond the
image nothing is. This is the mask less its erosion, as MONAI, medpy and most challenges have it, and the default here because
it is the simplest: distances are between voxels of the masks. A surface between voxels, weighed by its area, is in
`surface_distance_surfels`.

Sources: Hausdorff distance and its 95th percentile, Huttenlocher et al. 1993, doi 10.1109/34.232073; average symmetric surface
distance, Heimann et al. 2009, doi 10.1109/TMI.2009.2013851; surface Dice, Nikolov et al. 2021, doi 10.2196/26151, with border
voxels as in Seidlitz et al. 2022, doi 10.1016/j.media.2022.102533.

The percentile is taken in both directions, and the larger counts, as in MONAI and DeepMind's surface-distance; medpy takes one
percentile of both directions together, and as ASSD the mean of both directions' means. MONAI computes percentiles in float32,
which moved HD95 of thousands of border pixels by up to 1e-5 of itself. SimpleITK measures from all voxels of a mask, those
within the other at distance 0; here, a mask and its outline are 0 apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, ClassVar

import numpy as np
from numba import njit

from segwright.core import VOID, Classes, Segmentation
from segwright.core.classes import background_of
from segwright.core.errors import SettingError, ShapeError
from segwright.metrics.accumulators import Sums, mean, ratio
from segwright.metrics.nearest_distance import nearest_distance
from segwright.metrics.overlaps import check_pair, check_sizes

Compared = tuple[float, float, float, float]  # HD95, HD, ASSD and NSD of one class in one image
WITHIN = 1 + 1e-9  # a tolerance of 0.3 mm reaches three steps of 0.1 mm, whose sum is a little more in binary


@dataclass(frozen=True)
class SurfaceDistance:
    """Distances between border voxels, averaged over images, `Sums` (6, K) of each class.

    Rows are HD95, HD, ASSD, NSD, the images that have the class, and their diagonals.
    """

    classes: Classes
    tolerance_mm: float = 1.0  # of NSD: the smallest of the Medical Segmentation Decathlon, and the spacing of many scans
    SCORES: ClassVar[tuple[str, ...]] = ("HD95", "HD", "ASSD", "NSD")
    NEEDS_SPACING: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_tolerance(self.tolerance_mm)

    @property
    def convention(self) -> str:
        """What is a border, how distances become scores, and what happens to empty masks and void."""
        return (
            "Distances are between border voxels: those of a class with a neighbour across a face that is not of it or lies "
            "beyond the image. HD is the largest distance from a border to the other, HD95 the larger of both directions' 95th "
            f"percentiles, ASSD the mean over both borders, NSD the share of both within {self.tolerance_mm:g}. {RULES}"
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
        predicted, true = borders(prediction, len(self.classes)), borders(truth, len(self.classes))

        def compared(ours: np.ndarray, theirs: np.ndarray) -> Compared:
            both = nearest_distance(ours, theirs, steps), nearest_distance(theirs, ours, steps)
            pooled = np.concatenate(both)
            hd95 = max(np.percentile(one, 95) for one in both)  # per cent, linear between neighbours
            return hd95, pooled.max(), pooled.mean(), float(np.mean(pooled <= self.tolerance_mm * WITHIN))

        return by_pairs(predicted, true, compared, worst(truth.shape, steps))

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Distances in mm and NSD from 0 to 1: means over classes, then each class as "HD95/liver"."""
        return averages(state, self.SCORES, self.classes)

    def limits(self, states: Sequence[Sums]) -> dict[str, tuple[float, float]]:
        """No distance is longer than the longest diagonal."""
        return longest(states, self.SCORES)


RULES = (
    "Distances are in mm, in pixels where the spacing is unknown, and each score is averaged over images, then over classes "
    "but one called background. A class neither in an image nor predicted there is left out; one that is missing or predicted "
    "where there is none gets the diagonal of the image as its distances and NSD 0. Pixels void in the truth are taken out of "
    "both, like the world beyond the image."
)


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from each border voxel of a prediction to the border of the truth, and back, float64 (M,) each.

    Masks are bool (*S) of one shape. Without spacing, distances are in pixels. An empty mask has no border voxels, and the
    distances to it are infinite.

    Raises:
        ShapeError: the masks differ in shape or are not 2D or 3D, or the spacing has another number of axes.
        SettingError: the spacing is not positive.
    """
    check_sizes(prediction.shape, truth.shape)
    steps = spacing_of(truth.shape, spacing_mm)
    ours, theirs = (borders(Segmentation.panoptic((mask > 0).astype(np.int32), [0]), 1)[0] for mask in (prediction, truth))
    return nearest_distance(ours, theirs, steps), nearest_distance(theirs, ours, steps)


# What measures along borders and along surface elements have in common


def comparable(prediction: Segmentation, truth: Segmentation, classes: Classes) -> tuple[Segmentation, Segmentation]:
    """The prediction and the truth, both with nothing where the truth is void.

    Raises:
        ShapeError: both differ in size.
        UsageError: one of them holds a class that `classes` lacks.
    """
    check_pair(prediction, truth, classes)
    void = truth.planes[0] == VOID
    if not void.any():
        return prediction, truth
    known = [replace(given, planes=np.where(void, 0, given.planes)) for given in (prediction, truth)]
    return known[0], known[1]


def spacing_of(shape: tuple[int, ...], spacing_mm: tuple[float, ...] | None) -> tuple[float, float, float]:
    """Spacing along z, y and x of an image (*S): 1 where it is unknown, and along the z that a 2D image lacks.

    Raises:
        ShapeError: the image is neither 2D nor 3D, or has another number of axes than the spacing.
        SettingError: a spacing is not a positive number.
    """
    if len(shape) not in (2, 3):
        raise ShapeError(f"the image is {shape}; surfaces are those of (H, W) or (D, H, W), so take one image at a time")
    steps = (1.0,) * len(shape) if spacing_mm is None else tuple(map(float, spacing_mm))
    if len(steps) != len(shape):
        raise ShapeError(f"spacing {steps} has {len(steps)} values, the image {shape} {len(shape)} axes; give one per axis")
    if not all(isfinite(step) and step > 0 for step in steps):
        raise SettingError(f"spacing {steps} was given; distances need positive numbers in mm, or None to count in pixels")
    return (1.0, *steps)[-3], steps[-2], steps[-1]


def check_tolerance(tolerance_mm: float) -> None:
    """Refuse a tolerance that is no distance.

    Raises:
        SettingError: it is negative or not finite.
    """
    if not (isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise SettingError(f"a tolerance of {tolerance_mm} mm was given; 0 or more is needed, such as the spacing of images")


def worst(shape: tuple[int, ...], steps: tuple[float, ...]) -> np.ndarray:
    """What a class adds that only one of both has, (6,): the diagonal in mm as each distance, no NSD, one image and it."""
    diagonal = float(np.linalg.norm(np.multiply(shape, steps[-len(shape) :])))
    return np.array([diagonal, diagonal, diagonal, 0.0, 1.0, diagonal])


def by_pairs(
    predicted: Sequence[Any], true: Sequence[Any], compared: Callable[[Any, Any], Compared], worst: np.ndarray
) -> Sums:
    """The sums (6, K) of one image from its K predicted and K true surfaces: of both `compared`, or the `worst` (6,) of one."""
    values = np.zeros((6, len(true)))
    for k, (ours, theirs) in enumerate(zip(predicted, true, strict=True)):
        if len(ours) or len(theirs):
            values[:, k] = worst
        if len(ours) and len(theirs):
            values[:4, k] = compared(ours, theirs)
    return Sums(values)


def averages(state: Sums, titles: tuple[str, ...], classes: Classes) -> dict[str, np.ndarray]:
    """Each score as its mean over images by class, and the mean of these over classes, from sums (..., 6, K).

    A class called background is left out of the mean, unless it is alone: its border runs along the edge of the image too.
    """
    *totals, images, _ = np.moveaxis(state.values, -2, 0)  # (..., K) each
    by_class = {title: ratio(total, images) for title, total in zip(titles, totals, strict=True)}
    background = background_of(classes)
    averaged = [k for k in range(len(classes)) if k != background] or [0]
    scores = {title: mean(values[..., averaged]) for title, values in by_class.items()}
    for title, values in by_class.items():
        scores |= {f"{title}/{name}": values[..., k] for k, name in enumerate(classes.names)}
    return scores


def longest(states: Sequence[Sums], titles: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """The limits of the distances among four titles, of which the last is a share, from states (6, K)."""
    diagonal = max(float(state.values[-1].max()) for state in states)
    return dict.fromkeys(titles[:-1], (0.0, diagonal))


def grids_of(segmentation: Segmentation) -> tuple[np.ndarray, np.ndarray]:
    """Planes int32 (P, D, H, W), a 2D image of depth 1, and the class of the segments 0, 1, ..., int32, -1 of nothing."""
    planes = segmentation.planes
    planes = planes[:, None] if planes.ndim == 3 else planes  # axes: planes, H, W
    return np.ascontiguousarray(planes, np.int32), np.array([-1, *segmentation.class_ids], np.int32)


def by_class(class_ids: np.ndarray, items: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """The items (M, ...) of each class, in the order they had, from the class of each (M,)."""
    order = np.argsort(class_ids.astype(np.uint16), kind="stable")  # 16 bits hold any class, and are sorted in linear time
    return np.split(items[order], np.cumsum(np.bincount(class_ids, minlength=num_classes))[:-1])


# Borders


def borders(segmentation: Segmentation, num_classes: int) -> list[np.ndarray]:
    """Border voxels (z, y, x) of each class, int32 (M, 3) in rising order; z is 0 in 2D. One pass serves all classes."""
    planes, class_of = grids_of(segmentation)
    is_plain = len(planes) == 1 and len(np.unique(class_of)) == len(class_of)  # other segments are other classes
    class_ids, voxels = _border_voxels(planes, class_of, len(segmentation.shape) == 3, is_plain)
    return by_class(class_ids, voxels, num_classes)


@njit(cache=True, nogil=True)
def _border_voxels(planes, class_of, is_volume, is_plain):
    """Class (M,) and position (M, 3) of each border voxel, by z, y, x."""
    P, D, H, W = planes.shape
    class_ids, voxels, count = np.empty(W, np.int32), np.empty((W, 3), np.int32), 0
    nothing = np.zeros(W, np.int32)
    flags = np.zeros(-(-W // 8) * 8, np.uint8)
    words = flags.view(np.uint64)  # 8 pixels at a time: most are no border
    for z in range(D):
        for y in range(H):
            if count + P * W > len(class_ids):
                class_ids, voxels = longer(class_ids, P * W), longer(voxels, P * W)
            flags[:] = 0
            for p in range(P):
                row = planes[p, z, y]
                if row.max() <= 0:
                    continue
                above, below = planes[p, z, y - 1] if y else nothing, planes[p, z, y + 1] if y < H - 1 else nothing
                before, behind = row, row
                if is_volume:
                    before, behind = planes[p, z - 1, y] if z else nothing, planes[p, z + 1, y] if z < D - 1 else nothing
                _mark(row, above, below, before, behind, flags)
            for word in range(len(words)):
                if words[word] == 0:
                    continue
                for entry in range(word * 8 * P, min(word * 8 + 8, W) * P):
                    x, p = entry // P, entry % P
                    k = class_of[max(planes[p, z, y, x], 0)]
                    if flags[x] and k >= 0 and (is_plain or _is_border(planes, class_of, is_volume, p, z, y, x)):
                        class_ids[count] = k
                        voxels[count, 0], voxels[count, 1], voxels[count, 2] = z, y, x
                        count += 1
    return class_ids[:count], voxels[:count]


@njit(cache=True, nogil=True)
def longer(items: np.ndarray, room: int) -> np.ndarray:
    """A copy of items (M, ...) with twice their room, and `room` more."""
    grown = np.empty((2 * len(items) + room, *items.shape[1:]), items.dtype)
    grown[: len(items)] = items
    return grown


@njit(cache=True, nogil=True)
def _mark(row, above, below, before, behind, flags):
    """Flag pixels of segments that differ from a neighbour in their row or the rows beside it, or end their row."""
    for x in range(len(row)):
        here = row[x]
        flags[x] |= (here > 0) & ((here != above[x]) | (here != below[x]) | (here != before[x]) | (here != behind[x]))
    middle, left, right, inner = row[1:-1], row[:-2], row[2:], flags[1:]
    for x in range(len(middle)):
        inner[x] |= (middle[x] > 0) & ((middle[x] != left[x]) | (middle[x] != right[x]))
    flags[0] |= row[0] > 0
    flags[len(row) - 1] |= row[-1] > 0


@njit(cache=True, nogil=True)
def _is_border(planes, class_of, is_volume, p, z, y, x):
    """Whether a neighbour in no plane has the class of this pixel, which no earlier plane has here."""
    _, D, H, W = planes.shape
    k = class_of[planes[p, z, y, x]]
    if _has(planes[:p], class_of, z, y, x, k):
        return False
    if x == 0 or x == W - 1 or y == 0 or y == H - 1 or (is_volume and (z == 0 or z == D - 1)):
        return True
    for side in (-1, 1):
        if not (_has(planes, class_of, z, y, x + side, k) and _has(planes, class_of, z, y + side, x, k)):
            return True
        if is_volume and not _has(planes, class_of, z + side, y, x, k):
            return True
    return False


@njit(cache=True, nogil=True)
def _has(planes, class_of, z, y, x, k):
    """Whether a plane has the class k at a pixel."""
    found = False
    for p in range(len(planes)):
        found |= class_of[max(planes[p, z, y, x], 0)] == k  # void counts as nothing
    return found
