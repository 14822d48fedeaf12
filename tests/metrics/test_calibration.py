import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.evaluation.bootstrap import bootstrap
from segwright.metrics.accumulators import Sums
from segwright.metrics.boundary import Boundary
from segwright.metrics.calibration import Calibration

CLASSES = Classes.of(["sky", "road", "car"])
METRIC = Calibration(CLASSES)


def example(seed, shape=(20, 24), num_classes=3, dtype=np.float32):
    """Random probabilities (K, *S), and a truth of squares, some of them void."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num_classes, *shape))
    coarse = rng.integers(VOID, num_classes, [-(-side // 4) for side in shape])
    for axis in range(len(shape)):
        coarse = coarse.repeat(4, axis=axis)
    truth = coarse[tuple(map(slice, shape))]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    return probabilities.astype(dtype), Segmentation.semantic(truth, Classes.of([f"class {k}" for k in range(num_classes)]))


def slow(probabilities, truth, is_chosen, bins=15):
    """ECE of the chosen pixels, line by line as Guo et al. define it."""
    confidence, guess, truth = probabilities.max(axis=0)[is_chosen], probabilities.argmax(axis=0)[is_chosen], truth[is_chosen]
    error = 0.0
    for first, last in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (confidence >= first) & ((confidence < last) | (last == 1))
        if inside.any():
            error += inside.mean() * abs((guess == truth)[inside].mean() - confidence[inside].mean(dtype=np.float64))
    return error


def test_by_hand():
    """Four pixels: sure and right, sure and wrong, sure in void, and half sure and right."""
    probabilities = np.array([[0.9, 0.9, 1.0, 0.25], [0.1, 0.1, 0.0, 0.5], [0.0, 0.0, 0.0, 0.25]])[:, None]
    truth = Segmentation.semantic(np.array([[0, 1, -1, 1]]), CLASSES)
    state = METRIC.count(probabilities, truth)
    scores = METRIC.score(state)
    assert scores["ECE"] == pytest.approx((2 * abs(0.9 - 0.5) + 1 * abs(0.5 - 1)) / 3)
    assert scores["ECE/sky"] == pytest.approx(0.4) and scores["ECE/road"] == pytest.approx(0.5) and np.isnan(scores["ECE/car"])
    assert scores["border ECE"] == scores["ECE"]  # all are near the border
    assert scores["Brier"] == pytest.approx((0.02 + 0.81 * 2 + 0.375) / 3)
    assert scores["NLL"] == pytest.approx(-(np.log(0.9) + np.log(0.1) + np.log(0.5)) / 3)
    diagram = METRIC.reliability(state)["all"]
    assert_array_equal(np.flatnonzero(diagram.pixels), [7, 13])
    assert diagram.accuracy[13] == 0.5 and diagram.confidence[13] == pytest.approx(0.9) and np.isnan(diagram.accuracy[0])
    assert len(diagram.edges) == 16 and METRIC.reliability(state)["car"].pixels.sum() == 0


def test_nothing_known_is_unknown_and_a_sure_truth_perfect():
    probabilities, truth = example(0)
    void = Segmentation.semantic(np.full(truth.shape, VOID), truth.classes)
    assert all(np.isnan(value) for value in METRIC.score(METRIC.count(probabilities, void)).values())
    sure = np.stack([truth.class_map() == k for k in range(3)]).astype(np.float64)
    sure[0] += truth.class_map() == VOID
    assert all(value == 0 for value in METRIC.score(METRIC.count(sure, truth)).values())
    wrong = METRIC.score(METRIC.count(np.roll(sure, 1, axis=0), truth))
    assert wrong["ECE"] == 1 and wrong["Brier"] == 2 and wrong["NLL"] == pytest.approx(-np.log(1e-12))
    alone = Calibration(Classes.of(["all"]))
    scores = alone.score(alone.count(np.ones((1, 2, 2)), Segmentation.semantic(np.zeros((2, 2), int), alone.classes)))
    assert scores["ECE"] == 0 and np.isnan(scores["border ECE"])


@pytest.mark.parametrize(("shape", "dtype"), [((20, 24), np.float32), ((60, 70), np.float64), ((5, 9, 30), np.float32)])
def test_equals_a_slow_twin(shape, dtype):
    probabilities, truth = example(1, shape, dtype=dtype)
    scores, true = METRIC.score(METRIC.count(probabilities, truth)), truth.class_map()
    is_known, is_near = true >= 0, Boundary(CLASSES).trimap(truth)
    guess = probabilities.argmax(axis=0)
    assert scores["ECE"] == pytest.approx(slow(probabilities, true, is_known))
    assert scores["border ECE"] == pytest.approx(slow(probabilities, true, is_known & is_near))
    for k, name in enumerate(CLASSES.names):
        assert scores[f"ECE/{name}"] == pytest.approx(slow(probabilities, true, is_known & (guess == k)))
    p, y = probabilities[:, is_known], np.eye(3)[true[is_known]].T
    assert scores["Brier"] == pytest.approx(((p - y) ** 2).sum(axis=0).mean())
    assert scores["NLL"] == pytest.approx(-np.log((p * y).sum(axis=0)).mean())


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_equals_torchmetrics(bins):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    probabilities, truth = example(2, (40, 50), num_classes=7)
    metric = Calibration(truth.classes, bins=bins)
    found = metric.score(metric.count(probabilities, truth))["ECE"]
    theirs = functional.multiclass_calibration_error(
        torch.from_numpy(probabilities)[None],
        torch.from_numpy(truth.class_map()).long()[None],
        num_classes=7,
        n_bins=bins,
        norm="l1",
        ignore_index=VOID,
    )
    assert found == pytest.approx(float(theirs), abs=2e-6)  # theirs is summed in float32


def test_where_torchmetrics_differs_probabilities_of_one_are_in_the_last_bin():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    torch = pytest.importorskip("torch")
    top = np.array([[1.0, 0.96]])
    probabilities, truth = np.stack([top, 1 - top, 0 * top]), Segmentation.semantic(np.array([[1, 0]]), CLASSES)
    assert METRIC.score(METRIC.count(probabilities, truth))["ECE"] == pytest.approx(abs(0.98 - 0.5))
    theirs = functional.multiclass_calibration_error(
        torch.from_numpy(probabilities)[None], torch.tensor([[[1, 0]]]), num_classes=3, n_bins=15
    )
    assert float(theirs) == pytest.approx((1 + 0.04) / 2)  # a bin for those of exactly 1


@given(st.integers(0, 100))
def test_law_sums_of_halves_are_those_of_the_whole(seed):
    """Of an image cut into two there is less border, so all but the border."""
    probabilities, truth = example(seed)
    whole = METRIC.score(METRIC.count(probabilities, truth))
    parts = [
        METRIC.count(probabilities[:, rows], Segmentation.semantic(truth.class_map()[rows], truth.classes))
        for rows in (slice(0, 9), slice(9, None))
    ]
    for name, value in METRIC.score(parts[0] + parts[1]).items():
        if name != "border ECE":
            assert value == pytest.approx(whole[name], nan_ok=True)


def test_law_what_is_predicted_in_void_does_not_count():
    probabilities, truth = example(3)
    other = np.where(truth.class_map() == VOID, np.nan, probabilities)
    assert_array_equal(METRIC.count(probabilities, truth).values, METRIC.count(other, truth).values)


def test_half_precision_and_any_order_in_memory():
    probabilities, truth = example(4)
    scores = METRIC.score(METRIC.count(probabilities, truth))
    half = METRIC.score(METRIC.count(probabilities.astype(np.float16), truth))
    assert half["ECE"] == pytest.approx(float(scores["ECE"]), abs=0.01)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(probabilities, 0, -1)), -1, 0)
    assert_allclose(METRIC.count(last, truth).values, METRIC.count(probabilities, truth).values)


def test_states_weigh_travel_and_give_intervals():
    states = [METRIC.count(*example(seed)) for seed in range(6)]
    many = METRIC.score(Sums.weighted(states, np.array([[1] * 6, [2, 0, 0, 0, 0, 1]])))
    alone = METRIC.score(states[0] + states[0] + states[5])
    for name, values in many.items():
        assert values.shape == (2,) and values[1] == pytest.approx(alone[name])
    assert_array_equal(pickle.loads(pickle.dumps(states[0])).values, states[0].values)
    for low, high in bootstrap(METRIC, states, 100, np.random.default_rng(0)).values():
        assert 0 <= low <= high


def test_refuses_what_are_no_probabilities():
    probabilities, truth = example(5)
    with pytest.raises(UsageError, match=r"the probabilities of pixel \(0, \d+\) add up to .*; give probabilities from 0 to 1"):
        METRIC.count(np.log(probabilities), truth)
    with pytest.raises(UsageError, match="add up to nan"):
        METRIC.count(np.full_like(probabilities, np.nan), truth)
    with pytest.raises(ShapeError, match=r"probabilities are float32 \(2, 20, 24\); float \(3, 20, 24\) is needed"):
        METRIC.count(probabilities[:2], truth)
    with pytest.raises(ShapeError, match="probabilities are int64"):
        METRIC.count(np.zeros((3, 20, 24), int), truth)
    with pytest.raises(ShapeError, match="predict at the size of the original image"):
        METRIC.count(probabilities[:, :10], truth)
    with pytest.raises(UsageError, match=r"the truth holds class 2 \(class 2\), the metric knows 2 classes"):
        Calibration(Classes.of(["a", "b"])).count(probabilities[:2] / probabilities[:2].sum(axis=0), truth)
    with pytest.raises(SettingError, match="0 bins were given; 1 or more are needed"):
        Calibration(CLASSES, bins=0)
    with pytest.raises(SettingError, match="trimap"):
        Calibration(CLASSES, border_pixels=0)
