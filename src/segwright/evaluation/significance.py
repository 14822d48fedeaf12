"""Whether one prediction is better than another on the same images. Axes: N images, U units of them, R resamples.

Images that are hard for one prediction are hard for the other, so the difference of two scores is known better than either.
Its interval comes from the same random halves of the images for both (see bootstrap); its p-value from swapping what the two
predict on an image, at random: were both equally good, the swapped difference would be as likely as the true one. That holds
for any score that is a function of sums, and needs no assumption on how scores are distributed, so the p-value is exact.

Source: Good 2005, "Permutation, Parametric and Bootstrap Tests of Hypotheses", doi 10.1007/b138696; Holm 1979, "A Simple
Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from segwright.core.errors import UnknownNameError, UsageError
from segwright.evaluation.bootstrap import (
    LEVEL,
    ROUNDING,
    UNKNOWN,
    Interval,
    Labels,
    Spread,
    all_and_without,
    chunks,
    degrees_of_freedom,
    error_and_freedom,
    halves,
    limits_of,
    units,
    weighed,
    without_limits,
)
from segwright.metrics import Metric

CONVENTION = (
    "A difference is the second score less the first, with its 95 % interval. p is how often a difference at least as large, "
    "in either direction, arises when the two predictions of random images are swapped: below 0.05, chance alone is a poor "
    "explanation. Of twenty scores compared, one falls below by chance; p (Holm) allows for all scores of the table."
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One score of two predictions, the second less the first, its 95 % interval and p-values; NaN where unknown.

    `p` stands for this score alone; `p_holm` allows for all scores that were compared with it.
    """

    score: str
    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    p: float
    p_holm: float


def differences(
    metric: Metric,
    first: Sequence[Any],
    second: Sequence[Any],
    resamples: int,
    generator: np.random.Generator,
    *,
    scores: Sequence[str] | None = None,
    groups: Labels | None = None,
    spreads: Mapping[str, Spread] | None = None,
) -> list[Difference]:
    """How two predictions differ in the scores of a metric, from their states of the same N images in the same order.

    `scores` are the names to compare, by default the summary scores of the metric: choose them before looking. `groups` holds a
    label per image: images of one label are drawn and swapped together, as in `bootstrap`. With few images, p cannot be small:
    of five, one in 16 swaps does as well as none.

    `spreads` holds for each score what a difference varies by beside the images, as by seeds. Swaps do not know of it, so that
    p is then that of a t test of both, where that is larger.

    Raises:
        UsageError: the states are not as many, there are none, no resamples are asked for, or labels are not one per image.
        UnknownNameError: the metric has no score of that name.
    """
    if len(first) != len(second) or not first:
        raise UsageError(
            f"{len(first)} and {len(second)} states were given; give those of both predictions on the same images, at least one"
        )
    if resamples < 1:
        raise UsageError(f"{resamples} resamples were asked for; a comparison needs some, such as 1000")
    unit_of, count = units(len(first), groups)
    fixed = [weighed(metric, states, [all_and_without(count)[:, unit_of]]) for states in (first, second)]
    names = metric.SCORES if scores is None else scores
    for name in names:
        if name not in fixed[0]:
            raise UnknownNameError(f"{type(metric).__name__} has no score {name!r}; it has {', '.join(fixed[0])}")
    both = [state for pair in zip(first, second, strict=True) for state in pair]
    halved = _differences(metric, both, ((weights[:, unit_of], 0) for weights in halves(count, resamples, generator)))
    swapped = _differences(metric, both, ((1, swaps[:, unit_of]) for swaps in _coins(count, resamples, generator)))
    rows = []
    for name in names:
        one, other = (float(table[name][0]) for table in fixed)
        freedom = min(degrees_of_freedom(float(table[name][0]), table[name][1:], count) for table in fixed)
        spread = (spreads or {}).get(name)
        sureness = error_and_freedom(other - one, halved[name], count, freedom, spread)
        lowest, highest = limits_of(metric, both, name, one, other)
        span = _linear_interval(other - one, *sureness, (lowest - highest, highest - lowest))
        p = _p_value(other - one, swapped[name])
        rows.append((name, one, other, span, p if spread is None else max(p, _t_test(other - one, *sureness))))
    adjusted = holm([row[-1] for row in rows])
    return [
        Difference(score=name, first=one, second=other, difference=other - one, interval=span, p=p, p_holm=allowing)
        for (name, one, other, span, p), allowing in zip(rows, adjusted, strict=True)
    ]


def _coins(count: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Tosses int64 (R, U) of 0 or 1, in chunks along R."""
    for size in chunks(count, resamples):
        yield generator.integers(0, 2, (size, count))


def _differences(
    metric: Metric, both: Sequence[Any], draws: Iterable[tuple[np.ndarray | int, np.ndarray | int]]
) -> dict[str, np.ndarray]:
    """Each score of the second prediction less that of the first, float64 (R,), from the states of both, image by image.

    `draws` are chunks of weights of the images, and whether their two states are swapped: 1 or 0, of shape (r, N) each.
    """
    parts = []
    for weights, swaps in draws:
        kept, moved = np.broadcast_arrays(weights * (1 - swaps), weights * swaps)
        first = weighed(metric, both, [np.stack([kept, moved], axis=-1).reshape(len(kept), -1)])
        second = weighed(metric, both, [np.stack([moved, kept], axis=-1).reshape(len(kept), -1)])
        parts.append({name: second[name] - first[name] for name in first})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _linear_interval(difference: float, error: float, freedom: float, limits: Interval) -> Interval:
    """The 95 % interval of a difference from its standard error and the degrees of freedom of that.

    An end beyond the limits, which says nothing, is NaN.
    """
    if np.isnan(error):
        return UNKNOWN
    reach = -float(stdtrit(freedom, (1 - LEVEL) / 2)) * error
    return without_limits((difference - reach, difference + reach), limits)


def _p_value(difference: float, swapped: np.ndarray) -> float:
    """Share of the differences at least as large as the true one, among those (R,) of random swaps and itself.

    A swap without a score counts as large, so that the share is never too small.
    """
    if not np.isfinite(difference):
        return float("nan")
    is_smaller = np.abs(swapped) < abs(difference) * (1 - ROUNDING)
    return float(1 + (~is_smaller).sum()) / (1 + len(swapped))


def _t_test(difference: float, error: float, freedom: float) -> float:
    """The two-sided p-value of a difference with its standard error; 1 where that is unknown, or nothing differs."""
    if np.isnan(error) or difference == 0:
        return 1.0
    return float(2 * stdtr(freedom, -abs(difference) / error)) if error > 0 else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that allow for how many there are: below 0.05, at most one time in twenty is even one of them chance.

    Unknown ones (NaN) stay so and are not counted.
    """
    known = sorted((p, n) for n, p in enumerate(p_values) if not np.isnan(p))
    adjusted, lowest = [float("nan")] * len(p_values), 0.0
    for rank, (p, n) in enumerate(known):
        lowest = max(lowest, min(1.0, (len(known) - rank) * p))
        adjusted[n] = lowest
    return adjusted
