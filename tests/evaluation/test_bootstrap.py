from dataclasses import dataclass
from math import exp, inf, log, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from segwright.core import Classes
from segwright.core.errors import UsageError
from segwright.evaluation.bootstrap import all_and_without, bootstrap, group_labels, halves
from segwright.metrics.accumulators import Sums, ratio
from segwright.metrics.confusion import Confusion, class_sums

METRIC = Confusion(Classes.of(["sky", "road", "car"]))


@dataclass(frozen=True)
class Average:
    """The mean of one value per image, from `Sums` (2,) of value and 1."""

    lowest: float = -inf
    highest: float = inf
    SCORES = ("average",)
    convention = "The mean over images."

    def count(self, prediction, truth):
        raise NotImplementedError

    def limits(self, states):
        return {"average": (self.lowest, self.highest)}

    def score(self, state):
        return {"average": ratio(state.values[..., 0], state.values[..., 1])}


def averaged(values):
    return [Sums(np.array([value, 1.0])) for value in values]


def random_matrices(count, seed, num_classes=3):
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 50, (count, num_classes, num_classes + 1)) * (rng.random((count, num_classes, 1)) < 0.8)
    matrices[:, range(num_classes), range(num_classes)] *= 4
    return matrices


def states_of(matrices):
    return [class_sums(matrix) for matrix in matrices]


@pytest.mark.parametrize(
    ("values", "limits", "low", "high"),
    [  # of two images, a half is one of them: the distance of each from their mean is the standard error, t is 12.706
        ([-1, 1], (-inf, inf), -12.706, 12.706),
        ([9, 11], (0, inf), 10 * exp(-1.2706), 10 * exp(1.2706)),
        ([9, 11], (8, inf), 8 + 2 * exp(-6.3531), 8 + 2 * exp(6.3531)),
        ([0, 1], (0, inf), nan, 0.5 * exp(12.7062)),
        ([9, 11], (0, 100), 100 / (1 + 9 * exp(1.2706 / 0.9)), 100 / (1 + 9 * exp(-1.2706 / 0.9))),
        ([0.4, 0.6], (0, 1), 1 / (1 + exp(12.706 * 0.1 / 0.25)), 1 / (1 + exp(-12.706 * 0.1 / 0.25))),
        ([0.2, 1.0], (0, 1), 0, 1),  # the standard error is 0.4: anything from 0 to 1
        ([0.97, 0.99], (0, 1), 1 / (1 + exp(12.706 * 0.01 / 0.0196) / 49), nan),
        ([0.01, 0.03], (0, 1), nan, 1 / (1 + 49 * exp(-12.706 * 0.01 / 0.0196))),
        (
            [-0.6, -0.4],
            (-1, 1),
            -1 + 2 / (1 + 3 * exp(12.706 * 0.1 * 2 / 0.75)),
            -1 + 2 / (1 + 3 * exp(-12.706 * 0.1 * 2 / 0.75)),
        ),
        ([0, 0], (0, 1), 0, 0),
        ([1, 1], (0, 1), 1, 1),
    ],
)
def test_by_hand(values, limits, low, high):
    found = bootstrap(Average(*limits), averaged(values), 50, np.random.default_rng(0))["average"]
    assert found == pytest.approx((low, high), rel=1e-4, nan_ok=True)


def test_a_metric_of_ones_own_need_not_tell_its_limits():
    """Then it is as if it had those of a share, unless the score lies beyond."""
    metric = type("Silent", (), {"score": Average().score})()
    for values, expected in (([0.4, 0.6], Average(0, 1)), ([9, 11], Average())):
        found, known = (bootstrap(one, averaged(values), 50, np.random.default_rng(0)) for one in (metric, expected))
        assert found == known


def test_halves_and_those_left_out(monkeypatch):
    monkeypatch.setattr("segwright.evaluation.bootstrap.CELLS", 1500)
    tables = list(halves(7, 450, np.random.default_rng(0)))
    assert [len(table) for table in tables] == [214, 214, 22]
    weights = np.concatenate(tables)
    assert_array_equal(weights.sum(axis=1), 3)
    assert set(np.unique(weights)) == {0, 1} and weights.mean(axis=0) == pytest.approx(np.full(7, 3 / 7), abs=0.1)
    assert_array_equal(all_and_without(3), [[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]])
    many = all_and_without(120)
    assert many.shape == (21, 120) and set(np.unique((1 - many).sum(axis=1))) == {0, 6}
    assert_array_equal((1 - many).sum(axis=0), 1)


def test_of_many_alike_values_it_is_the_interval_of_a_mean():
    values = np.random.default_rng(3).normal(0, 5, 40)
    low, high = bootstrap(Average(), averaged(values), 20_000, np.random.default_rng(0))["average"]
    error = values.std(ddof=1) / 40**0.5
    assert (low, high) == pytest.approx((values.mean() - 2.0227 * error, values.mean() + 2.0227 * error), abs=0.02 * error)


def test_images_that_are_all_alike_leave_no_doubt():
    states = states_of(random_matrices(1, seed=3)) * 8
    whole = METRIC.score(states[0])
    for name, (low, high) in bootstrap(METRIC, states, 50, np.random.default_rng(0)).items():
        assert low == high == pytest.approx(float(whole[name]), nan_ok=True)


def test_one_image_no_resamples_and_an_absent_class_give_nan():
    matrices = random_matrices(5, seed=1)
    for states, resamples in ((states_of(matrices[:1]), 100), (states_of(matrices), 0)):
        assert all(np.isnan(pair).all() for pair in bootstrap(METRIC, states, resamples, np.random.default_rng(0)).values())
    matrices[:, 2] = matrices[:, :, 2] = 0
    found = bootstrap(METRIC, states_of(matrices), 100, np.random.default_rng(0))
    assert np.isnan(found["IoU/car"]).all() and np.isfinite(found["mIoU"]).all()


def test_a_class_in_one_image_is_unknown_and_in_two_nearly_so():
    matrices = random_matrices(30, seed=2)
    matrices[1:, 2] = matrices[1:, :, 2] = 0
    matrices[0, 2] = [5, 5, 40, 0]
    found = bootstrap(METRIC, states_of(matrices), 200, np.random.default_rng(0))
    assert np.isnan(found["IoU/car"]).all()
    matrices[1, 2] = [20, 20, 10, 0]
    low, high = bootstrap(METRIC, states_of(matrices), 200, np.random.default_rng(0))["IoU/car"]
    assert not low > 0.02 and not high < 0.98


def test_equals_a_slow_twin():
    matrices = random_matrices(100, seed=7)
    found = bootstrap(METRIC, states_of(matrices), 400, np.random.default_rng(5))
    rng, draws = np.random.default_rng(9), []
    for _ in range(1000):
        draws.append(METRIC.score(class_sums(matrices[rng.permutation(100)[:50]].sum(axis=0))))
    for name, value in METRIC.score(class_sums(matrices.sum(axis=0))).items():
        error = np.mean([(draw[name] - value) ** 2 for draw in draws]) ** 0.5
        middle, reach = log(value / (1 - value)), 1.984 * error / (value * (1 - value))  # 1.984: t with 99 degrees
        assert found[name] == pytest.approx([1 / (1 + exp(-middle - side * reach)) for side in (-1, 1)], abs=0.3 * error)


@given(st.integers(2, 30), st.integers(0, 1000), st.booleans())
def test_law_intervals_hold_the_score_and_stay_within_its_limits(count, seed, are_grouped):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 4, count) if are_grouped else None
    states = states_of(random_matrices(count, seed))
    whole = METRIC.score(sum(states[1:], states[0]))
    for name, (low, high) in bootstrap(METRIC, states, 50, rng, groups=groups).items():
        assert np.isnan(low) or (-1 if "kappa" in name else 0) <= low <= whole[name] + 1e-12
        assert np.isnan(high) or whole[name] - 1e-12 <= high <= 1


def test_law_many_images_of_few_groups_tell_no_more_than_the_groups():
    values = np.random.default_rng(3).random(10)
    once = bootstrap(Average(), averaged(values), 300, np.random.default_rng(0))
    groups = [f"person {n // 6}" for n in range(60)]
    again = bootstrap(Average(), averaged(values.repeat(6)), 300, np.random.default_rng(0), groups=groups)
    assert again["average"] == pytest.approx(once["average"])
    alone = bootstrap(Average(), averaged(values.repeat(6)), 300, np.random.default_rng(0))
    assert np.ptp(alone["average"]) < 0.5 * np.ptp(once["average"])


def test_group_labels_join_what_touches():
    keys = ["a", "b", "c", "d", "e", "f"]
    labels = group_labels(keys, [["a", "b"], ["d", "e", "elsewhere"], ["e", "b"]])
    assert labels[0] == labels[1] == labels[3] == labels[4] and len(set(labels)) == 3
    assert len(set(group_labels(keys, []))) == 6


def test_refuses_labels_that_do_not_fit():
    with pytest.raises(UsageError, match="2 group labels were given for 3 images; give one label per image"):
        bootstrap(METRIC, states_of(random_matrices(3, 0)), 10, np.random.default_rng(0), groups=[1, 2])


@pytest.mark.parametrize("count", [8, 40])
def test_law_of_coverage(count):
    """Of many experiments with a known answer, about 95 % have it inside the interval, with few images too."""
    rng, hits, trials, metric = np.random.default_rng(0), 0, 200, Confusion(Classes.of(["a", "b"]))
    for _ in range(trials):
        quality = rng.beta(8, 2, count)  # share of right pixels in each image; 0.8 on average
        right = rng.binomial(1000, quality)
        states = states_of(np.array([[[correct, 1000 - correct, 0], [0, 0, 0]] for correct in right]))
        low, high = bootstrap(metric, states, 200, rng)["pixel accuracy"]
        hits += not (low > 0.8 or high < 0.8)
    assert 0.91 <= hits / trials <= 0.99  # 200 trials leave an error of 0.016
