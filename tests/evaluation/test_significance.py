from dataclasses import dataclass
from itertools import product
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segwright.core import Classes
from segwright.core.errors import UnknownNameError, UsageError
from segwright.evaluation.significance import CONVENTION, differences, holm
from segwright.metrics.accumulators import Sums, ratio
from segwright.metrics.confusion import Confusion, class_sums

CONFUSION = Confusion(Classes.of(["sky", "road", "car"]))


@dataclass(frozen=True)
class Average:
    """The mean of one value per image, from `Sums` (2,) of value and 1, and its square."""

    SCORES = ("average", "square")
    convention = "The mean over images."

    def count(self, prediction, truth):
        raise NotImplementedError

    def score(self, state):
        average = ratio(state.values[..., 0], state.values[..., 1])
        return {"average": average, "square": average**2, "sign/plus": (average > 0).astype(float)}

    def limits(self, states):
        return dict.fromkeys(("average", "square"), (-inf, inf))


class Shares(Average):
    """The same of values from 0 to 1, whose scores have the limits of shares."""

    def limits(self, states):
        return {}


def averaged(values):
    return [Sums(np.array([value, 1.0])) for value in values]


def states_of(matrices):
    return [class_sums(matrix) for matrix in matrices]


def two_predictions(count, seed, gain=0.0):
    """Confusion matrices of two predictions whose errors come from the same hard images; the second is right more often."""
    rng = np.random.default_rng(seed)
    right = 1 / (1 + np.exp(-(1.5 + rng.normal(0, 1, (count, 1)) + rng.normal(0, 0.4, (2, count, 3)))))
    right[1] += gain * (1 - right[1])
    area = rng.lognormal(5, 1, (count, 3)) * (rng.random((count, 3)) < [1, 0.9, 0.4])
    matrices = np.zeros((2, count, 3, 4))
    for k in range(3):
        matrices[..., k, k], matrices[..., k, (k + 1) % 3] = area[:, k] * right[..., k], area[:, k] * (1 - right[..., k])
    return [states_of(each.round().astype(np.int64)) for each in matrices]


def test_by_hand():
    """Of 2**3 swaps of three images, the true one and its mirror image differ most: p tends to 2 / 8."""
    found = differences(
        Average(), averaged([1, 2, 6]), averaged([2, 4, 12]), 4000, np.random.default_rng(0), scores=["average"]
    )
    (row,) = found
    assert (row.score, row.first, row.second, row.difference) == ("average", 3, 6, 3)
    assert row.p == row.p_holm == pytest.approx(0.25, abs=0.02)
    error = np.sqrt(7 / 3)  # of the mean of the differences 1, 2, 6, whose variance is 7
    assert row.interval == pytest.approx((3 - 4.303 * error, 3 + 4.303 * error), rel=0.03)


def test_equal_predictions_do_not_differ():
    states = two_predictions(12, seed=0)[0]
    for row in differences(CONFUSION, states, states, 60, np.random.default_rng(0)):
        assert row.difference == 0 and row.interval == (0, 0) and row.p == row.p_holm == 1


def test_swaps_equal_a_slow_twin():
    first, second = two_predictions(9, seed=4, gain=0.4)
    swapped = []
    for swaps in product([0, 1], repeat=9):
        one = [(pair[swap], pair[1 - swap]) for swap, pair in zip(swaps, zip(first, second, strict=True), strict=True)]
        totals = [CONFUSION.score(sum(side[1:], side[0]))["mIoU"] for side in zip(*one, strict=True)]
        swapped.append(totals[1] - totals[0])
    exact = np.mean(np.abs(swapped) >= abs(swapped[0]) - 1e-12)
    (row,) = differences(CONFUSION, first, second, 4000, np.random.default_rng(0), scores=["mIoU"])
    assert row.difference == pytest.approx(swapped[0]) and row.p == pytest.approx(exact, abs=0.02)


def test_the_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(1)
    first, gain = rng.normal(0, 9, 40), rng.normal(0.5, 1, 40)
    (row,) = differences(Average(), averaged(first), averaged(first + gain), 5000, rng, scores=["average"])
    theirs = stats.ttest_rel(first + gain, first)
    assert row.interval == pytest.approx(theirs.confidence_interval(), abs=0.03)
    assert row.p == pytest.approx(theirs.pvalue, abs=0.02)


def test_images_of_a_group_are_swapped_together():
    rng = np.random.default_rng(1)
    first, gain = rng.normal(0, 9, 6), rng.normal(0.5, 0.5, 6)
    alone = differences(Average(), averaged(first), averaged(first + gain), 3000, rng, scores=["average"])[0]
    many = averaged(first.repeat(10)), averaged((first + gain).repeat(10))
    grouped = differences(Average(), *many, 3000, rng, scores=["average"], groups=np.arange(60) // 10)[0]
    assert grouped.p == pytest.approx(alone.p, abs=0.03) and grouped.interval == pytest.approx(alone.interval, abs=0.05)
    assert differences(Average(), *many, 3000, rng, scores=["average"])[0].p < 0.3 * alone.p


@given(st.integers(0, 1000))
def test_law_exchanging_the_two_turns_the_sign(seed):
    first, second = two_predictions(7, seed)
    one = differences(CONFUSION, first, second, 50, np.random.default_rng(seed))
    other = differences(CONFUSION, second, first, 50, np.random.default_rng(seed))
    for row, turned in zip(one, other, strict=True):
        assert turned.difference == pytest.approx(-row.difference, nan_ok=True) and turned.p == pytest.approx(
            row.p, nan_ok=True
        )
        assert turned.interval == pytest.approx((-row.interval[1], -row.interval[0]), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(("gain", "low", "high"), [(0.0, 0.01, 0.09), (0.35, 0.8, 1.0)])
def test_law_chance_is_called_a_difference_one_time_in_twenty_and_a_gain_mostly(gain, low, high):
    """Also of the intervals: where nothing is gained, one in twenty leaves out zero."""
    trials, found, outside = 150, 0, 0
    for seed in range(trials):
        first, second = two_predictions(30, seed, gain)
        (row,) = differences(CONFUSION, first, second, 150, np.random.default_rng(seed), scores=["mIoU"])
        found += row.p <= 0.05
        outside += not row.interval[0] <= 0 <= row.interval[1]
    assert low <= found / trials <= high and low <= outside / trials <= high  # 150 trials leave an error of 0.018 at 0.05


def test_holm_by_hand():
    assert holm([0.01, 0.04, float("nan"), 0.03]) == pytest.approx([0.03, 0.06, np.nan, 0.06], nan_ok=True)
    assert holm([0.5, 0.6]) == [1, 1] and holm([]) == []


def test_unknown_scores_stay_unknown_and_rows_come_in_order():
    first, second = two_predictions(6, seed=0)
    for states in (first, second):
        for state in states:
            state.values[:, 2] = 0  # no cars
    rows = differences(CONFUSION, first, second, 40, np.random.default_rng(0), scores=["IoU/car", "mIoU"])
    assert [row.score for row in rows] == ["IoU/car", "mIoU"]
    assert np.isnan([rows[0].difference, *rows[0].interval, rows[0].p, rows[0].p_holm]).all()
    assert rows[1].p_holm == rows[1].p
    assert [row.score for row in differences(Average(), averaged([1, 2]), averaged([2, 1]), 9, np.random.default_rng(0))] == [
        "average",
        "square",
    ]
    (alone,) = differences(Average(), averaged([1]), averaged([2]), 9, np.random.default_rng(0), scores=["average"])
    assert alone.p == 1 and np.isnan(alone.interval).all()


def test_refuses_what_cannot_be_compared():
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="2 and 1 states were given; give those of both predictions on the same images"):
        differences(Average(), averaged([1, 2]), averaged([1]), 10, rng)
    with pytest.raises(UsageError, match="0 resamples were asked for; a comparison needs some"):
        differences(Average(), averaged([1, 2]), averaged([1, 2]), 0, rng)
    with pytest.raises(UnknownNameError, match="Average has no score 'mean'; it has average, square"):
        differences(Average(), averaged([1, 2]), averaged([1, 2]), 10, rng, scores=["mean"])
    with pytest.raises(UsageError, match="1 group labels were given for 2 images"):
        differences(Average(), averaged([1, 2]), averaged([1, 2]), 10, rng, groups=[0])
    assert "Holm" in CONVENTION


def test_of_few_images_a_difference_lies_within_what_two_scores_can_differ_by():
    """Two images, of which one is much better: the second may be worse too, but no share gains more than 1."""
    first, second = averaged([0.1, 0.4]), averaged([0.9, 0.5])
    row = next(row for row in differences(Shares(), first, second, 100, np.random.default_rng(0)) if row.score == "average")
    assert row.difference == pytest.approx(0.45) and row.interval == (-1, 1)
    rows = differences(Shares(), averaged([0.1, 0.4, 0.2]), averaged([0.9, 0.9, 0.4]), 100, np.random.default_rng(0))
    (low, high), (lowest, highest) = rows[0].interval, (-1, 1)
    assert not low < lowest and not high > highest and np.isnan(high) != np.isnan(low)
