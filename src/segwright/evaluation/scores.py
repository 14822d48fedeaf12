"""Scores of predictions, each with its convention and an interval that says how sure it is. Axes: K classes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core import Classes
from segwright.core.atomic_files import replace_file
from segwright.core.errors import FormatError
from segwright.core.strict_json import json_text, without_nan
from segwright.evaluation.significance import Difference
from segwright.reports.html.page import percent

DISTANCES = ("HD95", "HD", "ASSD", "error")  # how scores are called that are no shares, and of which less is better


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores between 0 and 1, NaN where nothing could be measured.

    `values` holds each score by name, `intervals` its 95 % interval, with NaN for an end that is not known, `per_image` some
    scores of each image by key. `matrix` counts pixels: a row per true class, a column per predicted class, and a last column
    for pixels that were given no class; it is empty where no classes of pixels were scored. `conventions` says for each metric
    what was averaged, and over what,
    and `notes` what else one must know, as images that have no prediction. `differences` are those from the model that training
    started from, the first of each, on the same images.
    """

    count: int
    classes: Classes
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_image: dict[str, dict[str, float]]
    matrix: tuple[tuple[int, ...], ...]
    conventions: dict[str, str]
    notes: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()

    @property
    def size(self) -> str:
        """How many images were measured, or videos where no score is of single images, in words."""
        return f"{self.count} {'image' if self.per_image or not self.values else 'video'}{'s' * (self.count != 1)}"

    @property
    def convention(self) -> str:
        """All conventions, in one text."""
        return " ".join(self.conventions.values())

    def confusion(self) -> np.ndarray:
        """The matrix as an array, int64 (K, K + 1)."""
        return np.array(self.matrix, dtype=np.int64)

    def to_json(self) -> str:
        """The scores as JSON text, one entry a line; NaN becomes null. `Scores.from_json` reads it back equal."""
        return _laid_out(without_nan(asdict(self))) + "\n"

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
                values=_with_nan(table["values"]),
                intervals={name: (_number(low), _number(high)) for name, (low, high) in table["intervals"].items()},
                per_image={key: _with_nan(own) for key, own in table["per_image"].items()},
                matrix=tuple(tuple(row) for row in table["matrix"]),
                conventions=dict(table["conventions"]),
                notes=tuple(table["notes"]),
                differences=tuple(map(_difference, table.get("differences", ()))),  # earlier files have none
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"{source} hold no scores of segwright ({error!r}); make them with: segwright evaluate"
            ) from error


def is_distance(name: str) -> bool:
    """Whether a score is a distance or a count of errors: no share, and less is better."""
    return name.partition("/")[0].endswith(DISTANCES)


def score_text(name: str, value: float, *, unit: str = "\u00a0%") -> str:
    """A score as it is shown: a share in per cent with its unit, a distance as it is; a dash for NaN."""
    if is_distance(name) and np.isfinite(value):
        return f"{value:.2f}"
    return percent(value) + unit * bool(np.isfinite(value))


def interval_text(interval: tuple[float, float], shown: Callable[[float], str]) -> str:
    """An interval as it is shown, "0.5 to 0.7", or "at least 0.5" where the other end is NaN; empty where both are."""
    low, high = interval
    if isnan(low) and isnan(high):
        return ""
    if isnan(low) or isnan(high):
        return f"at most {shown(high)}" if isnan(low) else f"at least {shown(low)}"
    return f"{shown(low)} to {shown(high)}"


def write_scores(path: Path | str, scores: Scores) -> None:
    """Write scores.json, whole or not at all.

    Raises:
        OutputError: the path cannot be written.
    """
    replace_file(Path(path), scores.to_json().encode())


def _laid_out(value: Any, depth: int = 0) -> str:
    """JSON text for people: one entry of an object a line, one row of a table a line."""
    inner, outer = "\n" + "  " * (depth + 1), "\n" + "  " * depth
    if isinstance(value, dict) and value:
        entries = (f"{inner}{json_text(name)}: {_laid_out(each, depth + 1)}" for name, each in value.items())
        return "{" + ",".join(entries) + outer + "}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[" + ",".join(inner + _laid_out(row, depth + 1) for row in value) + outer + "]"
    return json_text(value)


def _difference(row: Mapping[str, Any]) -> Difference:
    """A difference that JSON has held."""
    low, high = row["interval"]
    numbers = {name: _number(value) for name, value in row.items() if name not in ("score", "interval")}
    return Difference(score=row["score"], interval=(_number(low), _number(high)), **numbers)


def _number(value: float | None) -> float:
    """A number that may have become null."""
    return float("nan") if value is None else float(value)


def _with_nan(values: Mapping[str, float | None]) -> dict[str, float]:
    """Scores with NaN for null."""
    return {name: _number(value) for name, value in values.items()}
