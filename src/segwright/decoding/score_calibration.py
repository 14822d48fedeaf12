"""From the score of an object to the probability that it is right, by a map that was fitted on validation images.

Networks rank objects well, and say little of how often those of a score are right: that depends on how many regions they look
at and how long they were trained. The odds of a score are raised to a power and multiplied, which two numbers do (Platt 1999,
"Probabilistic Outputs for Support Vector Machines"; of detections: Küppers et al. 2020, arXiv 2004.13546).

There is one map for all classes, and it rises, so that no two objects change places, in a class or between classes: which of
two lies above the other, and the average precision of each class, stay as they are but for ties by rounding. With a map for
each class the objects of a rare one, fitted to a handful, would move above or below all others by luck. The price is that a
class of which the network is surer than of others stays so.

Axes: N objects, P planes, *S spatial axes.
"""

from dataclasses import dataclass, replace

import numpy as np

from segwright.core import Segmentation
from segwright.core.errors import SettingError

# Half of the step from 1 to the float32 below it: a score of 1 then has odds, which are above those of all others.
LEAST_ODDS = 2.0**-25
LEEWAY = 1e-6  # of a least score, for rounding: what comes through by it is asked for its probability again


@dataclass(frozen=True, kw_only=True)
class ScoreCalibration:
    """The logarithm of the odds becomes `slope` times it plus `shift`; with 1 and 0, scores stay as they are."""

    slope: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.slope < float("inf") and abs(self.shift) < float("inf")):
            raise SettingError(
                f"inference.calibration has slope {self.slope:g} and shift {self.shift:g}; give a positive slope, so that "
                "objects keep their order, and any shift: 1 and 0 leave scores as they are"
            )

    @property
    def is_needed(self) -> bool:
        """Whether it changes any score."""
        return (self.slope, self.shift) != (1.0, 0.0)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """The probabilities float64 (N,) that objects with these scores (N,), 0 to 1, are right."""
        return np.exp(-np.logaddexp(0, -self.slope * log_odds(scores) - self.shift))

    def least_score(self, probability: float) -> float:
        """A score, 0 to 1, that objects at least have which are right with at least this probability, 0 to 1."""
        if not self.is_needed or probability == 0:
            return probability
        odds = (log_odds(np.array([probability])) - self.shift) / self.slope
        return float(np.exp(-np.logaddexp(0, -odds))[0]) * (1 - LEEWAY)

    def __call__(self, found: Segmentation, min_score: float = 0.0) -> Segmentation:
        """A segmentation (*S) in which objects have their probabilities for scores, without those below `min_score`.

        What has no number, as stuff, stays as it is.
        """
        if not self.is_needed:
            return found
        is_object = found.instance_ids > 0
        scores = np.where(is_object, self.probabilities(found.scores), found.scores).astype(np.float32)
        return replace(found, scores=scores).those(~is_object | (scores >= min_score))


def log_odds(scores: np.ndarray) -> np.ndarray:
    """The logarithms of the odds of scores (N,), 0 to 1, float64 (N,); all are finite."""
    inside = np.clip(np.asarray(scores, np.float64), LEAST_ODDS, 1 - LEAST_ODDS)
    return np.log(inside) - np.log1p(-inside)
