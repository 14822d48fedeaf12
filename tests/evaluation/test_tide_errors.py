import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from segwright.codecs import rle
from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError
from segwright.evaluation.tide_errors import (
    BOTH,
    CLASS,
    DUPLICATE,
    FALSE,
    MASK,
    MATCHED,
    MERGED,
    MISSED,
    NO_OBJECT,
    OUTCOMES,
    SPLIT,
    ObjectOutcomes,
    match_outcomes,
)
from segwright.metrics.average_precision import AveragePrecision

CLASSES = Classes.of(["cell", "dot", "ground"], is_thing=[True, True, False])


def objects(*spans, scores=None, ids=None):
    """Objects in one row of 60 pixels: (first, end) of class 0, or (first, end, class)."""
    masks = np.zeros((len(spans), 1, 60), bool)
    for mask, span in zip(masks, spans, strict=True):
        mask[0, span[0] : span[1]] = True
    kinds = [span[2] if len(span) > 2 else 0 for span in spans]
    return Segmentation.instances(masks, kinds, instance_ids=ids, scores=scores, classes=CLASSES)


def outcome(prediction, truth):
    became = match_outcomes(prediction, truth)
    return became.predicted.tolist(), became.true.tolist(), ObjectOutcomes.of(became, prediction, truth)


# Each cause by hand


def test_matched_and_missed_and_false():
    predicted, true, found = outcome(objects((0, 10), (30, 40)), objects((0, 10), (50, 60)))
    assert predicted == [MATCHED, FALSE] and true == [MATCHED, MISSED]
    assert found.mean_ap([MISSED]) == found.mean_ap([MISSED, FALSE]) == 1.0  # the false one has no higher score
    assert found.mean_ap() == pytest.approx(51 / 101)  # recalls 0 .. 0.5 are reached


def test_class_comes_before_duplicate():
    truth, guess = objects((0, 10, 0), (0, 10, 1)), objects((0, 10, 0), (0, 9, 0), scores=[0.9, 0.8])
    assert outcome(guess, truth)[0] == [MATCHED, CLASS]


def test_duplicate():
    predicted, true, found = outcome(objects((0, 9), (0, 10), scores=[0.9, 0.8]), objects((0, 10)))
    assert predicted == [MATCHED, DUPLICATE] and true == [MATCHED]
    assert found.mean_ap() == 1.0 and found.costs()["duplicate"] == 0.0  # it comes after the right one


def test_a_duplicate_before_another_right_one_costs():
    predicted, _, found = outcome(objects((0, 9), (0, 10), (20, 30), scores=[0.9, 0.8, 0.7]), objects((0, 10), (20, 30)))
    assert predicted == [MATCHED, DUPLICATE, MATCHED]
    assert found.costs()["duplicate"] == pytest.approx(1 - (51 + 50 * 2 / 3) / 101)


def test_class():
    predicted, true, found = outcome(objects((0, 10, 1)), objects((0, 10, 0)))
    assert predicted == [CLASS] and true == [CLASS]
    assert found.mean_ap() == 0.0 and found.costs() == {name: float(name in ("class",)) for name in found.costs()}


def test_mask_quality_and_its_limits():
    assert outcome(objects((0, 4)), objects((0, 10)))[:2] == ([MASK], [MASK])  # IoU 0.4
    assert outcome(objects((0, 5)), objects((0, 10)))[:2] == ([MATCHED], [MATCHED])  # 0.5
    assert outcome(objects((0, 1)), objects((0, 10)))[:2] == ([MASK], [MASK])  # 0.1
    assert outcome(objects((0, 1)), objects((0, 11)))[:2] == ([FALSE], [MISSED])
    assert outcome(objects((0, 4)), objects((0, 10)))[2].costs()["mask quality"] == 1.0


def test_class_and_mask():
    predicted, true, found = outcome(objects((0, 4, 1)), objects((0, 10, 0)))
    assert predicted == [BOTH] and true == [MISSED]
    assert found.costs()["class and mask"] == 0.0


def test_merged_with_and_without_a_match():
    predicted, true, found = outcome(objects((0, 20)), objects((0, 9), (11, 20)))  # IoU 0.45 each
    assert predicted == [MERGED] and true == [MERGED, MERGED]
    assert found.costs()["merged"] == 1.0
    predicted, true, found = outcome(objects((0, 20)), objects((0, 14), (14, 20)))  # IoU 0.7 and 0.3
    assert predicted == [MATCHED] and true == [MATCHED, MERGED]
    assert found.costs()["merged"] == pytest.approx(50 / 101)


def test_split_with_and_without_a_match():
    spans = (0, 7), (7, 14), (14, 20)
    predicted, true, found = outcome(objects(*spans), objects((0, 20)))
    assert predicted == [SPLIT] * 3 and true == [SPLIT] and found.costs()["split"] == 1.0
    predicted, true, _ = outcome(objects((0, 12), (12, 20)), objects((0, 20)))
    assert predicted == [MATCHED, SPLIT] and true == [MATCHED]


def test_pieces_that_lie_on_each_other_or_cover_little_are_no_split():
    assert outcome(objects((0, 9), (1, 9), scores=[0.9, 0.8]), objects((0, 20)))[0] == [MASK, MASK]
    assert outcome(objects((0, 4), (5, 9)), objects((0, 20)))[0] == [MASK, MASK]  # 8 of 20 pixels


def test_one_cause_for_each_true_object_that_of_the_surest_prediction():
    for scores, cause in (([0.9, 0.8], CLASS), ([0.8, 0.9], MASK)):
        predicted, true, found = outcome(objects((0, 10, 1), (0, 4, 0), scores=scores), objects((0, 10, 0)))
        assert predicted == [CLASS, MASK] and true == [cause]
        assert found.fixed_causes.tolist() == [cause] and found.fixed_scores.tolist() == [pytest.approx(0.9)]


def test_a_true_object_of_the_same_class_decides_first():
    truth = objects((0, 10, 1), (0, 4, 0))
    assert outcome(objects((0, 10, 0)), truth)[0] == [MASK]  # IoU 0.4 with its class, 1 with the other


def test_crowds_void_and_stuff_are_not_judged():
    truth = Segmentation.panoptic(
        np.array([[1] * 10 + [-1] * 10 + [2] * 10 + [3] * 10]), [0, 0, 2], [1, 0, 0], classes=CLASSES
    )  # an object, void, a crowd, stuff
    guess = np.zeros((1, 40), int)
    guess[0, :10], guess[0, 12:18], guess[0, 22:27], guess[0, 32:38] = 1, 2, 3, 4
    prediction = Segmentation.panoptic(guess, [0, 0, 0, 2], [1, 2, 3, 0], classes=CLASSES)
    predicted, true, found = outcome(prediction, truth)
    assert predicted == [MATCHED, NO_OBJECT, NO_OBJECT, NO_OBJECT] and true == [MATCHED, NO_OBJECT, NO_OBJECT]
    assert found.mean_ap() == 1.0 and len(found.scores) == 1


def test_void_is_taken_out_of_a_mask():
    truth = Segmentation.panoptic(np.array([[1] * 4 + [-1] * 16]), [0], [1], classes=CLASSES)
    prediction = Segmentation.panoptic(np.ones((1, 20), int), [0], [1], classes=CLASSES)
    assert outcome(prediction, truth)[0] == [MATCHED]


def test_nothing_predicted_and_nothing_there():
    empty = Segmentation.panoptic(np.zeros((1, 60), int), [], classes=CLASSES)
    predicted, true, found = outcome(empty, objects((0, 10)))
    assert predicted == [] and true == [MISSED] and found.mean_ap() == 0.0 and found.costs()["missed"] == 1.0
    predicted, true, found = outcome(objects((0, 10)), empty)
    assert predicted == [FALSE] and true == [] and np.isnan(found.mean_ap())
    assert np.isnan(outcome(empty, empty)[2].mean_ap())


def test_a_class_of_which_all_is_missed_gains_only_without_false_predictions():
    _, _, found = outcome(objects((30, 40)), objects((0, 10)))
    assert found.costs()["missed"] == 0.0 and found.mean_ap([MISSED, FALSE]) == 1.0


def test_volumes():
    truth, guess = np.zeros((2, 3, 4, 6), bool), np.zeros((1, 3, 4, 6), bool)
    truth[0, :, :, :3], truth[1, :, :, 3:], guess[0] = True, True, True
    became = match_outcomes(
        Segmentation.instances(guess, [0], classes=CLASSES), Segmentation.instances(truth, [0, 0], classes=CLASSES)
    )
    assert became.predicted.tolist() == [MATCHED] and sorted(became.true.tolist()) == [MATCHED, MERGED]  # IoU 0.5 of both


# By a twin and by laws


def scene(seed, shape=(40, 48), most=12):
    """Random discs of two classes, which overlap, with scores."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape)
    masks, kinds = [], []
    for _ in range(rng.integers(0, most)):
        center = [rng.integers(0, side) for side in shape]
        distance = sum((axis - middle) ** 2 for axis, middle in zip(places, center, strict=True))
        masks.append(distance < rng.integers(2, 10) ** 2)
        kinds.append(int(rng.integers(2)))
    scores = np.round(rng.random(len(masks)), 1)  # with ties
    table = np.array(masks, bool).reshape(-1, *shape)
    return Segmentation.instances(table, kinds, scores=scores, classes=CLASSES)


def disturbed(truth, seed):
    """The truth with objects moved, dropped, doubled, of another class; and some others."""
    rng = np.random.default_rng(seed)
    masks, kinds = list(scene(seed + 1, truth.shape, 4).masks()), []
    kinds = [0] * len(masks)
    for mask, kind in zip(truth.masks(), truth.class_ids, strict=True):
        for _ in range(rng.integers(0, 3)):
            masks.append(np.roll(mask, rng.integers(-4, 5, 2), (0, 1)))
            kinds.append(int(kind) if rng.random() < 0.8 else int(1 - kind))
    scores = np.round(rng.random(len(masks)), 1)
    return Segmentation.instances(np.array(masks, bool).reshape(-1, *truth.shape), kinds, scores=scores, classes=CLASSES)


def whole(seeds):
    pairs = [(disturbed(scene(seed), 100 + seed), scene(seed)) for seed in seeds]
    return [ObjectOutcomes.of(match_outcomes(guess, truth), guess, truth) for guess, truth in pairs], pairs


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_law_mending_all_causes_gives_ap_1_and_none_makes_it_worse(seed):
    parts, _ = whole(range(seed, seed + 4))
    found = ObjectOutcomes.total(parts)
    assert found.mean_ap(range(1, len(OUTCOMES))) == pytest.approx(1.0)
    costs = found.costs()
    assert min(costs.values()) >= -1e-12 and list(costs.values()) == sorted(costs.values(), reverse=True)


def test_equals_tide_where_nothing_is_merged_or_split():
    golden = json.loads((Path(__file__).parents[1] / "golden" / "causes_tide.json").read_text())
    parts = []
    for image in golden["images"]:
        true, predicted = (
            np.array([rle.decode(rle.from_text(row[-1]), (40, 48)) for row in image[side]], bool).reshape(-1, 40, 48)
            for side in ("true", "predicted")
        )
        truth = Segmentation.instances(true, [row[0] for row in image["true"]], classes=CLASSES)
        kinds, scores = [row[0] for row in image["predicted"]], [row[1] for row in image["predicted"]]
        guess = Segmentation.instances(predicted, kinds, scores=scores, classes=CLASSES)
        parts.append(ObjectOutcomes.of(match_outcomes(guess, truth), guess, truth))
    found = ObjectOutcomes.total(parts)
    assert 100 * found.mean_ap() == pytest.approx(golden["ap"], abs=1e-10)
    ours = {name: 100 * cost for name, cost in found.costs().items()}
    assert ours == pytest.approx(golden["costs"] | {"merged": 0, "split": 0}, abs=1e-10)


def test_ap_equals_that_of_the_metric():
    parts, pairs = whole(range(30))
    metric = AveragePrecision(CLASSES, max_detections=(1, 10, 1000))
    states = [metric.count(guess, truth) for guess, truth in pairs]
    total = states[0]
    for state in states[1:]:
        total = total + state
    assert ObjectOutcomes.total(parts).mean_ap() == pytest.approx(float(metric.score(total)["AP50"]), abs=1e-12)


def test_law_sums_merge_in_any_grouping_and_travel():
    parts, _ = whole(range(6))
    total = ObjectOutcomes.total(parts)
    one = pickle.loads(pickle.dumps((parts[0] + parts[1]) + (parts[2] + ObjectOutcomes.total(parts[3:]))))
    assert one.mean_ap() == total.mean_ap() and one.costs() == total.costs()
    assert (one.true == total.true).all() and (one.predicted() == total.predicted()).all()


def test_law_each_object_has_one_fate():
    parts, pairs = whole(range(20))
    for part, (guess, truth) in zip(parts, pairs, strict=True):
        assert part.predicted().sum() == len(guess) and part.true.sum() == len(truth)
        assert part.predicted()[MATCHED] == part.true[:, MATCHED].sum()
        assert not part.true[:, [BOTH, DUPLICATE, FALSE]].any() and not part.predicted()[MISSED]
        left = part.true.sum() - part.true[:, [MATCHED, MISSED]].sum()
        assert len(part.fixed_causes) == left


def test_law_truth_against_truth_is_all_matched():
    for seed in range(5):
        truth = scene(seed)
        became = match_outcomes(truth, truth)
        is_hidden = truth.areas() == 0
        assert (became.true[~is_hidden] == MATCHED).all()


def test_messages():
    with pytest.raises(ShapeError, match="predict at the size of the original image"):
        match_outcomes(scene(0, (20, 20)), scene(0, (20, 21)))
