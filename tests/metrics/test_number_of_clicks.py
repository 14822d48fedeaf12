import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from segwright.core.errors import UsageError
from segwright.evaluation.bootstrap import bootstrap
from segwright.metrics.accumulators import Sums
from segwright.metrics.number_of_clicks import NumberOfClicks

METRIC = NumberOfClicks()
CURVES = st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=25), min_size=1, max_size=6)


def summed(curves):
    first, *others = [METRIC.count(curve) for curve in curves]
    return sum(others, first)


def test_by_hand():
    scores = METRIC.score(summed([[0.5, 0.86, 0.95], [0.85], [0.2, 0.3, 0.8]]))
    assert scores["NoC@85"] == pytest.approx((2 + 1 + 20) / 3) and scores["failures@85"] == pytest.approx(1 / 3)
    assert scores["NoC@90"] == pytest.approx((3 + 20 + 20) / 3) and scores["failures@90"] == pytest.approx(2 / 3)
    assert scores["IoU@1"] == pytest.approx((0.5 + 0.85 + 0.2) / 3)
    assert scores["IoU@3"] == scores["IoU@20"] == pytest.approx((0.95 + 0.85 + 0.8) / 3)
    assert set(scores) == set(METRIC.SCORES)
    assert_allclose(METRIC.curve(METRIC.count([0.1, 0.4])), [0.1] + [0.4] * 19)


def test_the_twentieth_click_is_no_failure_and_the_next_too_late():
    for clicks, failures in ((20, 0), (21, 1)):
        scores = METRIC.score(METRIC.count([0.1] * (clicks - 1) + [1.0]))
        assert scores["NoC@90"] == 20 and scores["failures@90"] == failures


@given(CURVES)
def test_equals_a_slow_twin(curves):
    scores = METRIC.score(summed(curves))
    for target in (85, 90):
        clicks = []
        for curve in curves:
            reached = [click for click, iou in enumerate(curve[:20], start=1) if iou >= target / 100]
            clicks.append(reached[0] if reached else 20)
        assert scores[f"NoC@{target}"] == pytest.approx(np.mean(clicks))
    for click in (1, 3, 5, 10, 20):
        assert scores[f"IoU@{click}"] == pytest.approx(np.mean([curve[min(click, len(curve)) - 1] for curve in curves]))


@given(CURVES)
def test_law_a_better_curve_takes_no_more_clicks(curves):
    one, other = METRIC.score(summed(curves)), METRIC.score(summed([[min(1, iou + 0.1) for iou in curve] for curve in curves]))
    assert other["NoC@90"] <= one["NoC@90"] and other["failures@85"] <= one["failures@85"] and other["IoU@5"] >= one["IoU@5"]


def test_states_weigh_travel_and_give_intervals():
    rng = np.random.default_rng(0)
    states = [METRIC.count(np.sort(rng.random(20))) for _ in range(12)]
    many = METRIC.score(Sums.weighted(states, np.array([[1] * 12, [2, 0] * 6])))
    alone = METRIC.score(Sums.weighted(states[::2], np.full((1, 6), 2)))
    for name, values in many.items():
        assert values.shape == (2,) and values[1] == pytest.approx(alone[name][0])
    assert_array_equal(pickle.loads(pickle.dumps(states[0])).values, states[0].values)
    low, high = bootstrap(METRIC, states, 100, rng)["NoC@85"]
    assert 1 <= low < many["NoC@85"][0] < high


def test_refuses_what_is_no_curve():
    with pytest.raises(UsageError, match=r"IoUs of shape \(0,\) were given; one number per click of one object is needed"):
        METRIC.count([])
    with pytest.raises(UsageError, match="the IoU after click 2 is nan; a number from 0 to 1 is needed"):
        METRIC.count([0.5, float("nan")])
    with pytest.raises(UsageError, match=r"the IoU after click 1 is 1\.5"):
        METRIC.count([1.5])
