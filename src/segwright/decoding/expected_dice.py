"""The Dice to expect of a prediction whose truth nobody knows, with an interval. Axes: K classes, *n pixels.

If a pixel holds a class with probability p, the overlap of prediction and truth is the sum of p over the prediction, and the
size of the truth the sum over the image: twice the first over the sizes of both is the Dice to expect, but for a little ("soft
Dice confidence", Borges, Pacheco and Silva 2024, arXiv 2402.10665, who say how little where pixels are independent). Networks
are surer than they are right, and pixels are not independent. So what this was wrong by on validation images, as a difference
of log odds, moves it and makes an interval, which holds whether probabilities are right or not (`evaluation/conformal.py`).

A class of which nothing is predicted has no Dice to expect: it is 0 if the class is there, and none if not. In the mean over
classes it counts as 0, weighted by the chance that it is there: its highest probability at a pixel, which is the least that
this chance can be, or 1 if each validation image holds the class.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from segwright.core.errors import SettingError
from segwright.metrics.accumulators import ratio

LEAST = 1e-4  # a Dice below counts as 0, and one as near to 1 as 1, so that all log odds are finite
FAR = 99.0  # log odds of an end that is not known
ROUNDING = 1e-6  # share of a Dice


@dataclass(frozen=True, eq=False)
class OverlapSums:
    """What pixels add up to for each class, float64 (K,); they are added as they come, and none is kept.

    `predicted` counts the pixels that it is predicted at, `inside` is the sum of its probability there, `whole` that over all
    pixels, and `highest` the highest.
    """

    predicted: np.ndarray
    inside: np.ndarray
    whole: np.ndarray
    highest: np.ndarray

    @classmethod
    def of_none(cls, num_classes: int) -> "OverlapSums":
        """Those of no pixel."""
        return cls(*np.zeros((4, num_classes)))

    def add_classes(self, probs: np.ndarray, labels: np.ndarray, missing: np.ndarray | None = None) -> None:
        """Add pixels with probabilities (K, *n), and `labels` (*n) where they are highest; `missing` ones are left out."""
        probs, labels = _known(probs, missing), _known(labels[None], missing)[0]
        self.predicted[:] += np.bincount(labels, minlength=len(probs))
        self.inside[:] += np.bincount(labels, probs.max(axis=0), minlength=len(probs))
        self._add(probs)

    def add_regions(self, probs: np.ndarray, missing: np.ndarray | None = None) -> None:
        """Add pixels (K, *n) of classes that may overlap, which are predicted where they are likelier there than not."""
        probs = _known(probs, missing)
        self.predicted[:] += (probs > 0.5).sum(axis=1)
        self.inside[:] += np.where(probs > 0.5, probs, 0).sum(axis=1, dtype=np.float64)
        self._add(probs)

    def _add(self, probs: np.ndarray) -> None:
        self.whole[:] += probs.sum(axis=1, dtype=np.float64)
        np.maximum(self.highest, probs.max(axis=1, initial=0), out=self.highest)

    def dice(self) -> np.ndarray:
        """The Dice to expect of each class, float64 (K,), NaN where nothing is predicted of it."""
        return np.where(self.predicted > 0, ratio(2 * self.inside, self.predicted + self.whole), np.nan)


def _known(values: np.ndarray, missing: np.ndarray | None) -> np.ndarray:
    """Values (C, *n) of the pixels that are not missing, (C, m)."""
    values = values.reshape(len(values), -1)
    return values if missing is None else values[:, ~missing.reshape(-1)]


class Quality(NamedTuple):
    """The Dice to expect of each class and, last, of their mean, float64 (K + 1,), and the ends of its interval.

    Of ten images, nine have a Dice from `low` to `high`. NaN stands for what is not known.
    """

    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, kw_only=True)
class QualityCalibration:
    """What the log odds of a Dice are moved by, of each class and, last, of the mean: to the likeliest, and to two ends.

    Ends are FAR where validation images are too few for one. `always` are the classes that each of these images holds. Without
    any of it the Dice is that which probabilities say, and how far off it may be is not known.
    """

    low: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    always: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        counts = [len(self.low), len(self.middle), len(self.high)]
        if len({*counts}) > 1:
            raise SettingError(
                f"inference.quality has {counts} numbers for low, middle and high; give each one for each class and one for "
                "the mean, or leave out all three"
            )

    @property
    def has_intervals(self) -> bool:
        """Whether any class has an interval."""
        return any(low > -FAR for low in self.low)

    def said(self, sums: OverlapSums, is_found: np.ndarray) -> np.ndarray:
        """The Dice of each class and of their mean as probabilities say them, float64 (K + 1,).

        `is_found` bool (K,) are the classes of the final segmentation.
        """
        dice, weights = np.where(is_found, sums.dice(), np.nan), sums.highest.copy()
        weights[[*self.always]] = float(sums.whole.any())  # of an image without a value nothing can be said
        weights[~np.isnan(dice)] = 1
        return np.append(dice, ratio((np.nan_to_num(dice) * weights).sum(), weights.sum()))

    def __call__(self, sums: OverlapSums, is_found: np.ndarray) -> Quality:
        """The quality to expect of an image with these sums; `is_found` is as in `said`.

        Raises:
            SettingError: this is for another number of classes.
        """
        if len(self.low) not in (0, len(is_found) + 1) or any(not 0 <= k < len(is_found) for k in self.always):
            raise SettingError(
                f"inference.quality is for {len(self.low) - 1} classes, and there are {len(is_found)}; leave it out with "
                "--set inference.quality={}"
            )
        said = self.said(sums, is_found)
        nothing = np.full(len(said), np.nan)
        if not self.low:
            return Quality(said, nothing, nothing)
        low, middle, high = expit(log_odds_of_dice(said) + np.array([self.low, self.middle, self.high]))
        low[low <= LEAST * (1 + ROUNDING)] = 0
        high[high >= 1 - LEAST * (1 + ROUNDING)] = 1
        has_none = np.isnan(said) | (np.array(self.low) <= -FAR)
        return Quality(np.where(has_none, said, middle), np.where(has_none, np.nan, low), np.where(has_none, np.nan, high))


def log_odds_of_dice(dice: np.ndarray) -> np.ndarray:
    """The log odds of Dice, 0 to 1, of any shape; all are finite, but for NaN."""
    return logit(np.clip(dice, LEAST, 1 - LEAST))
