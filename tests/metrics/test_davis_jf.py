import json
import weakref
from pathlib import Path

import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError, UsageError
from segwright.metrics.accumulators import Sums
from segwright.metrics.davis_jf import DavisJf, contour_of, statistics

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics_davis_jf.json"  # says which commit of davis2017-evaluation made it
CLASSES = Classes.of(["cat", "dog"], is_thing=[True, True])
METRIC = DavisJf(CLASSES)


def frame(numbers, class_ids=(0, 0, 0, 0)):
    """A frame from a map of object numbers, 0 nothing and -1 void; classes are those of the numbers 1, 2, ..."""
    numbers = np.atleast_2d(numbers)
    present = np.unique(numbers[numbers > 0])
    places = np.where(numbers > 0, np.searchsorted(present, numbers) + 1, numbers)
    return Segmentation.panoptic(places, [class_ids[number - 1] for number in present], present, classes=CLASSES)


def video(predictions, truths, **settings):
    return [(frame(guess, **settings), frame(truth)) for guess, truth in zip(predictions, truths, strict=True)]


def scores(predictions, truths, **settings):
    return METRIC.score(METRIC.count(video(predictions, truths, **settings)))


# By hand


def test_by_hand():
    truths = [[1, 1, 1, 1, 0, 0]] * 4
    guesses = [[0] * 6, [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [0] * 6]  # the first and last frame are left out
    found = scores(guesses, truths)
    assert found["J mean"] == (1 + 0.5) / 2
    assert found["J recall"] == 1 / 2  # one half is not above one half
    assert found["J decay"] == 1 - 0.5
    assert found["F mean"] == found["F recall"] == (1 + 0) / 2  # the contour moved by two pixels, one is allowed
    assert found["J&F"] == found["J&F/cat"] == (0.75 + 0.5) / 2
    assert np.isnan(found["J&F/dog"])


def test_an_object_in_neither_frame_is_right():
    found = scores([[1, 0], [0, 0], [0, 0]], [[1, 0], [0, 0], [1, 0]])
    assert found["J&F"] == 1 and found["J decay"] == 0


def test_missing_predictions_miss():
    found = scores([[0, 0, 0]] * 4, [[1, 1, 0]] * 4)
    assert found["J&F"] == found["J recall"] == found["F recall"] == 0


def test_numbers_and_classes_must_agree():
    truths = [[1, 1, 0, 2, 2]] * 3
    assert scores(truths, truths)["J&F"] == 1
    swapped = [[2, 2, 0, 1, 1]] * 3
    assert scores(swapped, truths)["J mean"] == 0
    assert scores(truths, truths, class_ids=(1, 0))["J mean"] == 1 / 2
    nobodys = [[1, 1, 3, 2, 2]] * 3  # an object that is not in the truth takes no pixels of others
    assert scores(nobodys, truths)["J&F"] == 1


def test_an_object_counts_from_the_frame_after_its_first():
    truths = [[0, 1], [2, 1], [2, 1], [2, 1], [2, 1]]
    guesses = [[0, 1], [0, 1], [2, 1], [0, 1], [0, 1]]
    found = METRIC.count(video(guesses, truths)).values[0]
    assert found[:3].tolist() == [2, 1 + 0.5, 1 + 0.5]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_videos_without_a_frame_between_count_nothing(count):
    found = scores([[1, 1]] * count, [[1, 1]] * count)
    assert all(np.isnan(value) for value in found.values())


def test_void_is_left_out():
    truths = [[1, 1, -1, -1, 0]] * 3
    found = [scores([guess] * 3, truths) for guess in ([1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 2, 1, 0])]
    np.testing.assert_equal(found[1:], [found[0]] * 2)
    assert found[0]["J mean"] == 1


def test_overlapping_objects_are_seen_whole():
    masks = np.zeros((2, 1, 6), bool)
    masks[0, 0, :4], masks[1, 0, 2:] = True, True
    both = Segmentation.instances(masks, [0, 0], classes=CLASSES)
    assert METRIC.score(METRIC.count([(both, both)] * 3))["J&F"] == 1


def test_the_mean_is_over_objects_of_all_videos():
    one = METRIC.count(video([[1, 2]] * 3, [[1, 2]] * 3))
    other = METRIC.count(video([[0]] * 3, [[1]] * 3))
    assert METRIC.score(one + other)["J mean"] == pytest.approx(2 / 3)
    many = METRIC.score(Sums.weighted([one, other], np.array([[1, 1], [0, 3]])))
    np.testing.assert_allclose(many["J mean"], [2 / 3, 0])


def test_frames_are_streamed():
    alive = []

    def frames():
        for number in range(20):
            guess = frame(np.full((4, 4), 1))
            alive.append(weakref.ref(guess))
            assert sum(reference() is not None for reference in alive) <= 3, f"frame {number} finds others in memory"
            yield guess, frame(np.full((4, 4), 1))

    METRIC.count(frames())


# Equal to davis2017-evaluation


def test_equals_davis():
    golden = json.loads(GOLDEN.read_text())
    total, expected = np.zeros(7), np.zeros(7)
    for each in golden["videos"]:
        total += METRIC.count(video(each["prediction"], each["truth"])).values[0]
        for of_object in each["objects"].values():
            expected += [1, *of_object["J_mean_recall_decay"], *of_object["F_mean_recall_decay"]]
    np.testing.assert_allclose(total, expected, rtol=0, atol=1e-12)


# By a slow twin


def slow_contour(mask):
    """Pixels that differ from the next to the right, below and across, as the benchmark's legend says."""
    height, width = mask.shape
    result = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            others = [(y, min(x + 1, width - 1)), (min(y + 1, height - 1), x)]
            if y + 1 < height and x + 1 < width:
                others.append((y + 1, x + 1))
            result[y, x] = any(mask[place] != mask[y, x] for place in others)
    return result


def slow_frame(guess, truth):
    """J and F with a tolerance in pixels by comparing all pairs."""
    union = (guess | truth).sum()
    region = (guess & truth).sum() / union if union else 1.0
    reach = np.ceil(0.008 * np.hypot(*truth.shape))
    ends = [np.argwhere(slow_contour(mask)) for mask in (guess, truth)]
    rates = []
    for own, other in (ends, ends[::-1]):
        near = [len(other) and np.hypot(*(other - point).T).min() <= reach for point in own]
        rates.append(np.mean(near) if len(own) else 1.0)
    return region, 2 * rates[0] * rates[1] / sum(rates) if sum(rates) else 0.0


@pytest.mark.parametrize("seed", range(2))
def test_equals_a_slow_twin(seed):
    rng = np.random.default_rng(seed)
    shape = (40, 50) if seed else (90, 90)  # tolerances of 1 and 2 pixels
    truths = rng.integers(-1 if seed else 0, 4, (6, shape[0] // 10, shape[1] // 10)).repeat(10, 1).repeat(10, 2)
    truths[0, 0, :3] = 1, 2, 3
    shifts = rng.integers(-3, 4, (6, 2))
    guesses = [np.roll(np.maximum(truth, 0), shift, (0, 1)) for truth, shift in zip(truths, shifts, strict=True)]
    expected = np.zeros(7)
    for number in (1, 2, 3):
        pairs = [
            slow_frame((guess == number) & (truth >= 0), truth == number)
            for guess, truth in zip(guesses[1:-1], truths[1:-1], strict=True)
        ]
        values = np.array(pairs)  # J and F of four frames; a quarter shares its end with the next
        expected += [
            1,
            *(part for one in values.T for part in (one.mean(), (one > 0.5).mean(), one[:2].mean() - one[-2:].mean())),
        ]
    np.testing.assert_allclose(METRIC.count(video(guesses, truths)).values[0], expected, atol=1e-12)


def test_statistics_by_hand():
    assert statistics(np.array([0.8])) == (0.8, 1, 0)
    mean, recall, decay = statistics(np.arange(9) / 8)  # quarters are frames 0-2, 2-4, 4-6 and 6-8
    assert (mean, recall, decay) == (0.5, 4 / 9, (0 + 1 + 2) / 24 - (6 + 7 + 8) / 24)


def test_decay_of_long_videos_is_not_cut():
    values = np.linspace(1, 0, 1001)
    assert statistics(values)[2] == pytest.approx(0.75)


# By laws


@pytest.mark.parametrize("seed", range(3))
def test_the_contour_is_the_slow_one(seed):
    mask = np.random.default_rng(seed).random((9, 12)) < 0.5
    np.testing.assert_array_equal(contour_of(mask), slow_contour(mask))


# By messages


def test_volumes_and_other_sizes_are_refused():
    deep = Segmentation.panoptic(np.ones((2, 2, 2), int), [0], [1], classes=CLASSES)
    with pytest.raises(ShapeError, match="a frame is 2 x 2 x 2; .* give the slices of a volume one by one"):
        METRIC.count([(deep, deep)])
    with pytest.raises(ShapeError, match="the prediction is 1 x 1 and the truth 1 x 2"):
        METRIC.count([(frame([1]), frame([1, 1]))])
    with pytest.raises(UsageError, match=r"prediction holds class 1 \(dog\), the metric knows 1 classes"):
        DavisJf(Classes.of(["cat"])).count(video([[1]], [[1]], class_ids=(1,)))
