import numpy as np
import pytest

from segwright.core import Classes
from segwright.evaluation.bootstrap import bootstrap, rates
from segwright.metrics.confusion import Confusion, State

NAMES = ("sky", "road", "car")


def random_matrices(count, seed, num_classes=3):
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 50, (count, num_classes, num_classes + 1)) * (rng.random((count, num_classes, 1)) < 0.8)
    matrices[:, range(num_classes), range(num_classes)] *= 4
    return matrices


def sums_of(matrices):
    square = matrices[..., :-1]
    return np.stack([np.diagonal(square, axis1=1, axis2=2), matrices.sum(axis=2), square.sum(axis=1)], axis=1)


def test_by_hand():
    sums = np.array([[[3, 0], [4, 1], [4, 1]]])  # correct, true, predicted pixels of two classes
    scores = {name: float(value[0]) for name, value in rates(sums, ("a", "b")).items()}
    assert scores["IoU/a"] == 3 / 5 and scores["IoU/b"] == 0 and scores["mIoU"] == 0.3
    assert scores["Dice/a"] == 6 / 8 and scores["pixel accuracy"] == 3 / 5 and scores["mean accuracy"] == 3 / 8


def test_images_that_are_all_alike_leave_no_doubt():
    sums = np.repeat(sums_of(random_matrices(1, seed=3)), 8, axis=0)
    for name, (low, high) in bootstrap(sums, NAMES, 50, np.random.default_rng(0)).items():
        assert low == high == pytest.approx(rates(sums[:1], NAMES)[name][0], nan_ok=True)


def test_one_image_no_resamples_and_an_absent_class_give_nan():
    sums = sums_of(random_matrices(5, seed=1))
    assert all(np.isnan(pair).all() for pair in bootstrap(sums[:1], NAMES, 100, np.random.default_rng(0)).values())
    assert all(np.isnan(pair).all() for pair in bootstrap(sums, NAMES, 0, np.random.default_rng(0)).values())
    sums[..., 2] = 0
    found = bootstrap(sums, NAMES, 100, np.random.default_rng(0))
    assert np.isnan(found["IoU/car"]).all() and np.isfinite(found["mIoU"]).all()


@pytest.mark.parametrize("seed", range(5))
def test_rates_equal_the_metric(seed):
    matrix = random_matrices(1, seed)[0]
    if seed == 4:
        matrix[2], matrix[:, 2] = 0, 0
    expected = Confusion(Classes.of(NAMES)).score(State(matrix))
    assert {name: float(value[0]) for name, value in rates(sums_of(matrix[None]), NAMES).items()} == pytest.approx(
        expected, nan_ok=True
    )


def test_equals_a_slow_twin():
    matrices = random_matrices(100, seed=7)
    sums = sums_of(matrices)
    found = bootstrap(sums, NAMES, 400, np.random.default_rng(5))
    rng, metric, draws = np.random.default_rng(5), Confusion(Classes.of(NAMES)), []
    for _ in range(400):
        times = rng.multinomial(100, np.full(100, 0.01))
        draws.append(metric.score(State(sum(t * matrix for t, matrix in zip(times, matrices, strict=True)))))
    for name, (low, high) in found.items():
        values = [draw[name] for draw in draws]
        assert (low, high) == pytest.approx(np.quantile(values, (0.0232, 0.9768)), abs=2e-4)  # a little outside 2.5 % .. 97.5 %


@pytest.mark.parametrize("count", [8, 40])
def test_law_of_coverage(count):
    """Of many experiments with a known answer, about 95 % have it inside the interval, with few images too."""
    rng, hits, trials = np.random.default_rng(0), 0, 200
    for _ in range(trials):
        quality = rng.beta(8, 2, count)  # share of right pixels in each image; 0.8 on average
        correct = rng.binomial(1000, quality)
        sums = np.zeros((count, 3, 2), np.int64)
        sums[:, 0, 0], sums[:, 1, 0], sums[:, 2, 0], sums[:, 2, 1] = correct, 1000, correct, 1000 - correct
        low, high = bootstrap(sums, ("a", "b"), 200, rng)["pixel accuracy"]
        hits += low <= 0.8 <= high
    assert 0.89 <= hits / trials <= 0.99  # 200 trials leave an error of 0.02


def test_law_more_images_narrow_the_interval():
    few, many = (sums_of(random_matrices(count, seed=2)) for count in (10, 1000))
    widths = [np.diff(bootstrap(sums, NAMES, 200, np.random.default_rng(0))["mIoU"])[0] for sums in (few, many)]
    assert widths[1] < widths[0] / 4
