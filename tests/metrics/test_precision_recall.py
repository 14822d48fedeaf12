import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.core.errors import UsageError
from segwright.metrics.matching import ImageMatches, Matches
from segwright.metrics.precision_recall import RECALLS, average_precision_of, curves


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


def test_one_sum_is_as_in_a_block_of_several():
    generator, images = np.random.default_rng(0), []
    for detections in (0, 30, 1, 50):
        correct = generator.integers(0, 8, (4, detections)).astype(np.uint64)
        counted = np.where(generator.random((4, detections)) < 0.7, correct | 4, 0).astype(np.uint64)
        classes, true = np.sort(generator.integers(0, 3, detections)), generator.integers(0, 4, 40)
        ranks = np.arange(detections) - np.searchsorted(classes, classes)
        scores, ranges = generator.integers(0, 9, detections) / 8, generator.integers(0, 16, 40).astype(np.uint8)
        images.append(ImageMatches(classes, scores, ranks, correct & counted, counted, true, ranges))
    (one,) = curves(Matches(tuple(images)), 5, 3, (1, 10))
    (two,) = curves(Matches(tuple(images), np.ones((2, 4), np.int64)), 5, 3, (1, 10))
    assert np.isnan(one.precision[4]).all() and one.precision[:3].min() > 0
    np.testing.assert_array_equal(np.repeat(one.precision, 2, axis=-1), two.precision)
    np.testing.assert_array_equal(np.repeat(one.recall, 2, axis=-1), two.recall)


def test_the_recalls_are_those_of_coco():
    np.testing.assert_array_equal(RECALLS, np.linspace(0, 1, 101))


def test_refuses_nan():
    with pytest.raises(UsageError, match="detection 1 is NaN"):
        average_precision_of(np.array([0.5, np.nan]), np.array([True, True]), 2)
