"""Scores of a model on a data set, each with its convention and an interval that says how sure it is. Axes: K classes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, UsageError, naming
from segwright.core.files import replace_file
from segwright.evaluation.bootstrap import bootstrap
from segwright.metrics.confusion import Confusion, class_sums
from segwright.metrics.sums import Sums
from segwright.transforms.background import with_background

SEED = 0  # of the resampling: the same images give the same interval
FEW = 8  # images; below, fewer than 92 % of 95 % intervals hold the truth (simulated, see bootstrap)
PER_IMAGE = ("mIoU", "pixel accuracy")
OnImage = Callable[[Sample, Segmentation, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores between 0 and 1, NaN where nothing could be measured.

    `values` holds each score by name, `intervals` its 95 % interval, `per_image` some scores of each image by key. `matrix`
    counts pixels: a row per true class, a column per predicted class, and a last column for pixels that were given no class.
    `convention` says what was averaged, and over what.
    """

    count: int
    classes: Classes
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_image: dict[str, dict[str, float]]
    matrix: tuple[tuple[int, ...], ...]
    convention: str

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
                convention=table["convention"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"{source} hold no scores of segwright ({error!r}); make them with: segwright evaluate"
            ) from error


def evaluate(
    predict: Callable[[Sample], Segmentation], dataset: Dataset, *, resamples: int = 1000, on_image: OnImage | None = None
) -> Scores:
    """The scores of a predictor on a data set, one image in memory at a time.

    `resamples` is the number of draws behind the intervals; 0 leaves them out. `on_image(sample, prediction, its scores)` is
    called after each image, to show progress or to keep examples.

    Raises:
        UsageError: the data set is empty, an image has no truth, or the predictor speaks of other classes.
    """
    if not len(dataset):
        raise UsageError(f"{dataset.source} holds no samples, there is nothing to measure; check the path and its file names")
    dataset = with_background(dataset)
    metric = Confusion(dataset.classes)
    states: list[Sums] = []
    per_image: dict[str, dict[str, float]] = {}
    matrix = np.zeros((len(dataset.classes), len(dataset.classes) + 1), np.int64)
    for sample in dataset:
        if sample.truth is None:
            raise UsageError(
                f"{dataset.source}: sample {sample.key!r} has no truth to compare with; add its mask or leave it out"
            )
        with naming(f"sample {sample.key!r}"):
            prediction = predict(sample)
        check_classes(prediction, dataset)
        own = metric.matrix(prediction, sample.truth)
        matrix += own
        states.append(class_sums(own))
        scores = metric.score(states[-1])
        per_image[sample.key] = {name: float(scores[name]) for name in PER_IMAGE}
        if on_image:
            on_image(sample, prediction, per_image[sample.key])
    return Scores(
        count=len(dataset),
        classes=dataset.classes,
        values={name: float(value) for name, value in metric.score(class_sums(matrix)).items()},
        intervals=bootstrap(metric, states, resamples, np.random.default_rng(SEED)),
        per_image=per_image,
        matrix=tuple(map(tuple, matrix.tolist())),
        convention=f"{metric.convention} {interval_convention(len(dataset), resamples)}",
    )


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
