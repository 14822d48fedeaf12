import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.core.errors import UsageError
from segwright.metrics.precision_recall import RECALLS, average_precision_of


def slow(scores, is_correct, objects):
    """Precision and recall after each detection, and the best precision at or beyond each recall."""
    order = sorted(range(len(scores)), key=lambda n: -scores[n])
    precision, recall, right = [], [], 0
    for seen, n in enumerate(order, 1):
        right += bool(is_correct[n])
        precision.append(right / seen)
        recall.append(right / objects)
    return np.mean([max((p for p, r in zip(precision, recall, strict=True) if r >= point), default=0) for point in RECALLS])


def test_by_hand():
    assert average_precision_of(np.array([0.9, 0.8]), np.array([False, True]), 1) == 0.5
    assert average_precision_of(np.array([0.9, 0.8]), np.array([True, False]), 2) == pytest.approx(51 / 101)
    assert average_precision_of(np.array([0.9, 0.8]), np.array([True, True]), 2) == 1
    assert average_precision_of(np.array([]), np.array([], bool), 2) == 0
    assert np.isnan(average_precision_of(np.array([0.5]), np.array([False]), 0))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40), st.integers(0, 200))
def test_equals_the_slow_twin(detections, missed):
    scores, is_correct = np.array([s for s, _ in detections], float), np.array([c for _, c in detections], bool)
    objects = max(1, int(is_correct.sum()) + missed)
    assert average_precision_of(scores, is_correct, objects) == pytest.approx(slow(scores, is_correct, objects), abs=1e-12)


@pytest.mark.parametrize("objects", [1, 7, 25, 50, 99, 100, 200, 300, 1000])
def test_recalls_are_reached_as_by_division(objects):
    """Some of the 101 recalls lie one rounding above k / 100, so that k of 100 objects do not reach them."""
    for found in range(1, objects + 1):
        expected = np.searchsorted(RECALLS, found / objects, side="right") / len(RECALLS)
        assert average_precision_of(np.arange(found), np.ones(found, bool), objects) == pytest.approx(expected, abs=1e-15)


def test_the_recalls_are_those_of_coco():
    np.testing.assert_array_equal(RECALLS, np.linspace(0, 1, 101))


def test_refuses_nan():
    with pytest.raises(UsageError, match="detection 1 is NaN"):
        average_precision_of(np.array([0.5, np.nan]), np.array([True, True]), 2)
