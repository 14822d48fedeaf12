import json
from functools import reduce
from itertools import permutations
from operator import add
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core import Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.metrics.accumulators import Sums
from segwright.metrics.instance_accuracy import InstanceAccuracy, one_to_one

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics_instance_accuracy.json"  # says which commit of StarDist made it
CLASSES = Classes.of(["plasma", "nucleus", "cell"], is_thing=[False, True, True])


def objects(rows, class_id=1):
    """A segmentation from a row of labels: each label above 0 is an object of one class, -1 is void."""
    rows = np.array(rows)
    count = max(rows.max(), 0)
    return Segmentation.panoptic(rows, [class_id] * count, np.arange(1, count + 1), classes=CLASSES)


def scores(prediction, truth, **settings):
    metric = InstanceAccuracy(CLASSES, **settings)
    return metric.score(metric.count(prediction, truth))


# By hand


def test_by_hand():
    truth = objects([[1, 1, 1, 1, 2, 2, 2, 2, 0, 3]])
    guess = objects([[1, 1, 1, 1, 2, 2, 2, 0, 3, 0]])  # IoU 1 and 0.75, one false, one missed
    found = scores(guess, truth)
    assert found["accuracy@0.5"] == found["accuracy@0.75"] == 2 / 4
    assert found["accuracy@0.8"] == 1 / 5
    assert found["object accuracy"] == pytest.approx((6 * 2 / 4 + 4 * 1 / 5) / 10)
    assert found["object accuracy per image"] == found["object accuracy"] == found["object accuracy/nucleus"]
    assert found["object precision@0.5"] == found["object recall@0.5"] == found["object F1@0.5"] == 2 / 3
    assert found["mean matched IoU@0.5"] == 1.75 / 2
    assert found["mean true IoU@0.5"] == 1.75 / 3
    assert np.isnan(found["object accuracy/plasma"]) and np.isnan(found["accuracy@0.5/cell"])


def test_an_iou_equal_to_the_threshold_is_enough_and_matches_one():
    found = scores(objects([[1, 1, 2, 2]]), objects([[1, 1, 1, 1]]))
    assert found["accuracy@0.5"] == 1 / 2
    assert found["mean matched IoU@0.5"] == 0.5


def test_another_class_is_no_match():
    found = scores(objects([[1, 1]], class_id=2), objects([[1, 1]]))
    assert found["accuracy@0.5/nucleus"] == found["accuracy@0.5/cell"] == found["accuracy@0.5"] == 0


def test_a_missing_prediction_misses_everything():
    found = scores(objects([[0, 0, 0]]), objects([[1, 2, 0]]))
    assert found["object accuracy"] == found["object recall@0.5"] == found["mean true IoU@0.5"] == 0
    assert np.isnan(found["object precision@0.5"]) and np.isnan(found["mean matched IoU@0.5"])


def test_images_are_pooled_and_also_averaged():
    metric = InstanceAccuracy(CLASSES)
    good = metric.count(objects([[1]]), objects([[1]]))
    bad = metric.count(objects([[0, 0, 0]]), objects([[1, 2, 3]]))
    empty = metric.count(objects([[0]]), objects([[0]]))
    found = metric.score(good + bad + empty)
    assert found["object accuracy"] == 1 / 4
    assert found["object accuracy per image"] == 1 / 2  # an image without objects has no accuracy
    assert all(np.isnan(value) for value in metric.score(empty).values())


def test_void_and_crowds_excuse():
    truth = Segmentation.panoptic(np.array([[1, 2, 2, -1, -1, 0]]), [1, 1], [1, 0], classes=CLASSES)
    assert scores(objects([[1, 2, 3, 4, 4, 0]]), truth)["accuracy@0.5"] == 1
    assert scores(objects([[1, 0, 2, 0, 0, 2]]), truth)["accuracy@0.5"] == 1 / 2  # one half in the crowd: false
    assert scores(objects([[1, 0, 0, 1, 1, 0]]), truth)["mean matched IoU@0.5"] == 1
    cell = Segmentation.panoptic(np.array([[0, 1, 1, 0, 0, 0]]), [2], [1], classes=CLASSES)
    assert scores(cell, truth)["accuracy@0.5/cell"] == 0


def test_stuff_is_not_counted():
    stuff = Segmentation.panoptic(np.array([[1, 1]]), [0], [0], classes=CLASSES)
    assert all(np.isnan(value) for value in scores(stuff, stuff).values())


def test_below_one_half_the_most_pairs_are_matched():
    truth = objects([[1, 1, 1, 1, 1, 2, 2, 2, 2, 2]])
    guess = objects([[0, 0, 0, 1, 1, 1, 1, 2, 2, 2]])  # IoU 2/7, 2/7; 0, 3/5
    assert scores(guess, truth, thresholds=(0.25,))["object accuracy"] == 1
    assert scores(guess, truth, thresholds=(0.5,))["object accuracy"] == 1 / 3


def test_overlapping_objects_are_compared():
    masks = np.zeros((2, 1, 6), bool)
    masks[0, 0, :4], masks[1, 0, 2:] = True, True
    both = Segmentation.instances(masks, [1, 1], classes=CLASSES)
    assert scores(both, both)["object accuracy"] == 1
    assert scores(objects([[1, 1, 1, 1, 0, 0]]), both)["accuracy@0.5"] == 1 / 2


# Equal to StarDist's matching_dataset


def test_equals_stardist():
    golden = json.loads(GOLDEN.read_text())
    metric = InstanceAccuracy(CLASSES, thresholds=tuple(golden["thresholds"]))
    states = [metric.count(objects(each["prediction"]), objects(each["truth"])) for each in golden["images"]]
    total = reduce(add, states)
    found, table = metric.score(total), total.values[1, :-3].reshape(3, -1)
    for threshold, expected in zip(golden["thresholds"], golden["pooled"], strict=True):
        assert table[:, metric.counted.index(threshold)].tolist() == [expected[each] for each in ("tp", "fp", "fn")]
        assert found[f"accuracy@{threshold:g}"] == pytest.approx(expected["accuracy"], abs=1e-12)
    assert found["object accuracy per image"] == pytest.approx(np.mean([each["accuracy"] for each in golden["by_image"]]))
    expected = golden["pooled"][golden["thresholds"].index(0.5)]
    for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("F1", "f1")):
        assert found[f"object {ours}@0.5"] == pytest.approx(expected[theirs], abs=1e-12)
    for name in ("matched", "true"):  # which it adds up in float32
        assert found[f"mean {name} IoU@0.5"] == pytest.approx(expected[f"mean_{name}_score"], rel=1e-6)


# By a slow twin


def best_by_trial(iou, threshold):
    """Most matches, and of those the most IoU, over all ways to pair objects (P, G)."""
    small, large = sorted(iou.shape)
    table = iou if iou.shape[0] == small else iou.T
    results = []
    for order in permutations(range(large), small):
        found = [table[row, column] for row, column in enumerate(order) if table[row, column] >= threshold]
        results.append((len(found), sum(found)))
    return max(results)


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_assignment_is_the_best(rows, columns, seed):
    iou = np.random.default_rng(seed).integers(1, 6, (rows, columns)) / 5
    predicted, true = np.nonzero(iou >= 0.4)
    chosen = one_to_one(predicted, true, iou[predicted, true])
    assert len(set(predicted[chosen])) == len(set(true[chosen])) == len(chosen)
    count, total = best_by_trial(iou, 0.4)
    assert len(chosen) == count
    assert iou[predicted, true][chosen].sum() == pytest.approx(total)


def slow_twin(prediction, truth, threshold):
    """Matches, false positives, misses, and the IoU of matches, of one class without void or crowds."""
    predicted, true = prediction.masks(), truth.masks()
    iou = np.array([[(p & t).sum() / (p | t).sum() for t in true] for p in predicted])
    count, total = best_by_trial(iou, threshold)
    return count, len(predicted) - count, len(true) - count, total


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(6))
def test_equals_a_slow_twin(seed, threshold):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(1, 6), rng.integers(0, 6, 15)]).reshape(4, 5).repeat(3, 0).repeat(3, 1)
    guess = np.where(rng.random(labels.shape) < 0.2, rng.integers(0, 6, labels.shape), np.roll(labels, rng.integers(3), 1))
    prediction, truth = objects(guess), objects(labels)
    tp, fp, fn, total = slow_twin(prediction, truth, threshold)
    metric = InstanceAccuracy(CLASSES, thresholds=(threshold,))
    state = metric.count(prediction, truth)
    place = metric.counted.index(threshold)
    assert state.values[1, :-3].reshape(3, -1)[:, place].tolist() == [tp, fp, fn]
    assert metric.score(state)["object accuracy"] == pytest.approx(tp / (tp + fp + fn))
    if threshold == 0.5:
        assert state.values[1, -3] == pytest.approx(total, abs=1e-12)


# By laws


def test_the_score_of_many_sums_at_once():
    metric = InstanceAccuracy(CLASSES)
    states = [metric.count(objects([[1, 1, 2, 2]]), objects([row])) for row in ([1, 1, 2, 2], [1, 2, 2, 2], [1, 0, 0, 2])]
    many = metric.score(Sums.weighted(states, np.array([[1, 1, 1], [0, 2, 0]])))
    alone = metric.score(states[1] + states[1])
    assert {value.shape for value in many.values()} == {(2,)}
    for name, value in alone.items():
        np.testing.assert_allclose(many[name][1], value)


def test_accuracy_falls_with_the_threshold():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 30, (8, 8)).repeat(4, 0).repeat(4, 1)
    guess = np.where(rng.random(labels.shape) < 0.1, 0, labels)
    found = scores(objects(guess), objects(labels))
    steps = [found[f"accuracy@{each:g}"] for each in InstanceAccuracy(CLASSES).counted]
    assert steps == sorted(steps, reverse=True) and steps[0] > steps[-1]
    iou = found["object F1@0.5"]
    assert found["accuracy@0.5"] == pytest.approx(iou / (2 - iou))  # as IoU follows from Dice


# By messages


@pytest.mark.parametrize("thresholds", [(), (0.0, 0.5), (0.5, 1.5)])
def test_wrong_thresholds_are_refused(thresholds):
    with pytest.raises(SettingError, match=r"give some above 0 and up to 1, such as \(0.5, 0.75\)"):
        InstanceAccuracy(CLASSES, thresholds=thresholds)


def test_other_classes_and_sizes_are_refused():
    with pytest.raises(UsageError, match=r"prediction holds class 1 \(nucleus\), the metric knows 1 classes"):
        InstanceAccuracy(Classes.of(["plasma"])).count(objects([[1]]), objects([[1]]))
    with pytest.raises(ShapeError, match="the prediction is 1 x 1 and the truth 1 x 2"):
        scores(objects([[1]]), objects([[1, 1]]))
