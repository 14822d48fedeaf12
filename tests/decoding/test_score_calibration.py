"""The map from scores of objects to probabilities. Axes: N objects, H, W."""

import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.core.errors import SettingError
from segwright.decoding.score_calibration import ScoreCalibration, log_odds

CLASSES = Classes.of(["sky", "cat"], is_thing=[False, True])
SOFTER = ScoreCalibration(slope=0.5, shift=-1.0)


def found(scores, instance_ids) -> Segmentation:
    """A row with a pixel for each segment, cats if they have a number."""
    ids = np.array(instance_ids)
    pixels = np.arange(1, len(ids) + 1)[None]
    return Segmentation.panoptic(pixels, (ids > 0).astype(int), ids, scores=scores, classes=CLASSES)


def test_odds_are_raised_to_a_power_and_multiplied():
    squared, twice = ScoreCalibration(slope=2.0), ScoreCalibration(shift=float(np.log(2)))
    assert squared.probabilities(np.array([0.8])) == pytest.approx([16 / 17])  # odds of 4 to 1
    assert twice.probabilities(np.array([0.8, 0.2, 0.5])) == pytest.approx([8 / 9, 1 / 3, 2 / 3])
    assert log_odds(np.array([0.5, 0.8])) == pytest.approx([0, np.log(4)])


@pytest.mark.parametrize("map_", [ScoreCalibration(slope=0.3, shift=2.0), SOFTER, ScoreCalibration(slope=1.5, shift=-3.0)])
def test_order_stays_to_the_last_score(map_):
    scores = np.unique(np.concatenate([np.random.default_rng(0).random(2000), [1.0, 1e-3, 1e-6]]).astype(np.float32))
    probabilities = map_.probabilities(scores)
    assert (np.diff(probabilities) > 0).all() and probabilities[0] > 0 and probabilities[-1] < 1
    assert map_.probabilities(np.array([np.nextafter(np.float32(1), np.float32(0)), 1])) @ [-1, 1] > 0


def test_without_a_map_nothing_is_touched():
    objects = found([0.2, 0.9], [1, 2])
    assert ScoreCalibration()(objects, 0.5) is objects and ScoreCalibration().least_score(0.3) == 0.3
    assert not ScoreCalibration().is_needed and SOFTER.is_needed


@pytest.mark.parametrize("min_score", [0.0, 1e-9, 0.2, 0.25, 0.5, 0.999, 1.0])
def test_the_least_score_is_a_probability(min_score):
    scores = np.random.default_rng(1).random(300).astype(np.float32)
    scores[:2] = 1, 1e-6
    objects = found(scores, np.arange(1, 301))
    probabilities = SOFTER.probabilities(scores).astype(np.float32)
    kept = SOFTER(objects, min_score)
    assert kept.scores.tolist() == probabilities[probabilities >= np.float32(min_score)].tolist()
    assert kept.instance_ids.tolist() == (np.flatnonzero(probabilities >= np.float32(min_score)) + 1).tolist()
    raw = SOFTER.least_score(min_score)  # what is left out before is what would be left out after
    assert 0 <= raw <= 1 and (probabilities[scores < np.float32(raw)] < min_score).all()
    assert ((scores >= raw) & (probabilities < np.float32(min_score))).sum() <= (2 if min_score == 1 else 0)


def test_stuff_keeps_its_score_and_its_place():
    kept = SOFTER(found([0.1, 0.6, 0.9], [0, 1, 2]), 0.5)
    assert kept.scores.tolist() == pytest.approx([0.1, 3 / (3 + np.e)]) and kept.instance_ids.tolist() == [0, 2]
    assert kept.planes.tolist() == [[[1, 0, 2]]]


def test_no_objects_at_all():
    assert len(SOFTER(found([], []), 0.5)) == 0


@pytest.mark.parametrize("numbers", [{"slope": 0.0}, {"slope": -1.0}, {"slope": float("inf")}, {"shift": float("nan")}])
def test_what_would_not_keep_the_order_is_refused(numbers):
    with pytest.raises(SettingError, match="give a positive slope, so that objects keep their order"):
        ScoreCalibration(**numbers)
