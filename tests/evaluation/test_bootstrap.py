import numpy as np
import pytest

from segwright.core import Classes
from segwright.evaluation.bootstrap import bootstrap
from segwright.metrics.confusion import Confusion, class_sums

METRIC = Confusion(Classes.of(["sky", "road", "car"]))


def random_matrices(count, seed, num_classes=3):
    rng = np.random.default_rng(seed)
    matrices = rng.integers(0, 50, (count, num_classes, num_classes + 1)) * (rng.random((count, num_classes, 1)) < 0.8)
    matrices[:, range(num_classes), range(num_classes)] *= 4
    return matrices


def states_of(matrices):
    return [class_sums(matrix) for matrix in matrices]


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


def test_equals_a_slow_twin():
    matrices = random_matrices(100, seed=7)
    found = bootstrap(METRIC, states_of(matrices), 400, np.random.default_rng(5))
    rng, draws = np.random.default_rng(5), []
    for _ in range(400):
        times = rng.multinomial(100, np.full(100, 0.01))
        draws.append(METRIC.score(class_sums(sum(t * matrix for t, matrix in zip(times, matrices, strict=True)))))
    for name, (low, high) in found.items():
        values = [draw[name] for draw in draws]
        assert (low, high) == pytest.approx(np.quantile(values, (0.0232, 0.9768)), abs=2e-4)  # a little outside 2.5 % .. 97.5 %


@pytest.mark.parametrize("count", [8, 40])
def test_law_of_coverage(count):
    """Of many experiments with a known answer, about 95 % have it inside the interval, with few images too."""
    rng, hits, trials, metric = np.random.default_rng(0), 0, 200, Confusion(Classes.of(["a", "b"]))
    for _ in range(trials):
        quality = rng.beta(8, 2, count)  # share of right pixels in each image; 0.8 on average
        right = rng.binomial(1000, quality)
        states = [class_sums(np.array([[correct, 1000 - correct, 0], [0, 0, 0]])) for correct in right]
        low, high = bootstrap(metric, states, 200, rng)["pixel accuracy"]
        hits += low <= 0.8 <= high
    assert 0.89 <= hits / trials <= 0.99  # 200 trials leave an error of 0.02
