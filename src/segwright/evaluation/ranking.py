"""Which of several variants is better, each trained with the same seeds and scored on the same images.

A variant's score is the mean over its seeds of the score over all images. It is unsure for two reasons, which add up: other
images would give another score, which random halves of the images tell (see bootstrap), and so would other seeds. Three seeds
alone hardly tell how much they differ, so that is estimated over all variants together: for a score from the spread of each
variant about its mean, for a difference from what is left when the means of variants and of seeds are taken out (a table of two
ways without interaction), as the seeds of two variants share their crops.

The difference of two variants is tested twice: by swapping what the two predict for random images, an image of all seeds at
once (see significance), and by a t test over images and seeds. The larger p counts, as a difference should hold for other
images and for other seeds; Holm's correction then allows for all pairs, so that the best may be picked by its score and
compared all the same.

Axes: V variants, S seeds, N images, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any, ClassVar

import numpy as np

from segwright.core.errors import UsageError
from segwright.evaluation.bootstrap import LEVEL, Interval, Labels, Spread, bootstrap
from segwright.evaluation.scores import interval_text
from segwright.evaluation.significance import Difference, differences, holm
from segwright.metrics import Metric
from segwright.metrics.accumulators import mean

RESAMPLES = 4000  # so that p can be small enough for Holm's correction of 100 pairs
SEED = 0  # of the resampling: the same runs give the same p
CLAIM = 1 - LEVEL  # the p (Holm) up to which a difference is claimed


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The scores of one variant by name: `values` are means over seeds, with 95 % intervals, and `by_seed` what they are of."""

    name: str
    values: dict[str, float]
    intervals: dict[str, Interval]
    by_seed: dict[str, tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """How the scores of the `second` variant differ from those of the `first`; the main score comes first, then its classes.

    `p_holm` of the main score allows for all pairs of variants; that of a class for this class in all pairs.
    """

    first: str
    second: str
    differences: tuple[Difference, ...]

    @property
    def is_claimed(self) -> bool:
        """Whether a difference in the main score can be claimed."""
        return self.differences[0].p_holm <= CLAIM

    def turned(self) -> "Pairing":
        """The same of the first less the second."""
        return Pairing(first=self.second, second=self.first, differences=tuple(map(_turned, self.differences)))


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Variants, best first by the `score`, and all pairs of them. The first of a pair stands before the second."""

    score: str
    standings: tuple[Standing, ...]
    pairings: tuple[Pairing, ...]

    @property
    def against_best(self) -> dict[str, Pairing]:
        """By the name of each other variant, how far the best is before it."""
        best = self.standings[0].name if self.standings else None
        return {pairing.second: pairing.turned() for pairing in self.pairings if pairing.first == best}

    @property
    def class_scores(self) -> tuple[str, ...]:
        """The names of the scores of single classes that the main score is the mean of, such as "IoU/road" of "mIoU"."""
        return tuple(_compared(self.score, self.standings[0].values)[1:]) if self.standings else ()

    def sentences(self) -> list[str]:
        """What the numbers support, in sentences: what is better than what, and where no difference can be claimed."""
        if len(self.standings) < 2:
            return []
        best, others = self.standings[0].name, self.against_best
        found = []
        if len(others) > 1 and not any(pairing.is_claimed for pairing in self.pairings):
            found.append(f"No difference can be claimed between any two of {_listed([s.name for s in self.standings])}.")
        for other, pairing in others.items():
            row = pairing.differences[0]
            between = interval_text(row.interval, lambda end: f"{end:.4f}") or "unknown"
            sure = f"95 % interval {between}, p {p_text(row.p_holm)}"
            if pairing.is_claimed:
                found.append(f"{best} is better than {other} by {row.difference:.4f} {self.score} ({sure}).")
            else:
                found.append(f"No difference can be claimed between {best} and {other} ({row.difference:.4f}, {sure}).")
        return found

    def convention(self, images: int, seeds: int) -> str:
        """How all numbers come about, in sentences."""
        count = len(self.pairings)
        of_seeds = (
            f"the mean over {seeds} seeds of the score over all {images} images; its 95 % interval is from random halves of "
            "the images, taken as independent, and from how seeds differ, estimated over all variants together"
            if seeds > 1
            else f"of one seed over all {images} images; its 95 % interval is from random halves of the images alone"
        )
        swaps = "how often a difference as large arises when what the two predict for random images is swapped"
        tests = f"the larger of two: {swaps}, and a t test over images and seeds" if seeds > 1 else swaps
        holm_of = f", after Holm's correction for all {count} pairs" if count > 1 else ""
        return f"A score is {of_seeds}. p is {tests}{holm_of}; a difference is claimed up to {CLAIM:.2f}."


def ranked(
    metric: Metric,
    runs: Mapping[str, Sequence[Sequence[Any]]],
    score: str,
    *,
    groups: Labels | None = None,
    resamples: int = RESAMPLES,
) -> Ranking:
    """The ranking of variants by a score of a metric, of which more is better.

    `runs` holds for each variant its S runs, and for each run the states of the N images, seeds and images in the same order.
    `groups` holds a label per image: those of one label are drawn and swapped together.

    Raises:
        UsageError: runs are not as many for each variant, or states not for each run.
    """
    counts = {tuple(len(states) for states in own) for own in runs.values()}
    if len(counts) != 1 or len(set(next(iter(counts)))) != 1:
        raise UsageError(
            f"{', '.join(f'{name} has runs of {[len(s) for s in own]} images' for name, own in runs.items())}; give as many "
            "runs for each variant, each with the states of the same images"
        )
    seeded = {name: [_OfSeeds(each) for each in zip(*own, strict=True)] for name, own in runs.items()}
    averaged = _MeanOverSeeds(metric)
    by_seed = {name: _scores_by_seed(metric, own) for name, own in runs.items()}  # (S,) by score
    names = _compared(score, next(iter(by_seed.values())))
    spreads = {each: _spreads(np.array([own[each] for own in by_seed.values()])) for each in next(iter(by_seed.values()))}
    order = sorted(runs, key=lambda name: -np.nan_to_num(np.mean(by_seed[name][score]), nan=-np.inf))
    standings = []
    for name in order:
        generator = np.random.default_rng(SEED)  # the same halves for all
        of_one = {each: spread[0] for each, spread in spreads.items() if spread is not None}
        intervals = bootstrap(averaged, seeded[name], resamples, generator, groups=groups, spreads=of_one)
        values = {each: float(mean(own)) for each, own in by_seed[name].items()}
        own_seeds = {each: tuple(map(float, own)) for each, own in by_seed[name].items()}
        standings.append(Standing(name=name, values=values, intervals=intervals, by_seed=own_seeds))
    of_two = {each: spread[1] for each, spread in spreads.items() if spread is not None}
    pairings = []
    for place, first in enumerate(order):
        for second in order[place + 1 :]:
            generator = np.random.default_rng(SEED)
            sides = seeded[first], seeded[second]
            rows = differences(averaged, *sides, resamples, generator, scores=names, groups=groups, spreads=of_two)
            pairings.append(Pairing(first=first, second=second, differences=tuple(rows)))
    return Ranking(score=score, standings=tuple(standings), pairings=_corrected(pairings))


def _compared(score: str, known: Mapping[str, Any]) -> list[str]:
    """The main score, then those of its classes: of "mIoU" also "IoU/road", of "PQ" also "PQ/road"."""
    return [score, *(name for name in known if "/" in name and score in (title := name.partition("/")[0], f"m{title}"))]


def _corrected(pairings: Sequence[Pairing]) -> tuple[Pairing, ...]:
    """Pairings whose p (Holm) allow, score by score, for all of them."""
    if not pairings:
        return ()
    columns = zip(*[pairing.differences for pairing in pairings], strict=True)
    adjusted = [holm([row.p for row in column]) for column in columns]  # by score, then by pair
    return tuple(
        replace(
            pairing,
            differences=tuple(replace(row, p_holm=own[n]) for row, own in zip(pairing.differences, adjusted, strict=True)),
        )
        for n, pairing in enumerate(pairings)
    )


def _scores_by_seed(metric: Metric, own: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
    """Each score of the S runs of a variant, float64 (S,)."""
    tables = []
    for states in own:
        whole = np.ones((1, len(states)), np.int64)
        tables.append(metric.score(type(states[0]).weighted(states, whole)))
    return {name: np.array([float(table[name][0]) for table in tables]) for name in tables[0]}


def _spreads(table: np.ndarray) -> tuple[Spread, Spread] | None:
    """What the seeds do to the mean of one variant, and to the difference of two, from the scores (V, S); None of one seed."""
    variants, seeds = table.shape
    if seeds < 2:
        return None
    inside = table.var(axis=1, ddof=1).mean()
    one = Spread(float(np.sqrt(inside / seeds)), variants * (seeds - 1))
    if variants < 2:
        return one, one
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    freedom = (variants - 1) * (seeds - 1)
    return one, Spread(float(np.sqrt(2 * (rest**2).sum() / freedom / seeds)), freedom)


def _turned(row: Difference) -> Difference:
    """The difference of the first score less the second."""
    low, high = row.interval
    turned = 0 - row.difference, (0 - high, 0 - low)  # not the minus of a number, which makes -0 of 0
    return replace(row, first=row.second, second=row.first, difference=turned[0], interval=turned[1])


def p_text(p: float) -> str:
    """A p-value as it is written."""
    if isnan(p):
        return "unknown"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.3f}" if p >= 0.001 else "below 0.001"


def _listed(names: Sequence[str]) -> str:
    """Names as a list in a sentence."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True, eq=False)
class _OfSeeds:
    """The states of one image by seed, or of the sum of many, or of R weighted sums at once."""

    states: tuple[Any, ...]

    @classmethod
    def weighted(cls, states: Sequence["_OfSeeds"], weights: np.ndarray) -> "_OfSeeds":
        """R sums over images, weights (R, N), for each seed."""
        by_seed = zip(*[state.states for state in states], strict=True)
        return cls(tuple(type(own[0]).weighted(own, weights) for own in by_seed))


@dataclass(frozen=True)
class _MeanOverSeeds:
    """A metric whose scores are the means over seeds of those of another; of seeds without a score, the others."""

    metric: Metric

    SCORES: ClassVar[tuple[str, ...]] = ()  # none by itself: those to compare are named

    @property
    def convention(self) -> str:
        """That of the other metric."""
        return self.metric.convention

    def count(self, prediction: Any, truth: Any) -> Any:
        """Never called: what seeds predict is counted by the other metric."""
        return self.metric.count(prediction, truth)

    def score(self, state: _OfSeeds) -> dict[str, np.ndarray]:
        """Scores by name, each of the leading shape of the state."""
        tables = [self.metric.score(own) for own in state.states]
        return {name: mean(np.stack([table[name] for table in tables], axis=-1)) for name in tables[0]}

    def limits(self, states: Sequence[_OfSeeds]) -> dict[str, Interval]:
        """The lowest and the highest that a score can be."""
        alone = [own for state in states for own in state.states]
        return self.metric.limits(alone) if hasattr(self.metric, "limits") else {}
