"""How far off the Dice to expect is, from validation samples: intervals that hold for nine of ten new ones of the same kind.

By exchangeability, the rank of a new sample's error among those of n others is as likely one as another. So with probability
1 - j / (n + 1) at least, it is not below the j-th lowest: split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates
2021, "A Gentle Introduction to Conformal Prediction", arXiv 2107.07511), with signed errors, of which some are left out on
either side. Of fewer than 19 samples one end is known alone, the lower, and of fewer than 9 none. Samples of one group, such as
scans of a person, share the weight of one, and groups are counted (Lee, Barber and Willett 2023, "Distribution-free inference
with hierarchical data", arXiv 2306.06342).

Errors are differences of log odds. Those of a class are of samples in which it was predicted, for which alone its interval is.

Axes: K classes, N samples.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from segwright.core import Dataset, Sample, Segmentation
from segwright.decoding.expected_dice import FAR, Quality, QualityCalibration, log_odds_of_dice
from segwright.metrics.confusion import Confusion

RATE = 0.9
FEWEST = 9  # units of samples: of fewer, no end is known at this rate
MOST = 100  # samples that are predicted once more for it, evenly spread: twice as many would move the ends of ranks by little
DIGITS = 4  # of log odds, after the point
ROUNDING = 1e-9

Told = tuple[Segmentation, Any, Quality]  # what `Predictor.with_uncertainty` gives


class DiceCases(NamedTuple):
    """Of N samples, by key, the Dice that was `said` and the `true` one, of each class and of their mean, float64 (N, K + 1).

    NaN stands for what was not said, and for a class that neither truth nor prediction holds.
    """

    keys: tuple[str, ...]
    said: np.ndarray
    true: np.ndarray

    @classmethod
    def joined(cls, parts: "Sequence[DiceCases]") -> "DiceCases":
        """Those of several parts of the samples; none of no part."""
        if not parts:
            return cls((), np.empty((0, 1)), np.empty((0, 1)))
        keys, said, true = zip(*parts, strict=True)
        return cls(tuple(chain(*keys)), np.concatenate(said), np.concatenate(true))


def looked_at(count: int) -> list[int]:
    """Which of so many validation samples are predicted once more: none where they are too few, else `MOST` at most."""
    return np.linspace(0, count - 1, min(count, MOST)).round().astype(int).tolist() if count >= FEWEST else []


def always_held(parts: Sequence[Dataset]) -> tuple[int, ...]:
    """The classes that each truth holds in parts of a data set."""
    truths = (sample.truth for data in parts for sample in data.without_images())
    held = [{*truth.class_ids.tolist()} for truth in truths if truth is not None]
    return tuple(sorted(set.intersection(*held))) if held else ()


def dice_cases(predict: Callable[[Sample], Told], data: Dataset) -> DiceCases:
    """What is said of each sample of a data set that has a truth, and what is true."""
    metric, keys, said, true = Confusion(data.classes), list[str](), list[np.ndarray](), list[list[float]]()
    for sample in data:
        if sample.truth is None:
            continue
        found, _, quality = predict(sample)
        scores = metric.score(metric.count(found, sample.truth))
        keys.append(sample.key)
        said.append(quality.expected)
        true.append([*(float(scores[f"Dice/{name}"]) for name in data.classes.names), float(scores["Dice"])])
    shape = (len(keys), len(data.classes) + 1)
    return DiceCases(tuple(keys), np.reshape(said, shape), np.reshape(true, shape))


def fitted_quality(cases: DiceCases, labels: Sequence[int], always: tuple[int, ...] = ()) -> QualityCalibration:
    """What the Dice that is said is moved by, to the likeliest and to two ends; `labels` (N,) are the same within a group.

    `always` are the classes that each of all samples holds. Where no class and no mean has an interval, nothing is kept.
    """
    errors, units = log_odds_of_dice(cases.true) - log_odds_of_dice(cases.said), np.asarray(labels)
    known = [~np.isnan(each) for each in errors.T]
    shifts = [_shifts(each[is_known], units[is_known]) for each, is_known in zip(errors.T, known, strict=True)]
    low, middle, high = zip(*shifts, strict=True)
    found = QualityCalibration(low=low, middle=middle, high=high, always=always)
    return found if found.has_intervals else QualityCalibration()


def _shifts(errors: np.ndarray, units: np.ndarray) -> tuple[float, float, float]:
    """The low end, the median and the high end of errors (N,) in `units` (N,); ends that are not known are FAR away.

    Ends are rounded outwards.
    """
    _, unit = np.unique(units, return_inverse=True)
    own = 1 / (unit.max(initial=-1) + 2)  # of a new unit
    order = errors.argsort(kind="stable")
    errors, weights = errors[order], (own / np.bincount(unit)[unit])[order] if len(unit) else np.empty(0)
    below, above = (np.cumsum(each) - each + own for each in (weights, weights[::-1]))  # a new error is beyond, at most
    left_out = 1 - RATE + ROUNDING
    lows = np.flatnonzero(below <= left_out / 2)
    lows = lows if len(lows) else np.flatnonzero(below <= left_out)
    if not len(lows):
        return -FAR, 0.0, FAR
    highs = np.flatnonzero(above <= left_out - below[lows[-1]])
    step = 10**DIGITS
    low = np.floor(errors[lows[-1]] * step) / step
    high = np.ceil(errors[::-1][highs[-1]] * step) / step if len(highs) else FAR
    middle = errors[np.searchsorted(np.cumsum(weights), weights.sum() / 2 - ROUNDING)]
    return float(low), round(float(middle), DIGITS), float(high)


def told_of_quality(found: QualityCalibration, names: Sequence[str], units: int) -> str:
    """What is to be known of it, in sentences; `names` are those of the classes, `units` are samples, or groups of them."""
    if not found.has_intervals:
        return (
            f"The Dice to expect of an image without truth has no interval: {units} validation images that are not of one "
            f"group are too few for one that holds for {RATE:.0%} of images; {FEWEST} are needed, and with --folds all count."
        )
    none = [name for name, low in zip(names, found.low, strict=False) if low <= -FAR]
    but = f", but for {', '.join(none)}, which it found in too few of them" if none else ""
    return (
        f"The Dice to expect of an image without truth (predict --uncertainty) has an interval that holds for {RATE:.0%} of "
        f"images of the same kind, by {units} validation images that are not of one group{but}."
    )
