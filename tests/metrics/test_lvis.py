import numpy as np
import pytest

from segwright.core import Classes
from segwright.metrics.lvis import FederatedAveragePrecision
from segwright.metrics.matching import Matches, Objects, match

CLASSES = Classes.of(["cat", "dog", "yak"], is_thing=[True] * 3)


def test_by_hand():
    """A cat and a dog are there, the cat is found; a yak is neither there nor wrong to find."""
    truth = Objects(np.array([0, 1]), np.array([50, 50]))
    detections = Objects(np.array([0, 2]), np.array([50, 50]), np.array([0.9, 0.8]), is_excused=np.array([False, True]))
    state = match(detections, truth, (np.array([0]), np.array([0]), np.array([1.0])), (0.5,) * 10, 300)
    metric = FederatedAveragePrecision(CLASSES, frequencies=("r", "f", "f"))
    scores = metric.score(state)
    assert list(scores) == [*metric.SCORES, "AP/cat", "AP/dog", "AP/yak"]
    assert scores["AP"] == scores["AP small"] == scores["AR@300"] == 0.5
    assert scores["AP rare"] == 1 and scores["AP frequent"] == 0 and np.isnan(scores["AP common"])
    assert "LVIS" in metric.convention
    many = metric.score(Matches.weighted([state], np.array([[1], [2], [0]])))
    assert many["AP rare"].tolist()[:2] == [1, 1] and np.isnan(many["AP rare"][2])


def test_needs_frequencies():
    with pytest.raises(TypeError):
        FederatedAveragePrecision(CLASSES)
