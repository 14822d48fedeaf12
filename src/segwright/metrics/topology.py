"""Whether masks hang together as they should: clDice and Betti errors. Axes: K classes, *S spatial axes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import ceil, prod
from typing import ClassVar

import numpy as np
from numba import njit

from segwright.core import Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.metrics.accumulators import Sums, mean, ratio
from segwright.metrics.class_maps import AXES, class_masks
from segwright.metrics.connected_components import ALL_NEIGHBOURS, FACE_NEIGHBOURS, count_components
from segwright.metrics.overlaps import check_pair
from segwright.metrics.skeleton import skeleton


@dataclass(frozen=True)
class Topology:
    """Scores of topology, `Sums` (6, K).

    Row 0 holds the clDice of each class added up over images, row 1 the images that have the class, rows 2-4 the errors of the
    Betti numbers 0, 1 and 2 added up, row 5 the volumes that have the class, since images have no Betti number 2.

    Betti numbers are those of whole images, or of patches of `patch_pixels` a side where given, as in Hu et al.
    Source: Shit et al. 2021, arXiv 2003.07311 (clDice); Hu et al. 2019, arXiv 1906.05404 (Betti error).
    """

    classes: Classes
    patch_pixels: int | None = field(default=None, kw_only=True)
    SCORES: ClassVar[tuple[str, ...]] = ("clDice", "Betti-0 error", "Betti-1 error")

    def __post_init__(self) -> None:
        if self.patch_pixels is not None and self.patch_pixels < 1:
            raise SettingError(f"patches of {self.patch_pixels} pixels were given, 1 or more are needed; leave it out for none")

    @property
    def convention(self) -> str:
        """How skeletons and Betti numbers are made, and what is averaged."""
        where = "of the whole image" if self.patch_pixels is None else f"per patch of {self.patch_pixels} pixels a side"
        return (
            "clDice: harmonic mean of the share of the predicted skeleton on the true mask and of the true skeleton on the "
            "predicted mask; 0 where only one of both has the class. Skeletons by Zhang-Suen (2D) and Lee (3D). Betti errors "
            f"{where}: absolute difference of the numbers of components (0), holes or tunnels (1) and, in volumes, "
            "cavities (2); foreground is connected across corners, what lies outside the image is background. All are averaged "
            "over the images that have the class in truth or prediction, then over classes. Pixels void in the truth belong to "
            "no class."
        )

    def count(self, prediction: Segmentation, truth: Segmentation) -> Sums:
        """What is added up of one image, (7, K).

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know.
        """
        check_pair(prediction, truth, self.classes)
        sums = np.zeros((7, len(self.classes)))
        for k, region, predicted, true in class_masks(prediction, truth, len(self.classes)):
            if predicted.any() or true.any():
                sums[:2, k] = cl_dice(predicted, true), 1
                sums[2 : 2 + true.ndim, k] = self.betti_errors(predicted, true, region, truth.shape)
                sums[5:, k] = true.ndim == AXES, prod(truth.shape)
        return Sums(sums)

    def betti_errors(
        self, predicted: np.ndarray, true: np.ndarray, region: tuple[slice, ...], shape: tuple[int, ...]
    ) -> np.ndarray:
        """Error of each Betti number, float64 (n,), of masks that fill a region of an image: whole, or the mean of patches."""
        if self.patch_pixels is None:
            return np.abs(betti_numbers(predicted) - betti_numbers(true)).astype(np.float64)
        total = np.zeros(len(shape))
        for part in _patches(region, self.patch_pixels):
            total += np.abs(betti_numbers(predicted[part]) - betti_numbers(true[part]))
        return total / prod(ceil(side / self.patch_pixels) for side in shape)

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """clDice from 0 to 1 and mean Betti errors by name, then each of them per class; Betti-2 where volumes were counted."""
        dice, images, *errors, volumes, _ = np.moveaxis(state.values, -2, 0)  # (..., K) each
        per_class = {"clDice": ratio(dice, images)}
        for order, (error, count) in enumerate(zip(errors, (images, images, volumes), strict=True)):
            if order < 2 or volumes.any():
                per_class[f"Betti-{order} error"] = ratio(error, count)
        scores = {title: mean(values) for title, values in per_class.items()}
        for title, values in per_class.items():
            scores |= {f"{title}/{name}": values[..., k] for k, name in enumerate(self.classes.names)}
        return scores

    def limits(self, states: Sequence[Sums]) -> dict[str, tuple[float, float]]:
        """Errors are counts, of no more than an image has pixels."""
        most = max((float(state.values[6].max(initial=0)) for state in states), default=0.0)
        return {f"Betti-{order} error": (0.0, most) for order in range(AXES)}


def cl_dice(predicted: np.ndarray, true: np.ndarray) -> float:
    """Centre line Dice of two bool masks (*S), 0 to 1; 0 where one of them is empty, NaN where both are.

    Raises:
        ShapeError: the masks have neither two nor three axes.
    """
    if not predicted.any() and not true.any():
        return float("nan")
    if not predicted.any() or not true.any():
        return 0.0
    predicted_line, true_line = skeleton(predicted), skeleton(true)
    precision = np.count_nonzero(predicted_line & true) / np.count_nonzero(predicted_line)
    sensitivity = np.count_nonzero(true_line & predicted) / np.count_nonzero(true_line)
    total = precision + sensitivity
    return float(2 * precision * sensitivity / total) if total else 0.0


def betti_numbers(mask: np.ndarray) -> np.ndarray:
    """Components and holes of a bool mask (H, W), or components, tunnels and cavities of (D, H, W), int64 (2,) or (3,).

    Foreground is connected across corners (8, 26 neighbours), background is not (4, 6), and surrounds the image.

    Raises:
        ShapeError: the mask has neither two nor three axes.
    """
    if mask.ndim not in ALL_NEIGHBOURS:
        raise ShapeError(
            f"the mask has {mask.ndim} axes, Betti numbers are for 2 or 3; give one image (H, W) or volume (D, H, W)"
        )
    padded = np.pad(mask, 1)
    components = count_components(padded, ALL_NEIGHBOURS[mask.ndim])
    if mask.ndim == 2:
        return np.array([components, components - euler_characteristic(padded)])
    cavities = count_components(~padded, FACE_NEIGHBOURS[3]) - 1  # the outside is none
    return np.array([components, components + cavities - euler_characteristic(padded), cavities])


def euler_characteristic(padded: np.ndarray) -> int:
    """Corners - edges + faces (- cubes) of the closed pixels or voxels of a bool mask (*S) with an empty margin."""
    image = padded.view(np.uint8).reshape((1,) * (AXES - padded.ndim) + padded.shape)
    return int(_euler(image, CELLS[padded.ndim]))


def _patches(region: tuple[slice, ...], side: int) -> Iterator[tuple[slice, ...]]:
    """The parts of a region, in its own coordinates, that fall into each tile of an image."""
    cuts = []
    for axis in region:
        starts = [axis.start, *range((axis.start // side + 1) * side, axis.stop, side)]
        cuts.append([slice(a - axis.start, b - axis.start) for a, b in zip(starts, [*starts[1:], axis.stop], strict=True)])
    yield from product(*cuts)


def _cells_at_a_corner(axes: int) -> np.ndarray:
    """Corners - edges + faces - cubes that begin at a corner of the grid, int64 (256,), by the 8 voxels around it as bits.

    A cell along some of the axes belongs to the mask where one of the voxels on that side does. In 2D no cell is along the
    first axis.
    """
    voxels = list(product((0, 1), repeat=3))  # the last axis changes fastest: voxel (z, y, x) is bit 4 z + 2 y + x
    table = np.zeros(256, np.int64)
    for cell in voxels[: 2**axes]:
        touching = sum(1 << bit for bit, voxel in enumerate(voxels) if all(v >= c for v, c in zip(voxel, cell, strict=True)))
        table += (-1) ** sum(cell) * (np.arange(256) & touching > 0)
    return table


CELLS = {axes: _cells_at_a_corner(axes) for axes in ALL_NEIGHBOURS}


@njit(cache=True, nogil=True)
def _euler(image, cells):
    """Add the cells up that begin at each corner of a padded volume (D, H, W); a single plane is its own neighbour."""
    D, H, W = image.shape
    total = 0
    for z in range(max(D - 1, 1)):
        for y in range(H - 1):
            one, two = image[z, y], image[z, y + 1]
            three, four = image[min(z + 1, D - 1), y], image[min(z + 1, D - 1), y + 1]
            code = 0
            for x in range(1, W):
                code = code >> 1 & 0b01010101  # the voxels at x become those at x - 1
                code |= one[x] << 1 | two[x] << 3 | three[x] << 5 | four[x] << 7
                total += cells[code]
    return total
