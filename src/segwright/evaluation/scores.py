"""Scores of a model on a data set, each with its convention and an interval that says how sure it is. Axes: K classes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, UsageError, naming
from segwright.core.files import replace_file
from segwright.evaluation.bootstrap import bootstrap
from segwright.evaluation.counting import Counted, Counter, Work, chosen, count
from segwright.evaluation.pairs import Pair, Pairs
from segwright.transforms.background import with_background

SEED = 0  # of the resampling: the same images give the same interval
FEW = 8  # images; below, fewer than 92 % of 95 % intervals hold the truth (simulated, see bootstrap)
OnImage = Callable[[Sample, Segmentation, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores between 0 and 1, NaN where nothing could be measured.

    `values` holds each score by name, `intervals` its 95 % interval, `per_image` some scores of each image by key. `matrix`
    counts pixels: a row per true class, a column per predicted class, and a last column for pixels that were given no class;
    it is empty where no classes of pixels were scored. `conventions` says for each metric what was averaged, and over what,
    and `notes` what else one must know, as images that have no prediction.
    """

    count: int
    classes: Classes
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_image: dict[str, dict[str, float]]
    matrix: tuple[tuple[int, ...], ...]
    conventions: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def convention(self) -> str:
        """All conventions, in one text."""
        return " ".join(self.conventions.values())

    def confusion(self) -> np.ndarray:
        """The matrix as an array, int64 (K, K + 1)."""
        return np.array(self.matrix, dtype=np.int64)

    def to_json(self) -> str:
        """The scores as JSON text, one entry a line; NaN becomes null. `Scores.from_json` reads it back equal."""
        return laid_out(without_nan(asdict(self))) + "\n"

    @classmethod
    def from_json(cls, text: str, *, source: str = "the scores") -> "Scores":
        """The scores that a JSON text of `to_json` describes.

        Raises:
            FormatError: it is none.
        """
        try:
            table = json.loads(text)
            return cls(
                count=table["count"],
                classes=Classes.of(**table["classes"]),
                values=with_nan(table["values"]),
                intervals={name: (number(low), number(high)) for name, (low, high) in table["intervals"].items()},
                per_image={key: with_nan(own) for key, own in table["per_image"].items()},
                matrix=tuple(tuple(row) for row in table["matrix"]),
                conventions=dict(table["conventions"]),
                notes=tuple(table["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"{source} hold no scores of segwright ({error!r}); make them with: segwright evaluate"
            ) from error


@dataclass(eq=False)
class Tally:
    """Gathers what was counted on each image, and makes scores of it."""

    counter: Counter
    counted: list[Counted] = field(default_factory=list)
    matrix: np.ndarray | None = None

    def add(self, counted: Counted) -> None:
        """Take in one image or video; its confusion matrix is added to that of the others and not kept."""
        if counted.matrix is not None:
            self.matrix = counted.matrix if self.matrix is None else self.matrix + counted.matrix
        self.counted.append(replace(counted, matrix=None))

    def states(self, name: str) -> list[Any]:
        """The states of one metric, in the order of the images or videos that it counted."""
        return [counted.states[name] for counted in self.counted if name in counted.states]

    def scores(self, resamples: int, notes: Sequence[str] = ()) -> Scores:
        """Scores of everything taken in, with intervals from that many resamples (0: none)."""
        values: dict[str, float] = {}
        intervals: dict[str, tuple[float, float]] = {}
        for name, metric in self.counter.metrics.items():
            states = self.states(name)
            total = metric.score(type(states[0]).weighted(states, np.ones((1, len(states)), np.int64)))
            values |= {score: float(value[0]) for score, value in total.items() if self.counter.is_wanted(name, score)}
            intervals |= bootstrap(metric, states, resamples, np.random.default_rng(SEED))
        images = [counted for counted in self.counted if counted.scores]
        conventions = {name: metric.convention for name, metric in self.counter.metrics.items()}
        return Scores(
            count=len(images) or len(self.counted),
            classes=self.counter.classes,
            values=values,
            intervals={score: interval for score, interval in intervals.items() if score in values},
            per_image={counted.key: counted.scores for counted in images},
            matrix=tuple(map(tuple, self.matrix.tolist())) if self.matrix is not None else (),
            conventions=conventions | {"intervals": interval_convention(len(self.counted), resamples)},
            notes=tuple(notes),
        )


def evaluate(
    predict: Callable[[Sample], Segmentation],
    dataset: Dataset,
    *,
    metrics: Sequence[str] = ("confusion",),
    resamples: int = 1000,
    on_image: OnImage | None = None,
) -> Scores:
    """The scores of a predictor on a data set, one image in memory at a time.

    `metrics` are files of metrics/, or names of their scores. `resamples` is the number of draws behind the intervals; 0 leaves
    them out. `on_image(sample, prediction, its scores)` is called after each image, to show progress or to keep examples.

    Raises:
        UsageError: the data set is empty, an image has no truth, or the predictor speaks of other classes.
    """
    if not len(dataset):
        raise UsageError(f"{dataset.source} holds no samples, there is nothing to measure; check the path and its file names")
    dataset = with_background(dataset)
    tally = Tally(Counter.of(chosen(metrics), dataset.classes))
    for sample in dataset:
        if sample.truth is None:
            raise UsageError(
                f"{dataset.source}: sample {sample.key!r} has no truth to compare with; add its mask or leave it out"
            )
        with naming(f"sample {sample.key!r}"):
            prediction = predict(sample)
        check_classes(prediction, dataset)
        counted = tally.counter.image(Pair(sample.key, prediction, sample.truth, sample.grid.spacing_mm))
        tally.add(counted)
        if on_image:
            on_image(sample, prediction, counted.scores)
    return tally.scores(resamples)


def measure(
    pairs: Pairs,
    metrics: Sequence[str],
    *,
    resamples: int = 1000,
    processes: int = 1,
    watch: Callable[[int, int], None] | None = None,
) -> Scores:
    """The scores of predictions beside their truths, of any formats; memory holds one image per process.

    `metrics` are files of metrics/, or names of their scores; `watch(done, all)` is called after each image.

    Raises:
        UsageError: sizes differ, a class is unknown, or a name is no metric.
    """
    work = Work(pairs, Counter.of(chosen(metrics), pairs.classes))
    tally = Tally(work.counter)
    total = len(work.units())
    for done, counted in enumerate(count(work, processes=processes)):
        tally.add(counted)
        if watch:
            watch(done + 1, total)
    return tally.scores(resamples, pairs.notes)


def fitting(pairs: Pairs) -> list[str]:
    """The metrics that fit a truth, by its classes and its first image: of regions, of objects, of both, of volumes."""
    first = pairs.truth[0].truth
    if first is None:
        return ["confusion"]
    kinds = set(np.array(pairs.classes.is_thing)[first.class_ids].tolist()) or set(pairs.classes.is_thing)
    if kinds == {True}:
        return ["average_precision", "panoptic_quality", "object_accuracy"]
    if kinds == {True, False}:
        return ["panoptic_quality", "average_precision", "confusion"]
    return ["confusion", "surface" if len(first.shape) == 3 else "boundary"]


def interval_convention(count: int, resamples: int) -> str:
    """A sentence that says where the intervals come from, or why there are none."""
    if count < 2:
        return "One image gives no interval: how scores vary between images cannot be seen from one."
    if not resamples:
        return "No intervals were asked for."
    few = " So few images make them too narrow." if count < FEW else ""
    return (
        f"Intervals hold 95 % of {resamples} resamples of the {count} images (bootstrap), taking the images as independent; "
        f"for neighbouring frames of a video they are too narrow.{few}"
    )


def check_classes(prediction: Segmentation, dataset: Dataset) -> None:
    """Refuse a predictor whose classes are not those of the data set.

    Raises:
        UsageError: a name differs.
    """
    given, needed = prediction.classes.names, dataset.classes.names
    if given != needed:
        first = next(
            (k for k, pair in enumerate(zip(given, needed, strict=False)) if pair[0] != pair[1]), min(len(given), len(needed))
        )
        names = [repr(each[first]) if first < len(each) else "no class" for each in (given, needed)]
        raise UsageError(
            f"the model has {len(given)} classes and {dataset.source} has {len(needed)}; class {first} is {names[0]} there and "
            f"{names[1]} here: evaluate on data with the classes of the training, in the same order"
        )


def write_scores(path: Path | str, scores: Scores) -> None:
    """Write scores.json, whole or not at all.

    Raises:
        OutputError: the path cannot be written.
    """
    replace_file(Path(path), scores.to_json().encode())


def laid_out(value: Any, depth: int = 0) -> str:
    """JSON text for people: one entry of an object a line, one row of a table a line."""
    inner, outer = "\n" + "  " * (depth + 1), "\n" + "  " * depth
    if isinstance(value, dict) and value:
        entries = (f"{inner}{json.dumps(name)}: {laid_out(each, depth + 1)}" for name, each in value.items())
        return "{" + ",".join(entries) + outer + "}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[" + ",".join(inner + laid_out(row, depth + 1) for row in value) + outer + "]"
    return json.dumps(value, allow_nan=False)


def without_nan(value: Any) -> Any:
    """A tree of dicts, lists and numbers with None for NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def number(value: float | None) -> float:
    """A number that may have become null."""
    return float("nan") if value is None else float(value)


def with_nan(values: Mapping[str, float | None]) -> dict[str, float]:
    """Scores with NaN for null."""
    return {name: number(value) for name, value in values.items()}
