"""What nnU-Net derives from spacings, shapes and memory: patch, batch, and the stages of its networks.

The rules of nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z) and of its residual encoders M, L and XL (arXiv
2404.09556), each a function that returns its value and the reason. They are about three axes, of which the one with the largest
spacing comes first; images of two axes have the plan "2d" alone.

The plans are those of nnunetv2 2.8 to the last number, which the tests hold against plans that it made.

Axes: N images, n = 2 or 3 spatial axes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np

from segwright.core.errors import SettingError
from segwright.models import nnunet
from segwright.models.nnunet import NEAR, stages

ANISOTROPIC = 3  # times the spacing of the others: such slices are thick
THIN_PERCENTILE = 10  # of the spacings of thick slices, few enough without interpolating most of them from their neighbours
FIRST_FEATURES = 32  # doubled at each stage
MOST_FEATURES = {2: 512, 3: 320}
LARGEST_PATCH = {2: 2048, 3: 256}  # pixels a side, if all sides were equal: more than fits into memory
REFERENCE_BATCH = {2: 12, 3: 2}  # at which the values of `Size` were measured
SMALLEST_BATCH = 2
LOW_RESOLUTION = 0.25  # of the usual volume: a patch that sees less of it does not know where it is
COARSER = 1.03  # by how much spacings grow at a time until a patch sees enough
WORTHWHILE = 2  # times fewer voxels, or the coarser network would add nothing


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of a memory a kind of network may use, by the values in its maps at training: `values` for 2 and 3 axes.

    They were measured at `memory_gb`, and a batch may hold `most_covered` of the pixels of a data set at most.
    """

    is_residual: bool
    values: tuple[int, int]
    memory_gb: float
    most_covered: float

    def limit(self, axes: int, memory_gb: float) -> float:
        """The values that the maps of the reference batch may have."""
        return self.values[axes - 2] * (memory_gb / self.memory_gb)


SIZES = {  # by the names of nnU-Net's plans; all numbers are its authors'
    "nnUNetPlans": Size(is_residual=False, values=(85_000_000, 560_000_000), memory_gb=8, most_covered=0.05),
    "nnUNetResEncUNetMPlans": Size(is_residual=True, values=(135_000_000, 680_000_000), memory_gb=8, most_covered=1),
    "nnUNetResEncUNetLPlans": Size(is_residual=True, values=(380_000_000, 2_100_000_000), memory_gb=24, most_covered=1),
    "nnUNetResEncUNetXLPlans": Size(is_residual=True, values=(560_000_000, 3_600_000_000), memory_gb=40, most_covered=1),
}


@dataclass(frozen=True, kw_only=True)
class Topology:
    """One plan: a network, the patch (n,) and the batch it learns from, in pixels of `spacing_mm` (n,), and why."""

    spacing_mm: tuple[float, ...]
    median_shape: tuple[float, ...]
    patch: tuple[int, ...]
    batch_size: int
    network: nnunet.Config
    reasons: dict[str, str] = field(default_factory=dict, compare=False)


def target_spacing(spacings_mm: np.ndarray, shapes: np.ndarray) -> tuple[np.ndarray, str]:
    """The spacing float64 (n,) that images of spacings (N, n) and shapes (N, n) are resampled to.

    The median; of thick slices, of which there are few, the thinner ones: most would be interpolated otherwise.
    """
    target, sizes = np.median(spacings_mm, axis=0), np.median(shapes, axis=0)
    if len(target) == 2:
        return target, "the median spacing"
    thick = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != thick]
    is_thick = target[thick] > ANISOTROPIC * target[others].max() and sizes[thick] * ANISOTROPIC < sizes[others].min()
    if not is_thick:
        return target, "the median spacing"
    wanted = np.percentile(spacings_mm[:, thick], THIN_PERCENTILE)
    if wanted < target[others].max():
        wanted = target[others].max() + 1e-5  # as nnU-Net: the axis stays the one with the largest spacing
    target[thick] = wanted
    return target, (
        f"the median, but along axis {thick}, whose few slices are thick, what {THIN_PERCENTILE} % of the images stay below"
    )


def axis_order(spacing_mm: np.ndarray) -> tuple[tuple[int, ...], str]:
    """The order of the axes in which networks see images: that of the largest spacing first, so that the others make slices."""
    first = int(np.argmax(spacing_mm))
    order = (first, *(axis for axis in range(len(spacing_mm)) if axis != first))
    return order, f"axis {first} has the largest spacing, {spacing_mm[first]:g}"


def _resampled_shape(shape: Sequence[float], spacing_mm: Sequence[float], target: Sequence[float]) -> tuple[int, ...]:
    """The shape (n,) of an image at another spacing."""
    return tuple(int(round(has / wants * side)) for has, wants, side in zip(spacing_mm, target, shape, strict=True))


def _first_patch(spacing_mm: Sequence[float], median_shape: Sequence[float]) -> tuple[tuple[float, ...], str]:
    """The patch that planning begins with: as many mm along each axis, larger than memory holds, but no larger than images."""
    axes = len(spacing_mm)
    steps = 1 / np.array(spacing_mm)
    equal = steps * (LARGEST_PATCH[axes] ** axes / np.prod(steps)) ** (1 / axes)
    patch = tuple(min(round(side), usual) for side, usual in zip(equal, median_shape, strict=True))
    return patch, "equal in mm along each axis, and no larger than the usual image"


def _features(axes: int, count: int) -> tuple[tuple[int, ...], str]:
    """The channels of so many stages."""
    most = MOST_FEATURES[axes]
    return tuple(
        min(FIRST_FEATURES * 2**stage, most) for stage in range(count)
    ), f"doubled from {FIRST_FEATURES} on, up to {most}"


def map_values(network: nnunet.Config, patch: Sequence[int]) -> int:
    """How many values the maps of a network hold for one patch (n,): what its memory in training grows with."""
    axes, depths = network.axes, network.encoder_blocks
    sizes, shape = [], list(patch)
    for stride in ((1,) * axes, *network.strides):
        shape = [side // step for side, step in zip(shape, stride, strict=True)]
        sizes.append(prod(shape))
    values = network.features[0] * sizes[0] if network.is_residual else 0  # of the stem
    for stage, (width, size, depth) in enumerate(zip(network.features, sizes, depths, strict=True)):
        maps = 2 * depth + (stage > 0) if network.is_residual else depth  # with that of the shortcut that changes size
        values += maps * width * size
    for width, size, depth in zip(network.features[:-1], sizes[:-1], network.decoder_blocks, strict=True):
        values += (depth + 1) * width * size  # with the enlarged map
    return values + network.num_classes * sizes[0]


def _topology(
    spacing_mm: Sequence[float],
    median_shape: Sequence[float],
    *,
    pixels: float,
    channels: int,
    num_classes: int,
    size: Size,
    memory_gb: float | None = None,
) -> Topology:
    """The plan for images of the usual shape (n,) at a spacing (n,), `pixels` in all: the largest patch that fits into memory.

    The side that is longest for what images have is shortened until it fits. What is left is for a larger batch.

    Raises:
        SettingError: the memory is too small for any patch.
    """
    axes, memory_gb = len(spacing_mm), size.memory_gb if memory_gb is None else memory_gb
    limit, reference = size.limit(axes, memory_gb), REFERENCE_BATCH[axes]
    # the plain networks may use a batch of 2 where the values were measured at another; the residual ones may not
    most = limit * reference / SMALLEST_BATCH if not size.is_residual else limit
    patch, why_patch = _first_patch(spacing_mm, median_shape)
    (strides, kernels, fitting), why_stages = stages(spacing_mm, patch)

    def network() -> nnunet.Config:
        widths, _ = _features(axes, len(kernels))
        shape = dict(axes=axes, features=widths, strides=strides, kernels=kernels, is_residual=size.is_residual)
        return nnunet.Config(in_channels=channels, num_classes=num_classes, **shape)  # type: ignore[arg-type]

    values = map_values(network(), fitting)
    while values > most:
        patch = _shortened(spacing_mm, fitting, strides, median_shape)
        (strides, kernels, fitting), why_stages = stages(spacing_mm, patch)
        if not strides:
            raise SettingError(
                f"{memory_gb:g} GB of memory are too little for a network on patches of {axes} axes; give more, such as "
                f"{2 * memory_gb:g} GB"
            )
        values = map_values(network(), fitting)
    batch_size, why_batch = batch_for(fitting, pixels, room=limit / values * reference, size=size)
    return Topology(
        spacing_mm=tuple(float(step) for step in spacing_mm),
        median_shape=tuple(float(side) for side in median_shape),
        patch=fitting,
        batch_size=batch_size,
        network=network(),
        reasons={
            "patch": f"{why_patch}; shortened until maps hold {values / 1e6:.0f} of {most / 1e6:.0f} million values",
            "batch_size": why_batch,
            "strides": why_stages,
            "kernels": "pixels of an axis are joined once its spacing is within a factor of 2 of the smallest",
            "features": _features(axes, len(kernels))[1],
        },
    )


def _shortened(
    spacing_mm: Sequence[float], patch: Sequence[int], strides: Sequence[Sequence[int]], median_shape: Sequence[float]
) -> tuple[int, ...]:
    """A patch (n,) with less along the axis on which it is largest for the usual image (n,).

    By the step at which the shorter patch could be halved, which may be smaller than that of the patch: no size is skipped.
    """
    shares = [side / usual for side, usual in zip(patch, median_shape, strict=True)]
    axis = max(range(len(patch)), key=lambda each: (shares[each], each))
    shorter = list(patch)
    shorter[axis] -= prod(stride[axis] for stride in strides)
    (next_strides, _, _), _ = stages(spacing_mm, shorter)
    shorter[axis] = patch[axis] - prod(stride[axis] for stride in next_strides)
    return tuple(shorter)


def batch_for(patch: Sequence[int], pixels: float, *, room: float, size: Size) -> tuple[int, str]:
    """The patches in a batch: as many as there is `room` for, a part of the `pixels` of a data set at most, two at least."""
    covered = round(pixels * size.most_covered / prod(patch))
    batch_size = max(min(round(room), covered), SMALLEST_BATCH)
    if batch_size == SMALLEST_BATCH:
        return batch_size, f"the smallest, with room for {room:.1f}"
    if batch_size == covered < round(room):
        return batch_size, f"{size.most_covered:.0%} of the pixels of the data set, with room for {room:.1f}"
    return batch_size, f"there is room for {room:.1f}"


PlanName = Literal["2d", "3d_fullres", "3d_lowres"]


def plans_for(
    spacings_mm: np.ndarray,
    shapes: np.ndarray,
    *,
    channels: int,
    num_classes: int,
    size: str = "nnUNetPlans",
    memory_gb: float | None = None,
) -> dict[PlanName, Topology]:
    """All plans for images of spacings (N, n) and shapes (N, n), cropped to their content; axes are those of `axis_order`.

    "3d_lowres" is there where the patch of "3d_fullres" sees little of a volume: a network at a larger spacing sees more.

    Raises:
        SettingError: the size is none of `SIZES`, or the memory is too small.
    """
    if size not in SIZES:
        raise SettingError(f"size is '{size}'; give one of {', '.join(SIZES)}")
    target, why = target_spacing(np.asarray(spacings_mm, float), np.asarray(shapes))
    order = axis_order(target)[0] if len(target) == 3 else (0, 1)
    new_shapes = [_resampled_shape(shape, spacing, target.tolist()) for shape, spacing in zip(shapes, spacings_mm, strict=True)]
    spacing, usual = target[list(order)].tolist(), np.median(new_shapes, axis=0)[list(order)].tolist()
    wanted: dict[str, Any] = dict(channels=channels, num_classes=num_classes, size=SIZES[size], memory_gb=memory_gb)
    pixels = float(np.prod(usual) * len(shapes))
    found: dict[PlanName, Topology] = {}
    if len(target) == 3 and usual[0] != 1:
        full = _topology(spacing, usual, pixels=pixels, **wanted)
        found["3d_fullres"] = full
        low = _low_resolution(full, spacing, usual, len(shapes), wanted)
        if low is not None:
            found["3d_lowres"] = low
    found["2d"] = _topology(spacing[-2:], usual[-2:], pixels=pixels, **wanted)
    for plan in found.values():
        plan.reasons["spacing_mm"] = why
    if "3d_lowres" in found:
        found["3d_lowres"].reasons["spacing_mm"] = f"so coarse that a patch sees {LOW_RESOLUTION:.0%} of the usual volume"
    return found


def _low_resolution(
    full: Topology, spacing: list[float], usual: list[float], count: int, wanted: dict[str, Any]
) -> Topology | None:
    """The plan at the smallest spacing at which a patch sees enough of the usual volume; None where that is hardly coarser."""

    def plan_at(coarse: Sequence[float], shape: Sequence[int]) -> Topology:
        voxels = float(np.prod([side * fine / step for side, fine, step in zip(usual, spacing, coarse, strict=True)]))
        return _topology(coarse, shape, pixels=voxels * count, **wanted)

    coarse = coarser_spacing(spacing, usual, full.patch, lambda *at: plan_at(*at).patch)
    return None if coarse is None else plan_at(coarse, _shape_at(coarse, spacing, usual))


def coarser_spacing(
    spacing: Sequence[float],
    usual: Sequence[float],
    patch: Sequence[int],
    patch_at: Callable[[Sequence[float], Sequence[int]], Sequence[int]],
) -> list[float] | None:
    """The smallest spacing (n,) at which a patch sees enough of the usual volume, of shape (n,) at `spacing`.

    None where `patch`, that at the spacing itself, does, or where the volume would have hardly fewer voxels. `patch_at` gives
    the patch for another spacing and the shape that the volume has there.
    """
    coarse, voxels, seen = np.array(spacing, float), float(prod(usual)), float(prod(patch))
    while seen / voxels < LOW_RESOLUTION:
        is_fine = coarse.max() / coarse > NEAR
        coarse[is_fine if is_fine.any() else slice(None)] *= COARSER
        voxels = float(np.prod(np.array(spacing) / coarse * np.array(usual)))
        seen = float(prod(patch_at(coarse.tolist(), _shape_at(coarse.tolist(), spacing, usual))))
    return coarse.tolist() if prod(usual) / voxels >= WORTHWHILE else None


def _shape_at(coarse: Sequence[float], spacing: Sequence[float], usual: Sequence[float]) -> list[int]:
    """The shape (n,) at another spacing of a volume of a shape at a spacing."""
    return [round(fine / step * side) for fine, step, side in zip(spacing, coarse, usual, strict=True)]
