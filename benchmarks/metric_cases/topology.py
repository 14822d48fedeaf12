"""Topology of one class: clDice and Betti numbers, in 2D and 3D. Axes: *S spatial axes."""

from collections.abc import Iterator

import numpy as np

from metric_cases.case import Case, Side, kept
from metric_cases.scenes import blob

SETS = {  # such that the peer needs seconds
    "clDice": ("scikit-image", {"8 images of 1024 x 1024": (8, (1024, 1024)), "2 volumes of 128 x 128 x 128": (2, (128,) * 3)}),
    "Betti numbers": ("gudhi", {"an image of 256 x 256": (1, (256, 256)), "a volume of 48 x 48 x 48": (1, (48,) * 3)}),
}


def cases() -> Iterator[Case]:
    """clDice against scikit-image's skeletons, Betti numbers against gudhi's."""
    sides = {"scikit-image": (our_cl_dice, with_skimage, "skimage"), "gudhi": (our_betti_numbers, with_gudhi, "gudhi")}
    for score, (peer, sets) in SETS.items():
        ours, theirs, module = sides[peer]
        for name, (count, shape) in sets.items():
            yield Case(
                group="topology",
                name=f"{score}, {name}",
                make=lambda is_small, count=count, shape=shape: kept(f"nets {shape}", lambda: masks(count, shape))[
                    : 1 if is_small else count
                ],
                cores=1,
                amount=count,
                units="images",
                sides={"segwright": Side(run=ours), peer: Side(run=theirs, needs=(module,))},
            )


def masks(count: int, shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of a prediction and a truth: smooth nets, the prediction with parts missing."""
    generator, pairs = np.random.default_rng(0), []
    for _ in range(count):
        truth = blob(generator, shape, 0.4, 10.0)
        pairs.append((truth & ~blob(generator, shape, 0.1, 6.0), truth))
    return pairs


def our_cl_dice(pairs: list) -> dict[str, float]:
    """Ours, without the data type around it."""
    from segwright.metrics.topology import cl_dice

    return {f"clDice/{n}": cl_dice(*pair) for n, pair in enumerate(pairs)}


def with_skimage(pairs: list) -> dict[str, float]:
    """The published steps."""
    from skimage.morphology import skeletonize

    results = {}
    for n, (prediction, truth) in enumerate(pairs):
        lines = skeletonize(prediction) > 0, skeletonize(truth) > 0
        precision, sensitivity = (lines[0] & truth).sum() / lines[0].sum(), (lines[1] & prediction).sum() / lines[1].sum()
        results[f"clDice/{n}"] = float(2 * precision * sensitivity / (precision + sensitivity))
    return results


def our_betti_numbers(pairs: list) -> dict[str, float]:
    """Of both masks."""
    from segwright.metrics.topology import betti_numbers

    return named([betti_numbers(mask) for pair in pairs for mask in pair])


def with_gudhi(pairs: list) -> dict[str, float]:
    """From the persistence of a cubical complex."""
    import gudhi

    numbers = []
    for mask in (mask for pair in pairs for mask in pair):
        cells = gudhi.CubicalComplex(top_dimensional_cells=np.where(np.pad(mask, 1), 0.0, 1.0))
        cells.compute_persistence()
        numbers.append(cells.persistent_betti_numbers(0.5, 0.5)[: mask.ndim])
    return named(numbers)


def named(numbers: list) -> dict[str, float]:
    """Betti numbers of each mask by name."""
    return {f"Betti-{order}/{n}": float(value) for n, each in enumerate(numbers) for order, value in enumerate(each)}
