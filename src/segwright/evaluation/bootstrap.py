"""How sure a score is: 95 % intervals from scoring random halves of the images. Axes: N images, U units of them, R resamples.

The scores of random halves lie about as far from the score of all images as that one lies from the score of endlessly many:
the mean of half of the values, drawn without replacement, varies about the mean of all with the standard error of that. So
their root mean square distance is the standard error, and a t interval on the scale of log odds, or of logarithms, is as
skewed as scores near their limits are, and stays within them; an end at such a limit says nothing, and is left out. In
simulations (benchmarks/intervals.py) this keeps 95 % where quantiles of images drawn with replacement do not: such draws miss
rare classes, so that a mean over classes moves, and varies too little. Leaving out one image after the other covers as well and
needs no chance, but is too wide for average precision, which jumps.

Source: Saigo, Shao and Sitter 2001, "A Repeated Half-Sample Bootstrap and Balanced Repeated Replications for Randomly Imputed
Data", Survey Methodology 27; Shao and Wu 1989, "A General Theory for Jackknife Variance Estimation", doi
10.1214/aos/1176347263, on why leaving out many at once also serves scores that jump; Satterthwaite 1946, "An
Approximate Distribution of Estimates of Variance Components", doi 10.2307/3002019.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import hypot, inf, isnan, nan
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, stdtrit

from segwright.core.errors import UsageError
from segwright.metrics import Metric

Interval = tuple[float, float]

LEVEL = 0.95
UNKNOWN = (nan, nan)
CELLS = 2**20  # weights made at once, 8 MiB: all 1000 resamples of 1000 images
MOST_BLOCKS = 20  # of images left out to see on how few a score rests; of more, the interval hardly depends
ROUNDING = 1e-10  # share of a score; a change below is none
SHOWN = 5e-5  # an end that is nearer to a limit is shown as it, with four digits
MOST_EXPONENT = 20.0  # an end half a billion times as large as the score says nothing

Labels = Sequence[int] | Sequence[str] | np.ndarray


class Spread(NamedTuple):
    """What a score varies by beside the images, as by seeds: its standard error, known with some degrees of freedom."""

    error: float
    freedom: int


def bootstrap(
    metric: Metric,
    states: Sequence[Any],
    resamples: int,
    generator: np.random.Generator,
    *,
    groups: Labels | None = None,
    spreads: Mapping[str, Spread] | None = None,
) -> dict[str, Interval]:
    """A 95 % interval for each score of a metric, from its states of N images.

    `groups` holds a label per image: images of one label, such as slices of a person or frames of a video, are drawn together,
    since they tell less than as many others would. Without it, images count as independent of each other.
    `spreads` holds for each score what it varies by beside the images.

    An interval is NaN for a score that is NaN itself or rests on one image (or group) alone, and without resamples; one end of
    it is, where few images tell no more on that side than what the score can be at all. Images that are all alike leave no
    doubt here: a perfect score on ten images does not prove that the next is perfect.

    Raises:
        UsageError: there is not one label per image.
    """
    unit_of, count = units(len(states), groups)
    if count < 2 or not resamples:
        return dict.fromkeys(weighed(metric, states, [np.ones((1, len(states)), np.int64)]), UNKNOWN)
    fixed = all_and_without(count)
    tables = halves(count, resamples, generator)
    tables = chain([np.concatenate([fixed, next(tables)])], tables)  # a metric sorts its states once per table
    result = {}
    for name, values in weighed(metric, states, (table[:, unit_of] for table in tables)).items():
        whole, without, drawn = float(values[0]), values[1 : len(fixed)], values[len(fixed) :]
        limits = limits_of(metric, states, name, whole)
        sureness = drawn, count, degrees_of_freedom(whole, without, count), (spreads or {}).get(name)
        result[name] = _interval(whole, *error_and_freedom(whole, *sureness), limits)
    return result


def units(num_images: int, groups: Labels | None) -> tuple[np.ndarray, int]:
    """The unit, 0..U-1, that each image is drawn with, int64 (N,), and the number U of units.

    Raises:
        UsageError: there is not one label per image.
    """
    if groups is None:
        return np.arange(num_images), num_images
    if len(groups) != num_images:
        raise UsageError(f"{len(groups)} group labels were given for {num_images} images; give one label per image")
    labels, unit_of = np.unique(np.asarray(groups), return_inverse=True)
    return unit_of, len(labels)


def halves(count: int, resamples: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Weights int64 (R, U), in chunks along R: each row is 1 for a random half of the units, rounded down, and 0 elsewhere."""
    row = (np.arange(count) < count // 2).astype(np.int64)
    for size in chunks(count, resamples):
        yield generator.permuted(np.tile(row, (size, 1)), axis=1)


def chunks(count: int, resamples: int) -> list[int]:
    """How many resamples of U = `count` units to make at once."""
    size = max(1, CELLS // count)
    return [min(size, resamples - start) for start in range(0, resamples, size)]


def all_and_without(count: int) -> np.ndarray:
    """Weights int64 (1 + blocks, U): 1, and then each row 0 for one unit, of many units for one of 20 blocks of them."""
    blocks = min(count, MOST_BLOCKS)
    left_out = np.eye(blocks, dtype=np.int64)[:, np.arange(count) % blocks]
    return 1 - np.concatenate([np.zeros((1, count), np.int64), left_out])


def weighed(metric: Metric, states: Sequence[Any], tables: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Each score of the sums of N states under all rows of weights, float64 (R,); the weights come in tables (r, N)."""
    parts = [metric.score(type(states[0]).weighted(states, weights)) for weights in tables]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def degrees_of_freedom(whole: float, without: Sequence[float] | np.ndarray, count: int) -> int:
    """How many units a score rests on, less one, from the scores without each block of units; 0 if it rests on one alone.

    A class that occurs in three images has two degrees of freedom, however many images lack it.
    """
    if np.isnan(without).any():  # what was left out is all there is
        return 0
    moving = int((np.abs(np.subtract(without, whole)) > ROUNDING * abs(whole)).sum())
    return count - 1 if moving in (0, len(without)) else moving - 1


def limits_of(metric: Metric, states: Sequence[Any], name: str, *scores: float) -> Interval:
    """The lowest and the highest value that a score of a metric can have; infinite where one of the `scores` lies beyond."""
    known = metric.limits(states) if hasattr(metric, "limits") else {}
    lowest, highest = known.get(name.partition("/")[0], (0.0, 1.0))
    if any(score < lowest or score > highest for score in scores):  # of a metric of somebody's own, which does not tell
        return -inf, inf
    return lowest, highest


def without_limits(interval: Interval, limits: Interval) -> Interval:
    """An interval with NaN for an end that lies at a limit or beyond; of one that says nothing at all, the limits."""
    (low, high), (lowest, highest) = interval, limits
    has_low, has_high = low - lowest >= SHOWN, highest - high >= SHOWN
    return (low if has_low else nan, high if has_high else nan) if has_low or has_high else limits


def error_and_freedom(whole: float, drawn: np.ndarray, count: int, freedom: int, spread: Spread | None) -> tuple[float, float]:
    """The standard error of a score and its degrees of freedom, from the scores (R,) of random halves of U = `count` units.

    A spread, which is independent of the images, adds to it (Satterthwaite 1946). The error is NaN where it is unknown.
    """
    drawn = drawn[np.isfinite(drawn)]  # a half may lack a class
    if not np.isfinite(whole) or not len(drawn) or freedom < 1 or count < 2:
        return nan, freedom
    error = _standard_error(drawn - whole, count)
    if spread is None or spread.error == 0:
        return error, freedom
    both = hypot(error, spread.error)
    share = (error / both) ** 2
    return both, 1 / (share**2 / freedom + (1 - share) ** 2 / spread.freedom)


def _interval(whole: float, error: float, freedom: float, limits: Interval) -> Interval:
    """The 95 % interval of a score from its standard error and the degrees of freedom of that.

    The scale is that of log odds between two limits, of logarithms above one, else linear.
    """
    if isnan(error):
        return UNKNOWN
    if error <= ROUNDING * abs(whole):
        return whole, whole
    reach = -float(stdtrit(freedom, (1 - LEVEL) / 2)) * error
    lowest, highest = limits
    above, ends = whole - lowest, np.array([-1.0, 1.0])
    if lowest < whole < highest < inf:  # steps as wide as on the linear scale, to first order
        span = highest - lowest
        ends = lowest + span * expit(logit(above / span) + ends * reach * span / (above * (span - above)))
    elif -inf < lowest < whole:
        step = reach / above
        ends = lowest + above * np.exp([-step, step if step < MOST_EXPONENT else inf])
    else:
        ends = whole + ends * reach
    return without_limits((float(ends[0]), float(ends[1])), limits)


def _standard_error(distances: np.ndarray, count: int) -> float:
    """The standard error of a score from the distances (R,) of the scores of random halves of U = `count` units to it."""
    half = count // 2
    return float(np.sqrt(np.mean(distances**2) * half / (count - half)))  # the factor is 1 for an even number of units


def group_labels(keys: Sequence[str], groups: Iterable[Sequence[str]]) -> list[int]:
    """A label per key, the same for keys that are in one group; groups that share a key are one, a key in none is alone."""
    label_of = {key: n for n, key in enumerate(keys)}
    for group in groups:
        joined = {label_of[key] for key in group if key in label_of}
        label_of = {key: min(joined) if label in joined else label for key, label in label_of.items()}
    return [label_of[key] for key in keys]
