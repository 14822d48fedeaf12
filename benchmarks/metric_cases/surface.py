"""Distances of surfaces: 95th percentile of Hausdorff and surface Dice, in 2D and 3D. Axes: *S spatial axes."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from metric_cases.case import Case, Side, kept
from metric_cases.scenes import blob

TOLERANCE = 2.0  # pixels or mm of surface Dice
SPACING = {2: (1.0, 1.0), 3: (1.0, 1.0, 1.0)}


SETS = {"50 images of 512 x 512": (50, (512, 512)), "4 volumes of 128 x 128 x 128": (4, (128, 128, 128))}
PEERS = {"MONAI": ("Surface", (4, 4)), "DeepMind surface-distance": ("SurfaceDistanceSurfels", (4, 6))}  # needed in 2D and 3D


def cases() -> Iterator[Case]:
    """Each set by both definitions, as the peers have one each: distances of border pixels, and of surface elements."""
    for index, (name, (count, shape)) in enumerate(SETS.items()):
        for peer, (metric, needed) in PEERS.items():
            run, prepare, module = THEIRS[peer]
            yield Case(
                group="surface",
                name=f"HD95 and surface Dice by {metric}, {name}",
                make=lambda is_small, name=name, count=count, shape=shape: kept(name, lambda: masks(count, shape))[
                    : 1 if is_small else count
                ],
                targets={peer: needed[index]},
                amount=count,
                units="images",
                sides={
                    "segwright": Side(run=partial(ours, metric), prepare=as_segmentations),
                    peer: Side(run=run, prepare=prepare, needs=(module,), note=NOTES[peer]),
                },
            )


def masks(count: int, shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of smooth masks (*S) of a fifth of the pixels, the prediction a little off."""
    generator, pairs = np.random.default_rng(0), []
    for _ in range(count):
        truth = blob(generator, shape, 0.2, 24.0)
        prediction = np.roll(truth, (1, 2), axis=(0, 1)) ^ (blob(generator, shape, 0.02, 12.0) & truth)
        pairs.append((prediction, truth))
    return pairs


def named(hausdorff: Any, dice: Any) -> dict[str, float]:
    """Both scores of each image by name."""
    names = [f"HD95/{n}" for n in range(len(hausdorff))] + [f"NSD/{n}" for n in range(len(dice))]
    return dict(zip(names, map(float, [*hausdorff, *dice]), strict=True))


def as_segmentations(pairs: list) -> list:
    """The pairs as our data type."""
    from segwright.core import Classes, Segmentation

    classes = Classes.of(["organ"])
    return [tuple(Segmentation.panoptic(mask.astype(np.int32), [0], classes=classes) for mask in pair) for pair in pairs]


def ours(name: str, pairs: list) -> dict[str, float]:
    """One of our metrics, image by image."""
    from segwright.metrics.surface_distance import SurfaceDistance
    from segwright.metrics.surface_distance_surfels import SurfaceDistanceSurfels

    axes = len(pairs[0][0].shape)
    metric = {"Surface": SurfaceDistance, "SurfaceDistanceSurfels": SurfaceDistanceSurfels}[name](
        pairs[0][0].classes, tolerance_mm=TOLERANCE
    )
    results = [metric.score(metric.count(*pair, SPACING[axes])) for pair in pairs]
    hausdorff, _, _, dice = metric.SCORES
    return named([each[hausdorff] for each in results], [each[dice] for each in results])


def one_hot(pairs: list) -> list:
    """The pairs as bool tensors (1, 1, *S)."""
    import torch

    return [tuple(torch.from_numpy(mask)[None, None] for mask in pair) for pair in pairs]


def with_monai(pairs: list) -> dict[str, float]:
    """MONAI's two functions."""
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    spacing = SPACING[pairs[0][0].ndim - 2]
    hausdorff = [compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing) for pair in pairs]
    dice = [compute_surface_dice(*pair, [TOLERANCE], include_background=True, spacing=spacing) for pair in pairs]
    return named(hausdorff, dice)


def with_deepmind(pairs: list) -> dict[str, float]:
    """DeepMind's distances, from which it computes both."""
    import surface_distance

    spacing = SPACING[pairs[0][0].ndim]
    found = [surface_distance.compute_surface_distances(truth, prediction, spacing) for prediction, truth in pairs]
    hausdorff = [surface_distance.compute_robust_hausdorff(each, 95) for each in found]
    return named(hausdorff, [surface_distance.compute_surface_dice_at_tolerance(each, TOLERANCE) for each in found])


THEIRS = {
    "MONAI": (with_monai, one_hot, "monai"),
    "DeepMind surface-distance": (with_deepmind, lambda pairs: pairs, "surface_distance"),
}
NOTES = {"MONAI": "percentiles in float32", "DeepMind surface-distance": ""}
