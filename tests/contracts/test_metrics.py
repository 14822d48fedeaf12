"""What every metric must do: each file of metrics/ that offers one is tested as it is, by its name."""

import pickle
from functools import reduce
from operator import add

import numpy as np
import pytest

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import ShapeError
from segwright.evaluation.accumulate import metric_class, offered
from segwright.evaluation.bootstrap import bootstrap, limits_of
from segwright.metrics import Metric

METRICS = sorted(offered())
CLASSES = Classes.of(["ground", "tree", "house", "sky"], is_thing=[False, True, True, False])
CLASS_IDS, INSTANCE_IDS = np.array([0, 1, 1, 2, 2, 3]), np.array([0, 1, 2, 3, 4, 0])  # of six segments
SHAPES = [(24, 30), (12, 13, 18)]
FLAT = {"davis_jf"}  # what its authors define in 2D only
FEW = {"AR@1", "box AR@1"}  # one detection of a class is too few where there are two objects
TREND = {"J decay", "F decay"}  # a perfect and a steadily wrong answer both lose nothing with time


def segment_map(seed, shape=SHAPES[0]):
    """Squares of random segments of four classes, some of them void."""
    coarse = np.random.default_rng(seed).integers(VOID, len(CLASS_IDS), [-(-side // 6) for side in shape])
    for axis in range(len(shape)):
        coarse = coarse.repeat(6, axis=axis)
    return coarse[tuple(map(slice, shape))]


def segmentation(given, shape=SHAPES[0]):
    """The segmentation of a seed or of a map."""
    numbers = segment_map(given, shape) if isinstance(given, int) else given
    scores = np.random.default_rng(given if isinstance(given, int) else 0).random(len(CLASS_IDS))  # no two are equal
    return Segmentation.panoptic(
        np.where(numbers >= 0, numbers + 1, VOID), CLASS_IDS, INSTANCE_IDS, scores=scores, classes=CLASSES
    )


def counted(metric, prediction, truth):
    """The state of an image, or of a video of five equal frames."""
    if getattr(metric, "COUNTS_VIDEOS", False):
        return metric.count((prediction, truth) for _ in range(5))
    return metric.count(prediction, truth)


def assert_scores_equal(one, other):
    assert set(one) == set(other)
    for score in one:
        np.testing.assert_allclose(one[score], other[score], rtol=1e-9, err_msg=score)


@pytest.mark.parametrize("name", METRICS)
def test_is_a_metric_with_a_convention(name):
    metric = metric_class(name)(CLASSES)
    assert isinstance(metric, Metric) and len(metric.convention) > 20 and metric.convention.endswith(".")
    assert set(metric.SCORES) <= set(metric.score(counted(metric, segmentation(0), segmentation(1))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", METRICS)
def test_truth_against_truth_is_perfect(name, shape):
    metric, truth = metric_class(name)(CLASSES), segmentation(0, shape)
    if name in FLAT and len(shape) == 3:
        with pytest.raises(ShapeError, match="of 2 axes"):
            counted(metric, truth, truth)
        return
    scores = metric.score(counted(metric, truth, truth))
    assert scores and all(np.shape(value) == () for value in scores.values())
    assert_scores_equal(scores, metric.score(counted(metric, truth, truth) + counted(metric, truth, truth)))
    wrong = metric.score(counted(metric, segmentation(1, shape), truth))
    for score, value in scores.items():
        if np.isnan(value) or score in FEW:
            continue  # such as objects of no size that the truth has, or of a class without things
        assert value in (0.0, 1.0), f"{score} of truth against truth is {value}"  # 1 for rates, 0 for distances
        if score.partition("/")[0] not in TREND and "Betti" not in score:  # as many parts, in other places
            assert not abs(wrong[score] - value) < 1e-12, f"{score} does not tell a wrong answer from a perfect one"
    assert any(np.isfinite(scores[score]) for score in metric.SCORES)


@pytest.mark.parametrize("name", METRICS)
def test_a_missing_prediction_is_worse_than_a_poor_one(name):
    metric, truth = metric_class(name)(CLASSES), segmentation(0)
    nothing = Segmentation.panoptic(np.zeros(truth.shape, int), [], classes=CLASSES)
    perfect, missed = (metric.score(counted(metric, guess, truth)) for guess in (truth, nothing))
    for score in metric.SCORES:
        if np.isfinite(perfect[score]) and score not in TREND | {"Betti-1 error"}:
            # precision of nothing is unknown; all else is the worst that there is
            assert np.isnan(missed[score]) or abs(missed[score] - perfect[score]) >= 0.5, f"{score} is {missed[score]}"
    assert any(abs(missed[score] - perfect[score]) >= 0.5 for score in metric.SCORES)


@pytest.mark.parametrize("name", METRICS)
def test_adds_up_in_any_order(name):
    metric = metric_class(name)(CLASSES)
    states = [counted(metric, segmentation(seed), segmentation(seed + 10)) for seed in range(3)]
    assert_scores_equal(metric.score(states[0] + states[1] + states[2]), metric.score(states[2] + (states[0] + states[1])))


@pytest.mark.parametrize("name", METRICS)
def test_scores_and_intervals_lie_within_the_limits(name):
    """Of random, perfect and missing answers, and of their sums; an end of an interval may be unknown instead."""
    metric, truth = metric_class(name)(CLASSES), segmentation(0)
    nothing = Segmentation.panoptic(np.zeros(truth.shape, int), [], classes=CLASSES)
    pairs = [(nothing, truth), (truth, nothing), (truth, truth), *((segmentation(n), segmentation(n + 10)) for n in range(4))]
    states = [counted(metric, *pair) for pair in pairs]
    for given in (*([state] for state in states), states, states[:2]):
        values = metric.score(reduce(add, given))
        intervals = bootstrap(metric, given, 50, np.random.default_rng(0))
        for score, value in values.items():
            lowest, highest = limits_of(metric, given, score, value)
            assert np.isnan(value) or -1 <= lowest <= value <= highest, f"{score} is {value}, beyond {lowest} to {highest}"
            low, high = intervals[score]
            assert not low < lowest and not high > highest


@pytest.mark.parametrize("name", METRICS)
def test_weighted_sums_are_those_of_repeated_images(name):
    metric = metric_class(name)(CLASSES)
    states = [counted(metric, segmentation(seed), segmentation(seed + 10)) for seed in range(3)]
    many = metric.score(type(states[0]).weighted(states, np.array([[1, 1, 1], [2, 0, 1]])))
    for row, repeated in enumerate([states, [states[0], states[0], states[2]]]):
        alone = metric.score(reduce(add, repeated))
        assert_scores_equal({score: values[row] for score, values in many.items()}, alone)


@pytest.mark.parametrize("name", METRICS)
def test_states_travel_between_processes(name):
    metric = metric_class(name)(CLASSES)
    state = counted(metric, segmentation(0), segmentation(1))
    assert_scores_equal(metric.score(pickle.loads(pickle.dumps(state))), metric.score(state))


@pytest.mark.parametrize("name", METRICS)
def test_ignores_void(name):
    """What is predicted where the truth is void changes nothing."""
    metric, truth, prediction = metric_class(name)(CLASSES), segment_map(0), segment_map(1)
    other = np.where(truth == VOID, len(CLASS_IDS) - 1 - prediction, prediction).clip(VOID, len(CLASS_IDS) - 1)
    one, two = (metric.score(counted(metric, segmentation(guess), segmentation(truth))) for guess in (prediction, other))
    assert_scores_equal(one, two)


@pytest.mark.parametrize("name", METRICS)
def test_leaves_its_input_alone(name):
    metric, prediction, truth = metric_class(name)(CLASSES), segmentation(0), segmentation(1)
    before = prediction.planes.copy(), truth.planes.copy()
    metric.score(counted(metric, prediction, truth))
    np.testing.assert_array_equal(prediction.planes, before[0])
    np.testing.assert_array_equal(truth.planes, before[1])


@pytest.mark.parametrize("name", METRICS)
def test_refuses_sizes_that_differ(name):
    with pytest.raises(ShapeError):
        counted(metric_class(name)(CLASSES), segmentation(0, (12, 12)), segmentation(0))
