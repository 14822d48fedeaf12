"""How many 95 % intervals hold the truth: simulated test sets with a known answer, one core, about four minutes.

    python benchmarks/intervals.py [--trials 1000]

Each population makes the states of images as a metric would: hard and easy images, classes that few images have, sizes over
orders of magnitude. The truth is the score of so many images that its own error does not matter. For each number of images,
test sets are drawn and the interval of each score made; the last column is what the quantiles of images drawn with replacement
(the percentile bootstrap) would have held. A trial whose score or interval is unknown, as a class is in one image, is left out.
Axes: N images, K classes.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy comes

import numpy as np

from segwright.core import Classes
from segwright.evaluation.bootstrap import bootstrap, weighed
from segwright.metrics.accumulators import Sums
from segwright.metrics.average_precision import IOU_THRESHOLDS, AveragePrecision
from segwright.metrics.boundary import Boundary
from segwright.metrics.confusion import Confusion
from segwright.metrics.matching import AREA_NAMES, ImageMatches, Matches
from segwright.metrics.panoptic_quality import PanopticQuality
from segwright.metrics.precision_recall import average_precision_of
from segwright.metrics.surface_distance import SurfaceDistance

IMAGES = (5, 10, 20, 50, 200)
RESAMPLES = 200  # a fifth of the default, for time; the standard error is then 5 % off, at random
LARGE = 400_000  # images behind a truth: its error is a fortieth or less of the widths below
PORTION = 4000  # images made at once


@dataclass(frozen=True)
class Population:
    """Where images come from: `draw(generator, N)` makes their states, `shown` are the scores to look at, by their names."""

    metric: Any
    shown: dict[str, str]
    draw: Callable[[np.random.Generator, int], list[Any]]
    truth: Callable[[np.random.Generator], dict[str, float]]
    group_size: int = 1  # images that belong together
    are_known: bool = True  # whether the interval is told so
    trials_share: float = 1.0


def logistic(values: np.ndarray) -> np.ndarray:
    """Shares from 0 to 1 from log odds of any shape."""
    return 1 / (1 + np.exp(-values))


def summed_truth(metric: Any, draw: Callable[[np.random.Generator, int], list[Any]]) -> Callable[..., dict[str, float]]:
    """The scores of the sums of very many images."""

    def truth(generator: np.random.Generator) -> dict[str, float]:
        total = None
        for _ in range(LARGE // PORTION):
            part = Sums(np.sum([state.values for state in draw(generator, PORTION)], axis=0))
            total = part if total is None else total + part
        return {name: float(value) for name, value in metric.score(total).items()}

    return truth


# Streets: 19 classes, the commonest in each image, the rarest in 8 of 100, as train and motorcycle in Cityscapes

STREET = Confusion(Classes.of([f"class {k}" for k in range(19)]))
PRESENCE = np.geomspace(1, 0.08, 19)
SIZE = np.geomspace(1, 0.02, 19)
SKILL = np.linspace(3.2, 0.8, 19)  # log odds of a right pixel: 96 to 69 of 100
_taken_for = np.random.default_rng(0).dirichlet(np.full(19, 0.3), 19) * (1 - np.eye(19))
TAKEN_FOR = _taken_for / _taken_for.sum(axis=1, keepdims=True)  # each class is mixed up with a few others


def streets(generator: np.random.Generator, count: int) -> list[Sums]:
    """States of Confusion of images in which some classes are, and are large, and hard, at random."""
    is_there = generator.random((count, 19)) < PRESENCE
    area = is_there * SIZE * generator.lognormal(0, 0.8, (count, 19))
    area *= 2e6 / area.sum(axis=1, keepdims=True)
    difficulty = generator.normal(0, 0.7, (count, 1)) + generator.normal(0, 1, (count, 19))
    right = area * logistic(SKILL + difficulty)
    wrong = (area - right) @ TAKEN_FOR
    empty = np.zeros((count, 3, 2))
    return [Sums(pixels) for pixels in np.concatenate([np.stack([right, area, right + wrong], axis=1), empty], axis=2).round()]


def clips(generator: np.random.Generator, count: int) -> list[Sums]:
    """Streets again, five frames of each clip alike."""
    return [Sums(state.values * generator.uniform(0.9, 1.1)) for state in streets(generator, -(-count // 5)) for _ in range(5)]


# One organ, in 4 of 5 scans, whose border is met well or not; distances have a long tail

BORDER, DISTANCE = Boundary(Classes.of(["organ"])), SurfaceDistance(Classes.of(["organ"]))


def borders(generator: np.random.Generator, count: int) -> list[Sums]:
    """States of Boundary, (12, 2): F1 and whether it exists."""
    has_organ = generator.random(count) < 0.8
    f1 = logistic(1.5 + 0.9 * generator.normal(0, 1, count) + generator.normal(0, 0.6, count)) * has_organ
    values = np.zeros((count, 12, 2))
    values[:, 0], values[:, 1] = f1[:, None], has_organ[:, None]
    return [Sums(each) for each in values]


DIAGONAL = 600.0  # mm, of a scan of the trunk


def distances(generator: np.random.Generator, count: int) -> list[Sums]:
    """States of Surface, (6, 1): HD95 in mm, log-normal with a median of 4.5, whether it exists, and the diagonal of a scan."""
    has_organ = generator.random(count) < 0.8
    values = np.zeros((count, 6, 1))
    values[:, 5, 0] = DIAGONAL * has_organ
    values[:, 0, 0], values[:, 4, 0] = generator.lognormal(1.5, 0.9, count) * has_organ, has_organ
    return [Sums(each) for each in values]


# Things: eight classes with 10 to 0.3 objects an image, in clumps

PARTS = PanopticQuality(Classes.of([f"class {k}" for k in range(8)], is_thing=[True] * 8))
OBJECTS = np.geomspace(10, 0.3, 8)


def segments(generator: np.random.Generator, count: int) -> list[Sums]:
    """States of PanopticQuality, (8, 4), of images with many or few objects that are found more or less well."""
    ease = generator.normal(0, 0.7, (count, 1))
    objects = generator.negative_binomial(1, 1 / (1 + OBJECTS), (count, 8))
    share = logistic(np.linspace(1.8, 0, 8) + ease)
    found = generator.binomial(objects, share)
    false = generator.binomial(objects, 0.6 * (1 - share)) + generator.poisson(0.03, (count, 8))
    iou = 0.5 + 0.5 * logistic(1.3 + 0.5 * ease + generator.normal(0, 0.3, (count, 8)))
    return [Sums(each) for each in np.stack([found * iou, found, false, objects - found], axis=-1).astype(np.float64)]


DETECTION = AveragePrecision(Classes.of([f"class {k}" for k in range(8)], is_thing=[True] * 8))
TRUTH_IMAGES = 300_000  # of AP: its detections all lie in memory at once


def detections(generator: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    """Image, class, score and IoU (0 where nothing is matched) of each detection (D,), and objects (N, 8).

    What is found well also scores high, more or less.
    """
    ease = generator.normal(0, 0.7, (count, 1))
    objects = generator.negative_binomial(1, 1 / (1 + OBJECTS), (count, 8))
    share = logistic(np.linspace(1.5, 0.3, 8) + ease)
    found = generator.binomial(objects, share)
    false = generator.poisson(0.3 * OBJECTS * (1 - share) + 0.02)
    places = [np.repeat(np.arange(count * 8), number.ravel()) for number in (found, false)]
    quality = 1.2 + 0.6 * ease[places[0] // 8, 0] + generator.normal(0, 1, len(places[0]))
    iou = 0.5 + 0.5 * logistic(0.5 + 0.4 * quality + generator.normal(0, 0.4, len(quality)))
    sureness = np.concatenate([quality + generator.normal(0, 0.3, len(quality)), generator.normal(-0.3, 1, len(places[1]))])
    place, iou = np.concatenate(places), np.concatenate([iou, np.zeros(len(places[1]))])
    order = np.lexsort((-sureness, place))
    return place[order] // 8, place[order] % 8, sureness[order], iou[order], objects


def matches(generator: np.random.Generator, count: int) -> list[Matches]:
    """States of AveragePrecision; all areas are in one range."""
    image, class_ids, scores, iou, objects = detections(generator, count)
    bits = (iou[:, None] >= IOU_THRESHOLDS) @ (1 << np.arange(len(IOU_THRESHOLDS), dtype=np.uint64))
    starts = np.searchsorted(image, np.arange(count + 1))
    states = []
    for n in range(count):
        own = slice(starts[n], starts[n + 1])
        size = starts[n + 1] - starts[n]
        correct, counted = np.zeros((2, len(AREA_NAMES), size), np.uint64)
        correct[0], counted[0] = bits[own], ~np.uint64(0)
        ranks = np.arange(size) - np.searchsorted(class_ids[own], class_ids[own])
        true_class_ids = np.repeat(np.arange(8, dtype=np.int32), objects[n])
        ranges = np.ones(len(true_class_ids), np.uint8)
        found = class_ids[own].astype(np.int32), scores[own], ranks.astype(np.int32), correct, counted
        states.append(Matches((ImageMatches(*found, true_class_ids, ranges),)))
    return states


def precision_truth(generator: np.random.Generator) -> dict[str, float]:
    """AP of very many images, class by class and threshold by threshold, from all their detections."""
    _, class_ids, scores, iou, objects = detections(generator, TRUTH_IMAGES)
    table = np.empty((8, len(IOU_THRESHOLDS)))
    for k in range(8):
        own = class_ids == k
        for t, threshold in enumerate(IOU_THRESHOLDS):
            table[k, t] = average_precision_of(scores[own], iou[own] >= threshold, int(objects[:, k].sum()))
    return {"AP": table.mean(), "AP50": table[:, 0].mean(), "AP75": table[:, 5].mean(), "AP/class 7": table[7].mean()}


def populations() -> list[Population]:
    """All that is simulated, in the order of the table."""
    street = {"mIoU": "mIoU", "Dice": "Dice", "IoU/class 0": "IoU, commonest class", "IoU/class 18": "IoU, rarest class"}
    truth = summed_truth(STREET, streets)
    return [
        Population(STREET, street, streets, truth),
        Population(BORDER, {"boundary F1": "boundary F1"}, borders, summed_truth(BORDER, borders)),
        Population(DISTANCE, {"HD95": "HD95"}, distances, summed_truth(DISTANCE, distances)),
        Population(PARTS, {"PQ": "PQ", "SQ": "SQ", "PQ/class 7": "PQ, rarest class"}, segments, summed_truth(PARTS, segments)),
        Population(
            DETECTION,
            {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AP/class 7": "AP, rarest class"},
            matches,
            precision_truth,
            trials_share=0.5,
        ),
        Population(STREET, {"mIoU": "mIoU, clips of 5 frames, drawn by clip"}, clips, truth, group_size=5),
        Population(STREET, {"mIoU": "mIoU, clips of 5 frames, drawn by frame"}, clips, truth, group_size=5, are_known=False),
    ]


def percentiles(metric: Any, states: Sequence[Any], generator: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The interval of the percentile bootstrap, from images drawn with replacement."""
    count = len(states)
    scores = weighed(metric, states, [generator.multinomial(count, np.full(count, 1 / count), RESAMPLES)])
    with np.errstate(all="ignore"):
        return {
            name: tuple(np.quantile(values[np.isfinite(values)], (0.025, 0.975)))
            if np.isfinite(values).any()
            else (np.nan,) * 2
            for name, values in scores.items()
        }


def simulate(population: Population, count: int, trials: int, truth: dict[str, float]) -> None:
    """Print a row for each score shown."""
    generator = np.random.default_rng(count)
    size = population.group_size
    groups = np.arange(count * size) // size if size > 1 and population.are_known else None
    widths: dict[str, list[float]] = {name: [] for name in population.shown}
    held, plain = ({name: [] for name in population.shown} for _ in range(2))
    for _ in range(trials):
        states = population.draw(generator, count * size)
        found = bootstrap(population.metric, states, RESAMPLES, generator, groups=groups)
        others = percentiles(population.metric, states, generator)
        for name in population.shown:
            low, high = found[name]
            if np.isfinite(low) or np.isfinite(high):  # one end may be left out
                widths[name].append(high - low)
                held[name].append(not (truth[name] < low or truth[name] > high))
                plain[name].append(others[name][0] <= truth[name] <= others[name][1])
    for name, title in population.shown.items():
        known = len(held[name])
        share = np.mean(held[name]) if known else np.nan
        error = (share * (1 - share) / known) ** 0.5 if known else np.nan
        images = f"{count}" if size == 1 else f"{count} x {size}"
        print(
            f"| {title} | {truth[name]:.3f} | {images} | {known} | {100 * share:.1f} ± {100 * error:.1f} "
            f"| {np.nanmean(widths[name]):.3f} | {100 * np.mean(plain[name]):.1f} |",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="test sets of each population and size; half of them for AP")
    trials = parser.parse_args().trials
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    start = time.perf_counter()
    print("| score | truth | images | trials | coverage, % | mean width | percentile bootstrap, % |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    known: dict[int, dict[str, float]] = {}
    for population in populations():
        key = id(population.truth)
        if key not in known:
            known[key] = population.truth(np.random.default_rng(10**6))
        for count in IMAGES if population.group_size == 1 else IMAGES[2:4]:
            simulate(population, count, round(trials * population.trials_share), known[key])
    print(f"\n{RESAMPLES} resamples, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
