import json
import weakref
from collections import Counter
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError, UsageError
from segwright.metrics.accumulators import Sums
from segwright.metrics.panoptic_quality import PanopticQuality
from segwright.metrics.video_panoptic import KEPT, VideoPanoptic

GOLDEN = Path(__file__).parents[1] / "golden"  # each file says which commit of deeplab2 or panopticapi made it
CLASSES = Classes.of(["sky", "car", "dog"], is_thing=[False, True, True])
METRIC = VideoPanoptic(CLASSES)


def frame(labels, classes=CLASSES):
    """A frame from a map of 10 * class + object, -1 being void."""
    labels = np.atleast_2d(labels)
    present = np.unique(labels[labels >= 0])
    places = np.where(labels >= 0, np.searchsorted(present, labels) + 1, -1)
    return Segmentation.panoptic(places, present // 10, present % 10, classes=classes)


def video(predictions, truths):
    return [(frame(guess), frame(truth)) for guess, truth in zip(predictions, truths, strict=True)]


def scores(predictions, truths):
    return METRIC.score(METRIC.count(video(predictions, truths)))


# By hand


def test_by_hand():
    truths = [[11, 11, 0, 0]] * 2
    guesses = [[11, 11, 0, 0], [12, 12, 0, 0]]  # the number changes half way
    found = scores(guesses, truths)
    assert found["AQ"] == found["AQ/car"] == (2 * 0.5 + 2 * 0.5) / 4
    assert found["SQ of STQ"] == 1
    assert found["STQ"] == 0.5**0.5
    assert found["VPQ@1"] == 1
    assert found["VPQ@2"] == (1 + 0) / 2  # sky is found, an IoU of one half is no match
    assert np.isnan(found["VPQ@3"]) and np.isnan(found["VPQ@4"])
    assert found["VPQ"] == (1 + 0.5) / 2
    assert found["VPQ things"] == found["VPQ/car"] == (1 + 0) / 2
    assert found["VPQ stuff"] == 1
    assert np.isnan(found["VPQ/dog"]) and np.isnan(found["SQ of STQ/dog"])


def test_association_does_not_ask_for_the_class():
    found = scores([[21, 21]], [[11, 11]])
    assert found["AQ"] == 1
    assert found["SQ of STQ"] == found["VPQ"] == 0


def test_missing_predictions_miss():
    nothing = Segmentation.panoptic(np.zeros((1, 3), int), [], [], classes=CLASSES)
    found = METRIC.score(METRIC.count([(nothing, frame([11, 0, 0]))] * 4))
    for name in METRIC.SCORES:
        assert found[name] == 0


def test_crowds_count_in_sq_only():
    truths = [[11, 11, 10, 10]] * 2
    found = scores([[11, 11, 11, 11]] * 2, truths)
    assert found["AQ"] == 1 and found["SQ of STQ"] == 1
    assert scores([[11, 11, 12, 12]] * 2, truths)["VPQ"] == 1


def test_void_is_left_out_unless_it_counts():
    truth, guess = [[11, 11, -1, -1]], [[11, 11, 11, 0]]
    np.testing.assert_equal(scores(guess, truth), scores([[11, 11, 0, 21]], truth))
    assert scores(guess, truth)["AQ"] == 1
    other = VideoPanoptic(CLASSES, void_counts=True)
    assert other.score(other.count(video(guess, truth)))["AQ"] == pytest.approx(2 / 3)
    assert other.convention != METRIC.convention


def test_no_frames_are_unknown():
    assert all(np.isnan(value) for value in METRIC.score(METRIC.count([])).values())


def test_frames_are_streamed():
    alive = []

    def frames():
        for number in range(20):
            guess = frame(np.full((4, 4), 11))
            alive.append(weakref.ref(guess))
            assert sum(reference() is not None for reference in alive) <= 3, f"frame {number} finds others in memory"
            yield guess, frame(np.full((4, 4), 11))

    METRIC.count(frames())


# Equal to the authors' code


@pytest.mark.parametrize("kind", ["no void", "void"])
def test_equals_deeplab2(kind):
    golden = json.loads((GOLDEN / "metrics_segmentation_tracking.json").read_text())
    step, void = 2 ** golden["bits"], golden["void_class"]
    classes = Classes.of(map(str, range(golden["classes"])), is_thing=[k in golden["things"] for k in range(golden["classes"])])

    def read(labels):
        labels = np.array(labels)
        tens = np.where(labels // step == void, -1, labels // step * 10 + labels % step)
        return frame(tens, classes)

    metric = VideoPanoptic(classes, void_counts=True)
    states = [
        metric.count((read(guess), read(truth)) for guess, truth in zip(each["prediction"], each["truth"], strict=True))
        for each in golden["sets"][kind]["videos"]
    ]
    results = golden["sets"][kind]["results"]
    for state, suffix, number in [(reduce(add, states), "", None), *((each, "_per_seq", n) for n, each in enumerate(states))]:
        found = metric.score(state)
        for ours, theirs in (("STQ", "STQ"), ("AQ", "AQ"), ("SQ of STQ", "IoU")):
            expected = results[theirs + suffix] if number is None else results[theirs + suffix][number]
            # A video without objects has no AQ; deeplab2 says 0. It divides in float32.
            assert np.nan_to_num(found[ours]) == pytest.approx(expected, rel=1e-6)


def test_equals_panopticapi_on_joined_frames():
    golden = json.loads((GOLDEN / "metrics_video_panoptic.json").read_text())
    categories = [each["id"] for each in golden["categories"]]
    classes = Classes.of(map(str, categories), is_thing=[bool(each["isthing"]) for each in golden["categories"]])

    def read(ids, segments):
        ids, known = np.array(ids), sorted(segments, key=lambda each: each["id"])
        numbers = [each["id"] for each in known]
        class_ids = np.array([categories.index(each["category_id"]) for each in known], int)
        places = np.where(ids > 0, np.searchsorted(numbers, ids) + 1, -1)
        objects = [number * classes.is_thing[k] for number, k in zip(numbers, class_ids, strict=True)]
        return Segmentation.panoptic(places, class_ids, objects, classes=classes)

    metric = VideoPanoptic(classes)
    states = [
        metric.count(
            (read(each["prediction"], each["prediction_segments"]), read(each["truth"], each["truth_segments"]))
            for each in frames
        )
        for frames in golden["videos"]
    ]
    total = reduce(add, states)
    found, of_windows = metric.score(total), total.values[:, 5:].reshape(len(classes), 4, 4)
    for window, results in golden["results"].items():
        for k, category in enumerate(categories):
            expected = [results["per_class"][str(category)][name] for name in ("iou", "tp", "fp", "fn")]
            np.testing.assert_allclose(of_windows[k, int(window) - 1], expected, rtol=0, atol=1e-12)
        assert found[f"VPQ@{window}"] == pytest.approx(results["All"]["pq"], abs=1e-12)
    for group, theirs in (("VPQ", "All"), ("VPQ things", "Things"), ("VPQ stuff", "Stuff")):
        expected = np.mean([results[theirs]["pq"] for results in golden["results"].values()])
        assert found[group] == pytest.approx(expected, abs=1e-12)


# By a slow twin


def random_video(seed, count=6):
    rng = np.random.default_rng(seed)
    labels = np.array([-1, 0, 10, 11, 12, 21, 22])
    truth = labels[rng.integers(0, 7, (count, 4, 5))].repeat(2, 1).repeat(2, 2)
    truth[1:] = np.where(rng.random(truth[1:].shape) < 0.8, truth[0], truth[1:])
    guess = np.where(rng.random(truth.shape) < 0.7, truth, labels[rng.integers(0, 7, truth.shape)])
    return guess, truth


def slow_stq(predictions, truths):
    """AQ and SQ from counts of pixels, one by one."""
    shared, actual, predicted, table = Counter(), Counter(), Counter(), Counter()
    for guess, truth in zip(predictions.ravel().tolist(), truths.ravel().tolist(), strict=True):
        if truth == -1:
            continue
        table[max(truth, -1) // 10, guess // 10] += 1
        if truth == 10 or truth == 20:
            continue
        if truth > 10:
            actual[truth] += 1
        if guess >= 10:
            predicted[guess] += 1
        if truth > 10 and guess >= 10:
            shared[truth, guess] += 1
    association = [
        sum(n * n / (actual[t] + predicted[p] - n) for (t, p), n in shared.items() if t == tube) / actual[tube]
        for tube in actual
    ]
    iou = []
    for k in range(3):
        union = sum(n for (t, p), n in table.items() if k in (t, p))
        iou += [table[k, k] / union] if union else []
    return np.mean(association), np.mean(iou)


@pytest.mark.parametrize("seed", range(10))
def test_stq_equals_a_slow_twin(seed):
    guess, truth = random_video(seed)
    found = scores(guess, truth)
    association, iou = slow_stq(guess, truth)
    assert found["AQ"] == pytest.approx(association, abs=1e-12)
    assert found["SQ of STQ"] == pytest.approx(iou, abs=1e-12)
    assert found["STQ"] == pytest.approx(np.sqrt(association * iou), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_window_is_the_panoptic_quality_of_frames_side_by_side(seed):
    guess, truth = random_video(seed)
    guess[guess % 10 == 0] //= 11  # an image tells predicted objects without a number apart, a video cannot
    of_windows = METRIC.count(video(guess, truth)).values[:, 5:].reshape(3, 4, 4)
    image = PanopticQuality(CLASSES)
    for window in (1, 2, 3, 4):
        runs = [slice(start, start + window) for start in range(len(truth) - window + 1)]
        expected = sum(image.count(frame(np.hstack(guess[run])), frame(np.hstack(truth[run]))).values for run in runs)
        np.testing.assert_allclose(of_windows[:, window - 1], expected, rtol=0, atol=1e-12)


def test_long_videos_are_added_up_on_the_way():
    guess, truth = random_video(0, count=KEPT + 9)
    association, iou = slow_stq(guess, truth)
    found = scores(guess, truth)
    assert found["AQ"] == pytest.approx(association, abs=1e-12) and found["SQ of STQ"] == pytest.approx(iou, abs=1e-12)


# By laws


def test_scores_of_many_sums_at_once():
    states = [METRIC.count(video(*random_video(seed))) for seed in range(3)]
    many = METRIC.score(Sums.weighted(states, np.array([[1, 1, 1], [0, 2, 1]])))
    alone = METRIC.score(states[1] + states[1] + states[2])
    for name, value in alone.items():
        assert many[name].shape == (2,)
        np.testing.assert_allclose(many[name][1], value)


# By messages


def test_overlaps_sizes_and_classes_are_refused():
    flat = frame([11, 12])
    deep = replace(flat, planes=np.array([[[1, 1]], [[0, 2]]], np.int32))
    with pytest.raises(UsageError, match="segments of the prediction overlap at 1 pixels"):
        METRIC.count([(deep, flat)])
    with pytest.raises(ShapeError, match="the prediction is 1 x 2 and the truth 1 x 3"):
        METRIC.count([(flat, frame([0, 0, 0]))])
    with pytest.raises(UsageError, match="prediction holds class 1"):
        VideoPanoptic(Classes.of(["sky"])).count([(flat, flat)])
