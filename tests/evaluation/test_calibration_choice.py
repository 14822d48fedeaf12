"""A map for scores is kept where it makes them probabilities for certain, and nowhere else. Axes: D objects."""

import re
from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.decoding.score_calibration import ScoreCalibration, log_odds
from segwright.evaluation.accumulate import Counted, Counter
from segwright.evaluation.calibration_choice import (
    ScoredObjects,
    chosen_calibration,
    fitted_calibration,
    held_out_probabilities,
    scored_objects,
)
from segwright.evaluation.evaluate import Tally, count_predictions
from segwright.metrics.average_precision import AveragePrecision
from segwright.metrics.matching import ImageMatches, Matches
from segwright.tasks.instance import Instance

CLASSES = Classes.of(["cat", "dog"], is_thing=[True, True])
EVERY = np.uint64(2**10 - 1)  # all thresholds
TOO_SURE = ScoreCalibration(slope=0.4, shift=-1.0)  # what makes probabilities of scores that are too high


def matches_of(scores, is_right, class_ids=None) -> Matches:
    """The matches of one image with twice as many objects of each class as are found."""
    class_ids = np.zeros(len(scores), np.int32) if class_ids is None else class_ids
    order = np.lexsort((-scores, class_ids))
    bits = np.broadcast_to(np.where(is_right[order], EVERY, np.uint64(0)), (4, len(scores)))
    ranks = np.arange(len(scores)) - np.searchsorted(class_ids[order], class_ids[order])
    counted, true = np.full((4, len(scores)), EVERY), np.repeat(class_ids, 2).astype(np.int32)
    ranges = np.ones(len(true), np.uint8)
    image = ImageMatches(class_ids[order], scores[order], ranks.astype(np.int32), bits, counted, true, ranges)
    return Matches((image,))


def drawn(map_, seed=0, images=12, count=60):
    """Images whose objects are right as often as a map says of their scores."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(images):
        scores = 1 / (1 + np.exp(-3 * rng.normal(size=count)))
        found.append(matches_of(scores, rng.random(count) < map_.probabilities(scores), rng.integers(0, 2, count)))
    return found


def tally_of(states, metric="average_precision"):
    tally = Tally(Counter.of({metric: ("AP",)}, CLASSES))
    tally.counted += [Counted(f"image {n}", {metric: state}, {}) for n, state in enumerate(states)]
    return tally


def choice_of(states, labels=None):
    return chosen_calibration(tally_of(states), list(range(len(states))) if labels is None else labels)


def errors(scores, is_right) -> tuple[float, float]:
    """Brier score and expected calibration error in ten bins, in plain words."""
    bins = np.minimum((10 * scores).astype(int), 9)
    gaps = [abs(scores[bins == b].sum() - is_right[bins == b].sum()) for b in range(10)]
    return float(np.mean((scores - is_right) ** 2)), sum(gaps) / len(scores)


def test_scores_that_say_too_much_become_probabilities_on_fresh_images_and_ap_stays():
    chosen, (told,) = choice_of(drawn(TOO_SURE))
    assert chosen.slope == pytest.approx(0.4, rel=0.2) and chosen.shift == pytest.approx(-1.0, rel=0.2)
    assert told.startswith("From now on the score of an object is the probability") and "p = 0.0" in told
    fresh = drawn(TOO_SURE, seed=1, images=40)
    objects = scored_objects(fresh, range(40))
    before = errors(objects.scores, objects.is_right)
    after = errors(chosen.probabilities(objects.scores), objects.is_right)
    assert after[0] < 0.75 * before[0] and after[1] < 0.2 * before[1]
    metric = AveragePrecision(CLASSES)
    mapped = [Matches(tuple(replace(one, scores=chosen.probabilities(one.scores)) for one in each.images)) for each in fresh]
    plain, changed = (metric.score(sum(states[1:], states[0])) for states in (fresh, mapped))
    for name in ("AP", "AP50", "AP/cat", "AP/dog"):
        assert changed[name] == plain[name] > 0


def squares(places, rng) -> tuple[Sample, Segmentation]:
    """An image with a square of 4 x 4 at each place, and surely found ones of which half lie beside them."""
    masks, found = np.zeros((2, len(places), 36, 36), bool)
    for number, (row, column) in enumerate(places):
        masks[number, row : row + 4, column : column + 4] = True
        column += 5 * int(rng.random() < 0.5)
        found[number, row : row + 4, column : column + 4] = True
    ids, scores = np.zeros(len(places), int), rng.uniform(0.9, 1, len(places))
    truth, guess = (Segmentation.instances(each, ids, classes=CLASSES) for each in (masks, found))
    return Sample.of("", np.zeros((1, 36, 36), np.uint8), truth), replace(guess, scores=scores.astype(np.float32))


def test_from_images_to_a_map():
    """As after training: predictions are counted by the metrics of the task, and what was counted gives the map."""
    rng = np.random.default_rng(0)
    grid = [(row, column) for row in range(0, 36, 6) for column in (0, 12, 24)]
    pairs = {f"{n}": squares(grid, rng) for n in range(8)}
    data = Dataset("memory", CLASSES, tuple(pairs), lambda key: replace(pairs[key][0], key=key))
    tally = count_predictions(lambda sample: pairs[sample.key][1], data, metrics=Instance.metrics)
    chosen, (told,) = chosen_calibration(tally, range(8))
    assert told.startswith("From now on") and chosen.probabilities(np.array([0.95])) == pytest.approx([0.5], abs=0.1)


def test_scores_that_are_probabilities_stay():
    chosen, (told,) = choice_of(drawn(ScoreCalibration()))
    assert chosen == ScoreCalibration() and told.startswith(
        "Scores of objects stay as they are, as a map to probabilities does"
    )


def test_chance_alone_seldom_gives_a_map():
    maps = [choice_of(drawn(ScoreCalibration(), seed, images=8, count=20))[0] for seed in range(20)]
    assert sum(each.is_needed for each in maps) <= 2


@pytest.mark.parametrize(
    ("images", "count", "labels", "said"),
    [
        (12, 2, None, r"\d+ right and \d+ wrong ones in 12 images"),
        (5, 60, None, "in 5 images that are not of one group are too few"),
        (12, 60, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3], "in 4 images that are not of one group"),
        (12, 0, None, "0 right and 0 wrong ones in 0 images"),
    ],
)
def test_few_objects_or_images_prove_nothing(images, count, labels, said):
    chosen, (told,) = choice_of(drawn(TOO_SURE, images=images, count=count), labels)
    assert chosen == ScoreCalibration()
    assert told.startswith("Scores of objects rank them and are no probabilities")
    assert re.search(said, told)


def test_runs_that_are_not_judged_by_ranks_of_objects_get_no_map():
    for metric in ("panoptic_quality", "confusion"):
        assert chosen_calibration(Tally(Counter.of({metric: ()}, CLASSES)), []) == (ScoreCalibration(), ())


def test_duplicates_are_wrong_and_crowds_do_not_count():
    truth = Segmentation.panoptic(np.array([[1, 1, 1, 0, 2, 2]]), [0, 0], [1, 0], classes=CLASSES)  # the second is a crowd
    masks = np.array([[[1, 1, 1, 0, 0, 0]], [[0, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 1, 1]], [[0, 0, 0, 1, 0, 0]]], bool)
    found = Segmentation.instances(masks, [0, 0, 0, 1], scores=[0.9, 0.8, 0.7, 0.6], classes=CLASSES)
    objects = scored_objects([AveragePrecision(CLASSES).count(found, truth)], [7])
    assert objects.scores.tolist() == pytest.approx([0.9, 0.8, 0.6]) and objects.is_right.tolist() == [True, False, False]
    assert objects.units.tolist() == [7, 7, 7]


def test_the_likeliest_map_by_a_grid():
    objects = scored_objects(drawn(TOO_SURE, images=6), range(6))
    fitted = fitted_calibration(objects.scores, objects.is_right)
    right, wrong = objects.is_right.sum(), (~objects.is_right).sum()
    targets = np.where(objects.is_right, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(slope, shift):
        probs = 1 / (1 + np.exp(-slope * log_odds(objects.scores) - shift))
        return -np.mean(targets * np.log(probs) + (1 - targets) * np.log(1 - probs))

    grid = [loss(slope, shift) for slope in np.linspace(0.1, 1, 40) for shift in np.linspace(-2, 1, 40)]
    assert loss(fitted.slope, fitted.shift) <= min(grid)


@pytest.mark.parametrize("is_right", [True, False])
def test_where_all_are_alike_the_map_stays_finite(is_right):
    scores = np.linspace(0.05, 1, 30)
    probabilities = fitted_calibration(scores, np.full(30, is_right)).probabilities(scores)
    assert np.isfinite(probabilities).all() and (abs(probabilities - is_right) < 0.1).all()


def test_objects_are_judged_by_maps_that_have_not_seen_their_images():
    """Images of which one part is always right, whatever the score: only maps of others are not sure of it."""
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(10), 20)
    objects = ScoredObjects(rng.random(200), np.where(units % 5 == 0, True, rng.random(200) < 0.5), units)
    said = held_out_probabilities(objects)
    assert said[units % 5 == 0].mean() == pytest.approx(0.5, abs=0.08) and said[units % 5 == 1].mean() > 0.55
