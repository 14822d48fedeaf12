"""Why two conventions give two numbers for the same predictions. Axes: N images, K classes."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from math import isfinite

import numpy as np

from segwright.core import Classes, Segmentation
from segwright.core.errors import UsageError, naming
from segwright.metrics.accumulators import Sums
from segwright.metrics.confusion import Confusion
from segwright.metrics.conventions import CONVENTIONS, Convention, convention_named

MAIN = Confusion.SCORES[0]  # the score whose difference is traced to images and classes
SHOWN = 5  # images and classes in the text; the result holds all
SMALL = 5e-5  # of a score that is printed with four digits

Moves = dict[str, float]  # by how much each summary score moves


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Where two conventions `a` and `b` differ on some data.

    `scores` holds each summary score by a and by b. `words` says for each field that differs what a and b mean by it, and
    `moves` by how much each score moves if this field alone is changed from a to b. `images` and `classes` say what the
    difference in mIoU, b less a, would be without that image or class, the most decisive first; NaN where nothing is left.
    """

    a: str
    b: str
    scores: dict[str, tuple[float, float]]
    words: dict[str, tuple[str, str]]
    moves: dict[str, Moves]
    images: dict[str, float]
    classes: dict[str, float]

    @property
    def difference(self) -> float:
        """By how much mIoU is higher by b than by a."""
        one, other = self.scores[MAIN]
        return other - one

    def rows(self) -> list[tuple[str, ...]]:
        """A table: a heading, then each summary score by a, by b, and how each differing field alone moves a's."""
        heading = ("", self.a, self.b, "difference", *self.moves)
        return [heading] + [
            (name, _shown(one), _shown(other), _signed(other - one), *(_signed(moves[name]) for moves in self.moves.values()))
            for name, (one, other) in self.scores.items()
        ]

    def sentences(self) -> list[str]:
        """The explanation in plain words, a paragraph each."""
        one, other = self.scores[MAIN]
        said = [f"{name}: {CONVENTIONS[name].reproduces}." for name in dict.fromkeys((self.a, self.b))]
        if not self.moves:
            return [*said, f"{self.a} and {self.b} agree in all that they choose, so their scores are the same on any data."]
        said.append(
            f"{self.a} and {self.b} differ in {len(self.moves)} of {len(fields(Convention))} choices. "
            f"{MAIN} is {_shown(one)} by {self.a} and {_shown(other)} by {self.b}: {_signed(self.difference)}."
        )
        for field, (mine, yours) in self.words.items():
            said.append(f"{field.replace('_', ' ')}: by {self.a}, {mine}; by {self.b}, {yours}. {self._moved(field)}")
        together = self.difference - sum(moves[MAIN] for moves in self.moves.values())
        if len(self.moves) > 1 and abs(together) >= SMALL:
            said.append(f"The rest of the difference, {_signed(together)}, comes from choices that act on each other.")
        if abs(self.difference) >= SMALL:
            said += [self._decisive("image", self.images), self._decisive("class", self.classes)]
        return [sentence for sentence in said if sentence]

    def _moved(self, field: str) -> str:
        """How much a field alone moves, in words."""
        moved = {name: move for name, move in self.moves[field].items() if not abs(move) < SMALL}
        if not moved:
            return "On these data, this alone changes nothing."
        if MAIN in moved:
            return f"This alone moves {MAIN} by {_signed(moved[MAIN])}."
        return f"This alone does not move {MAIN}, but {' and '.join(moved)}."

    def _decisive(self, what: str, without: dict[str, float]) -> str:
        """What the difference would be without the most decisive images or classes, in words; nothing if none is."""
        matter = [(name, gap) for name, gap in without.items() if abs(gap - self.difference) >= SMALL][:SHOWN]
        gaps = ", ".join(f"{_signed(gap)} without {what} {name}" for name, gap in matter)
        return gaps and f"The difference of {_signed(self.difference)} in {MAIN} would be {gaps}."


def explain(pairs: Iterable[tuple[str, Segmentation, Segmentation]], classes: Classes, a: str, b: str) -> Explanation:
    """Where the conventions called `a` and `b` differ on pairs (key, prediction, truth), which are read once, one at a time.

    Raises:
        UnknownNameError: there is no such convention; the message offers the nearest.
        UsageError: there are no pairs, sizes differ or a class is unknown.
    """
    first, second = convention_named(a), convention_named(b)
    changed = {field: replace(first, **{field: getattr(second, field)}) for field in first.differences(second)}
    metrics = {rules: Confusion(classes, rules=rules) for rules in (first, second, *changed.values())}
    ways = {_counted_way(rules): metric for rules, metric in metrics.items()}
    keys: list[str] = []
    counts: dict[tuple[str, ...], list[np.ndarray]] = {way: [] for way in ways}
    for key, prediction, truth in pairs:
        keys.append(key)
        with naming(f"sample {key!r}"):
            for way, metric in ways.items():
                counts[way].append(metric.pixels(prediction, truth))
    if not keys:
        raise UsageError("there are no images to explain a difference on; give predictions and truths with common names")
    pixels = {rules: np.stack(counts[_counted_way(rules)]) for rules in metrics}  # (N, 3, K + 2) each
    scores = {rules: _summary(metrics[rules], pixels[rules]) for rules in metrics}
    words = first.words(classes), second.words(classes)
    gap = scores[second][MAIN] - scores[first][MAIN]
    images = _without_image(metrics[second], pixels[second]) - _without_image(metrics[first], pixels[first])
    names = _without_class(metrics[second], pixels[second]) - _without_class(metrics[first], pixels[first])
    return Explanation(
        a=a,
        b=b,
        scores={name: (scores[first][name], scores[second][name]) for name in Confusion.SCORES},
        words={field: (words[0][field], words[1][field]) for field in changed},
        moves={
            field: {name: scores[rules][name] - scores[first][name] for name in Confusion.SCORES}
            for field, rules in changed.items()
        },
        images=_decisive(keys, images, gap),
        classes=_decisive(classes.names, names, gap),
    )


def _counted_way(rules: Convention) -> tuple[str, ...]:
    """Equal for conventions that count the same pixels of an image."""
    return rules.void, "void" if rules.background == "void" else ""


def _summary(metric: Confusion, pixels: np.ndarray) -> dict[str, float]:
    """The summary scores of N images with these pixels (N, 3, K + 2)."""
    scores = metric.score(Sums(metric.state(pixels).values.sum(axis=0)))
    return {name: float(scores[name]) for name in metric.SCORES}


def _without_image(metric: Confusion, pixels: np.ndarray) -> np.ndarray:
    """The main score without each of N images, float64 (N,), of pixels (N, 3, K + 2)."""
    values = metric.state(pixels).values
    return metric.score(Sums(values.sum(axis=0) - values))[MAIN]


def _without_class(metric: Confusion, pixels: np.ndarray) -> np.ndarray:
    """The main score without each of K classes, float64 (K,), of pixels (N, 3, K + 2)."""
    scores = np.full(len(metric.classes), np.nan)
    for k in range(len(metric.classes)) if len(metric.classes) > 1 else ():
        names = metric.classes.names[:k] + metric.classes.names[k + 1 :]
        scores[k] = _summary(replace(metric, classes=Classes.of(names)), np.delete(pixels, k, axis=-1))[MAIN]
    return scores


def _decisive(names: Iterable[str], without: np.ndarray, gap: float) -> dict[str, float]:
    """The difference without each image or class, those first that it changes most without."""
    change = np.nan_to_num(np.abs(without - gap), nan=-1.0)
    named = dict(zip(names, without.tolist(), strict=True))
    return {name: named[name] for _, name in sorted(zip(-change, named, strict=True))}


def _shown(value: float) -> str:
    """A score for people, with four digits."""
    return f"{value:.4f}" if isfinite(value) else "unknown"


def _signed(value: float) -> str:
    """A difference for people, with its sign."""
    return f"{round(value, 4) + 0.0:+.4f}" if isfinite(value) else "unknown"  # + 0.0: no -0.0000
