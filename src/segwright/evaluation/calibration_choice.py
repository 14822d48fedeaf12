"""Whether the scores of a network's objects become probabilities, by a test on images that the map for it had not seen.

An object is right where its IoU with an object of its class that no surer one has taken is 0.5 or more, as COCO matches them;
what lies in crowds or void does not count, nor what COCO does not look at: beyond the hundred surest of a class in an image.

The map (`decoding/score_calibration.py`) is the likeliest, with Platt's targets: the share of right ones is not taken for 0 or
1 however few there are. To see whether it helps, images are dealt to five parts, and the objects of each are judged by a map
fitted to the others. It is kept where that lowers their Brier score and p is below 0.05: of twenty networks with nothing to
mend, one at most gets a map. Brier scores are compared, since a single object that is surely wrong may decide a likelihood.

Axes: D objects found, U units of images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from segwright.decoding.score_calibration import ScoreCalibration, log_odds
from segwright.evaluation.accumulate import OF_RANKED
from segwright.evaluation.bootstrap import ROUNDING
from segwright.evaluation.evaluate import Tally
from segwright.metrics.matching import Matches

RIGHT = np.uint64(1)  # the bit of the first threshold of IoU, 0.5
FEWEST_OBJECTS = 20  # right ones, and wrong ones: for fewer, two numbers are much to ask
FEWEST_UNITS = 6  # images, or groups of them: of five, one in 16 swaps does as well as none
PARTS = 5
CLAIM = 0.05
RESAMPLES = 2000
SEED = 0
LIMITS = ((np.log(0.05), np.log(20)), (-20.0, 20.0))  # of the logarithm of the slope, and of the shift: enough for any network


class ScoredObjects(NamedTuple):
    """Objects that were found: `scores` float64 (D,), whether each `is_right` bool (D,), and its unit of images int64 (D,)."""

    scores: np.ndarray
    is_right: np.ndarray
    units: np.ndarray


def scored_objects(states: Sequence[Matches], labels: Sequence[int]) -> ScoredObjects:
    """The objects of images, from their matches; `labels` are the same for images of one group, which are one unit."""
    scores, is_right, units = [np.empty(0)], [np.empty(0, bool)], [np.empty(0, np.int64)]
    for state, label in zip(states, labels, strict=True):
        for image in state.images:
            does_count = (image.counted[0] & RIGHT) > 0
            scores.append(image.scores[does_count])
            is_right.append((image.correct[0] & RIGHT)[does_count] > 0)
            units.append(np.full(int(does_count.sum()), label))
    return ScoredObjects(np.concatenate(scores), np.concatenate(is_right), np.concatenate(units))


def fitted_calibration(scores: np.ndarray, is_right: np.ndarray) -> ScoreCalibration:
    """The likeliest map for objects with these scores (D,), right or wrong bool (D,), its numbers rounded to four digits.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2.
    """
    right, wrong = int(is_right.sum()), int((~is_right).sum())
    targets = np.where(is_right, (right + 1) / (right + 2), 1 / (wrong + 2))
    odds = log_odds(scores)

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        slope = np.exp(numbers[0])
        said = slope * odds + numbers[1]
        error = np.exp(-np.logaddexp(0, -said)) - targets
        return float(np.mean(np.logaddexp(0, said) - targets * said)), np.array([np.mean(error * odds) * slope, np.mean(error)])

    found = minimize(loss, np.zeros(2), jac=True, bounds=LIMITS, method="L-BFGS-B").x
    return ScoreCalibration(slope=float(f"{np.exp(found[0]):.4g}"), shift=float(f"{found[1]:.4g}"))


def held_out_probabilities(objects: ScoredObjects) -> np.ndarray:
    """The probabilities float64 (D,) of objects by maps that were fitted to those of other units."""
    _, unit = np.unique(objects.units, return_inverse=True)
    found = np.empty(len(unit))
    for part in range(PARTS):
        is_out = unit % PARTS == part
        rest = objects.scores[~is_out], objects.is_right[~is_out]
        found[is_out] = fitted_calibration(*rest).probabilities(objects.scores[is_out])
    return found


def chosen_calibration(tally: Tally, labels: Sequence[int]) -> tuple[ScoreCalibration, tuple[str, ...]]:
    """The map for the scores of objects if it helps, and what is to be known of it; none where no metric ranks objects first.

    `labels` are the same for images of one group.
    """
    name = next(iter(tally.counter.metrics))
    if name not in OF_RANKED:
        return ScoreCalibration(), ()
    objects = scored_objects([one.states[name] for one in tally.counted], labels)
    right, units = int(objects.is_right.sum()), len(np.unique(objects.units))
    wrong = len(objects.scores) - right
    if min(right, wrong) < FEWEST_OBJECTS or units < FEWEST_UNITS:
        return ScoreCalibration(), (
            f"Scores of objects rank them and are no probabilities: {right} right and {wrong} wrong ones in {units} images "
            f"that are not of one group are too few to fit a map to; {FEWEST_OBJECTS} of each in {FEWEST_UNITS} are needed.",
        )
    before, after = ((said - objects.is_right) ** 2 for said in (objects.scores, held_out_probabilities(objects)))
    p = _sign_test(before - after, objects.units)
    change = f"from {before.mean():.4f} to {after.mean():.4f} (p = {p:.2g})"
    told = f"on images that it was not fitted to, the Brier score goes {change}"
    if after.mean() >= before.mean() or p >= CLAIM:
        return ScoreCalibration(), (f"Scores of objects stay as they are, as a map to probabilities does not help: {told}.",)
    return fitted_calibration(objects.scores, objects.is_right), (
        "From now on the score of an object is the probability that it is right, with an IoU of 0.5 or more with one of its "
        f"class, by a map for all classes that leaves their order: {told}. The scores here are without it, and AP is the same.",
    )


def _sign_test(gains: np.ndarray, units: np.ndarray) -> float:
    """How often gains (D,) are as large in either direction where the sign of those of each unit (D,) is drawn."""
    _, unit = np.unique(units, return_inverse=True)
    sums = np.bincount(unit, gains)
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], (RESAMPLES, len(sums)))
    as_large = np.abs(signs @ sums) >= abs(sums.sum()) * (1 - ROUNDING)
    return float(1 + as_large.sum()) / (1 + RESAMPLES)
