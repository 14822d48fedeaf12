"""What every metric must do: each file of metrics/ is tested as it is, by its name."""

import pickle
from functools import reduce
from operator import add

import numpy as np
import pytest

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import ShapeError
from segwright.core.find import find, names
from segwright.metrics import Metric

CLASSES = Classes.of(["ground", "tree", "house", "sky"])


def class_of(name):
    return getattr(find("segwright.metrics", name), name.title().replace("_", ""), None)


METRICS = [name for name in names("segwright.metrics") if hasattr(class_of(name), "SCORES")]


def metric_named(name):
    return class_of(name)(CLASSES)


def segmentation(seed, shape=(24, 30)):
    """Squares of random classes, some of them void."""
    coarse = np.random.default_rng(seed).integers(VOID, len(CLASSES), [-(-side // 6) for side in shape])
    for axis in range(len(shape)):
        coarse = coarse.repeat(6, axis=axis)
    return Segmentation.semantic(coarse[tuple(map(slice, shape))], CLASSES)


def assert_scores_equal(one, other):
    assert set(one) == set(other)
    for score in one:
        np.testing.assert_allclose(one[score], other[score], rtol=1e-9, err_msg=score)


@pytest.mark.parametrize("name", METRICS)
def test_is_a_metric_with_a_convention(name):
    metric = metric_named(name)
    assert isinstance(metric, Metric) and len(metric.convention) > 20
    scores = metric.score(metric.count(segmentation(0), segmentation(1)))
    assert set(metric.SCORES) <= set(scores)


@pytest.mark.parametrize("shape", [(24, 30), (12, 13, 18)])
@pytest.mark.parametrize("name", METRICS)
def test_truth_against_truth_is_perfect(name, shape):
    metric, truth = metric_named(name), segmentation(0, shape)
    scores = metric.score(metric.count(truth, truth))
    assert scores and all(np.shape(value) == () for value in scores.values())
    perfect = metric.score(metric.count(truth, truth) + metric.count(truth, truth))
    wrong = metric.score(metric.count(segmentation(1, shape), truth))
    assert_scores_equal(scores, perfect)
    for score, value in scores.items():
        assert value in (0.0, 1.0), f"{score} of truth against truth is {value}"  # 1 for rates, 0 for distances
        assert not abs(wrong[score] - value) < 1e-12, f"{score} does not tell a wrong answer from a perfect one"


@pytest.mark.parametrize("name", METRICS)
def test_adds_up_in_any_order(name):
    metric = metric_named(name)
    states = [metric.count(segmentation(seed), segmentation(seed + 10)) for seed in range(3)]
    assert_scores_equal(metric.score(states[0] + states[1] + states[2]), metric.score(states[2] + (states[0] + states[1])))


@pytest.mark.parametrize("name", METRICS)
def test_weighted_sums_are_those_of_repeated_images(name):
    metric = metric_named(name)
    states = [metric.count(segmentation(seed), segmentation(seed + 10)) for seed in range(3)]
    many = metric.score(type(states[0]).weighted(states, np.array([[1, 1, 1], [2, 0, 1]])))
    for row, repeated in enumerate([states, [states[0], states[0], states[2]]]):
        alone = metric.score(reduce(add, repeated))
        assert_scores_equal({score: values[row] for score, values in many.items()}, alone)


@pytest.mark.parametrize("name", METRICS)
def test_states_travel_between_processes(name):
    metric = metric_named(name)
    state = metric.count(segmentation(0), segmentation(1))
    assert_scores_equal(metric.score(pickle.loads(pickle.dumps(state))), metric.score(state))


@pytest.mark.parametrize("name", METRICS)
def test_ignores_void(name):
    """What is predicted where the truth is void changes nothing."""
    metric, truth = metric_named(name), segmentation(0)
    prediction = segmentation(1)
    other = np.where(truth.class_map() == VOID, 3 - prediction.class_map(), prediction.class_map()).clip(VOID, 3)
    one = metric.score(metric.count(prediction, truth))
    assert_scores_equal(one, metric.score(metric.count(Segmentation.semantic(other, CLASSES), truth)))


@pytest.mark.parametrize("name", METRICS)
def test_leaves_its_input_alone(name):
    metric, prediction, truth = metric_named(name), segmentation(0), segmentation(1)
    before = prediction.planes.copy(), truth.planes.copy()
    metric.score(metric.count(prediction, truth))
    np.testing.assert_array_equal(prediction.planes, before[0])
    np.testing.assert_array_equal(truth.planes, before[1])


@pytest.mark.parametrize("name", METRICS)
def test_refuses_sizes_that_differ(name):
    with pytest.raises(ShapeError):
        metric_named(name).count(segmentation(0, (12, 12)), segmentation(0))
