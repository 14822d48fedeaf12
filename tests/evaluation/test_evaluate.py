import json
import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, UnknownNameError, UsageError
from segwright.evaluation.evaluate import (
    Tally,
    count_predictions,
    evaluate,
    measure,
    tally_differences,
    tally_pairs,
    tally_results,
)
from segwright.evaluation.load_pairs import are_results
from segwright.evaluation.pairs import pair
from segwright.metrics.confusion import Confusion


def test_by_hand(classes):
    truth = Segmentation.semantic(np.array([[0, 0, 1], [0, -1, 1]]), classes)
    prediction = Segmentation.semantic(np.array([[0, 1, 1], [0, 0, 1]]), classes)
    one = Dataset("memory", classes, ("a",), lambda key: Sample.of(key, np.zeros((1, 2, 3)), truth))
    scores = evaluate(lambda sample: prediction, one)
    assert scores.count == 1 and scores.matrix == ((2, 1, 0, 0), (0, 2, 0, 0), (0, 0, 0, 0))
    assert scores.values["IoU/sky"] == pytest.approx(2 / 3) and scores.values["IoU/road"] == pytest.approx(2 / 3)
    assert np.isnan(scores.values["IoU/car"]) and scores.values["mIoU"] == pytest.approx(2 / 3)
    assert scores.values["pixel accuracy"] == pytest.approx(4 / 5)
    assert {name: scores.per_image["a"][name] for name in ("mIoU", "pixel accuracy")} == pytest.approx(
        {"mIoU": 2 / 3, "pixel accuracy": 4 / 5}
    )
    assert np.isnan(scores.intervals["mIoU"]).all() and "One image gives no interval" in scores.convention


def test_a_void_image_counts_for_nothing(classes, truths, guess):
    void = Sample.of("s9", np.zeros((3, 4, 4), np.uint8), Segmentation.semantic(np.full((4, 4), -1), classes))
    with_void = replace(truths, keys=(*truths.keys, "s9"), load=lambda key: void if key == "s9" else truths.load(key))
    scores = evaluate(guess, with_void)
    assert np.isnan(scores.per_image["s9"]["mIoU"]) and scores.values == evaluate(guess, truths).values


def test_what_an_image_lacks_counts_neither_for_nor_against(classes):
    image = np.array([[[1, 1, np.nan], [1, 1, np.inf]]], np.float32)
    truth = Segmentation.semantic(np.array([[0, 1, 1], [0, 1, 1]]), classes)
    data = Dataset("memory", classes, ("a",), lambda key: Sample.of(key, image, truth))
    void_there = Segmentation.semantic(np.array([[0, 1, -1], [0, 1, -1]]), classes)
    wrong_there = Segmentation.semantic(np.array([[0, 1, 0], [0, 1, 0]]), classes)
    for found in (void_there, wrong_there):
        written = Dataset("predicted", classes, ("a",), lambda key, found=found: Sample.of(key, image, found))
        for scores in (evaluate(lambda sample, found=found: found, data), measure(written, data, metrics=["confusion"])):
            assert scores.values["pixel accuracy"] == 1 and scores.matrix == ((2, 0, 0, 0), (0, 2, 0, 0), (0, 0, 0, 0))


def test_objects_that_lie_where_the_image_lacks_values_are_not_missed():
    classes = Classes.of(["cell"], is_thing=[True])
    image = np.ones((1, 6, 8), np.float32)
    image[0, :, 6:] = np.nan
    masks = np.zeros((2, 6, 8), bool)
    masks[0, :3, :3] = masks[1, :, 7] = True
    truth, found = (Segmentation.instances(these, [0] * len(these), classes=classes) for these in (masks, masks[:1]))
    data, written = (
        Dataset("memory", classes, ("a",), lambda key, what=what: Sample.of(key, image, what)) for what in (truth, found)
    )
    assert measure(written, data, metrics=["AP50", "PQ", "instance_accuracy"], resamples=0).values["PQ"] == 1


def test_equals_a_slow_twin(truths, guess):
    pairs = [(sample.truth.class_map(), guess(sample).class_map()) for sample in truths]
    truth = np.concatenate([one[one >= 0] for one, _ in pairs])
    prediction = np.concatenate([other[one >= 0] for one, other in pairs])
    ious = [((truth == k) & (prediction == k)).sum() / ((truth == k) | (prediction == k)).sum() for k in range(3)]
    scores = evaluate(guess, truths)
    assert [scores.values[f"IoU/{name}"] for name in ("sky", "road", "car")] == pytest.approx(ious)
    assert scores.values["mIoU"] == pytest.approx(np.mean(ious))
    assert scores.values["pixel accuracy"] == pytest.approx((truth == prediction).mean())
    first = Confusion(truths.classes)
    assert scores.per_image["s3"]["mIoU"] == first.score(first.count(guess(truths[3]), truths[3].truth))["mIoU"]


def test_law_perfect_is_one_and_order_does_not_matter(truths, guess):
    perfect = evaluate(lambda sample: sample.truth, truths)
    assert perfect.values["mIoU"] == 1 and perfect.intervals["mIoU"] == (1, 1)
    forward, backward = evaluate(guess, truths), evaluate(guess, truths.subset(truths.keys[::-1]))
    assert forward.values == backward.values and forward.matrix == backward.matrix
    assert evaluate(guess, truths).to_json() == forward.to_json()
    for name in ("mIoU", "pixel accuracy", "IoU/car"):
        low, high = forward.intervals[name]
        assert low < forward.values[name] < high


def test_each_image_is_shown_once_and_only_one_is_held(truths, guess):
    seen = []
    scores = evaluate(guess, truths, resamples=0, on_image=lambda sample, guess, own: seen.append((sample.key, own["mIoU"])))
    assert [key for key, _ in seen] == list(truths.keys) and dict(seen)["s2"] == scores.per_image["s2"]["mIoU"]
    assert np.isnan(scores.intervals["mIoU"]).all() and "No intervals were asked for" in scores.convention


@pytest.mark.parametrize("metrics", [["confusion"], ["confusion", "boundary", "mIoU"]])
@pytest.mark.parametrize("shares", [1, 2, 3, 20])
def test_shares_of_the_work_give_the_same_scores_to_the_last_bit(truths, guess, metrics, shares):
    """Also with more shares than images, of which some are empty, in whatever order they come."""
    tallies = [
        pickle.loads(pickle.dumps(count_predictions(guess, truths, metrics=metrics, keys=truths.keys[n::shares])))
        for n in range(shares)
    ]
    whole = evaluate(guess, truths, metrics=metrics, resamples=50)
    for given in (tallies, tallies[::-1]):
        assert Tally.merged(given, truths.keys).scores(50).to_json() == whole.to_json()


def test_shares_that_do_not_fit(truths, guess):
    one, rest = truths.keys[:1], truths.keys[1:]
    first, others = (count_predictions(guess, truths, keys=keys) for keys in (one, rest))
    for wrong, text in ([[first], f"'{rest[0]}'"], [[first, first, others], "once each"], [[others], "'s0'"]):
        with pytest.raises(UsageError, match=f"{text}.*give keys\\[n::shares\\] to the share n"):
            Tally.merged(wrong, truths.keys)
    with pytest.raises(UsageError, match="'s1' never or in vain"):
        Tally.merged([first, others], one)
    with pytest.raises(UsageError, match="memory has no sample 'x'"):
        count_predictions(guess, truths, keys=["x"])
    assert Tally.merged([others, first], truths.keys).scores(0).count == len(truths)


def test_the_next_sample_is_read_while_one_is_predicted(truths, guess):
    is_read = {key: threading.Event() for key in truths.keys}

    def load(key):
        is_read[key].set()
        return truths.load(key)

    def predict(sample):
        place = truths.keys.index(sample.key)
        for key in truths.keys[place + 1 : place + 3]:
            assert is_read[key].wait(10)  # though nobody asked for it yet
        assert not any(is_read[key].is_set() for key in truths.keys[place + 3 :])
        return guess(sample)

    evaluate(predict, replace(truths, load=load), resamples=0)


def test_an_image_that_cannot_be_read_is_named_after_those_before_it(truths, guess):
    seen = []

    def load(key):
        if key == "s2":
            raise UsageError("sample 's2' is damaged")
        return truths.load(key)

    with pytest.raises(UsageError, match="^sample 's2' is damaged$"):
        evaluate(guess, replace(truths, load=load), on_image=lambda sample, *_: seen.append(sample.key))
    assert seen == ["s0", "s1"]


def test_the_convention_warns_of_few_images(truths, guess):
    assert "With so few, 91 to 95 of 100" in evaluate(guess, truths).convention
    keys = tuple(f"{key}_{time}" for key in truths.keys for time in range(4))
    many = replace(truths, keys=keys, load=lambda key: replace(truths.load(key.partition("_")[0]), key=key))
    assert "With so few" not in evaluate(lambda sample: sample.truth, many).convention


def test_messages(truths, guess, classes):
    with pytest.raises(UsageError, match="memory holds no samples, there is nothing to measure"):
        evaluate(guess, truths.subset([]))
    with pytest.raises(UsageError, match="sample 's0' has no truth to compare with; add its mask"):
        evaluate(guess, replace(truths, load=lambda key: Sample.of(key, np.zeros((1, 2, 2)))))
    swapped = Classes.of(["sky", "car", "road"])
    with pytest.raises(UsageError, match="class 1 is 'car' there and 'road' here"):
        evaluate(lambda sample: Segmentation.semantic(sample.truth.class_map(), swapped), truths)
    with pytest.raises(UsageError, match="the model has 2 classes and memory has 3; class 2 is no class there and 'car' here"):
        evaluate(lambda sample: Segmentation.semantic(np.zeros((12, 16), int), Classes.of(["sky", "road"])), truths)

    def holey(sample):
        raise UsageError("the image holds NaN")

    with pytest.raises(UsageError, match="sample 's0': the image holds NaN"):
        evaluate(holey, truths)


def test_two_data_sets_are_measured_as_a_predictor_is(truths, guess):
    guesses = replace(truths, load=lambda key: replace(truths.load(key), truth=guess(truths.load(key))))
    scores = measure(guesses, truths, metrics=["confusion"])
    assert scores.values == evaluate(guess, truths).values and scores.intervals == evaluate(guess, truths).intervals


def square(top, left, **more):
    """An annotation or a result of COCO's: a square of 20 pixels."""
    corners = [left, top, left + 20, top, left + 20, top + 20, left, top + 20]
    box = {"bbox": [left, top, 20, 20]}
    return {"image_id": 1, "category_id": 7, "segmentation": [[float(x) for x in corners]], "area": 400, **box} | more


@pytest.fixture
def coco(tmp_path):
    """A truth of three squares in two images, and results that find two of them and a third that is none."""
    truth = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 100, "width": 90} for n in (1, 2)],
        "categories": [{"id": 7, "name": "cup"}],
        "annotations": [
            square(10, 10, id=1, iscrowd=0),
            square(50, 50, id=2, iscrowd=0),
            square(10, 10, id=3, iscrowd=0, image_id=2),
        ],
    }
    results = [square(10, 10, score=0.9), square(50, 52, score=0.8), square(60, 10, score=0.95, image_id=2)]
    for name, content in (("truth", truth), ("results", results)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_results_of_coco_are_measured_by_its_rules(coco):
    assert are_results(coco / "results.json") and not are_results(coco / "truth.json") and not are_results(coco)
    scores = measure(coco / "results.json", coco / "truth.json")
    assert scores.count == 2 and scores.values["AP50"] == pytest.approx((67 * 2 / 3) / 101)  # recalls up to 2 / 3
    assert set(scores.per_image) == {"1", "2"} and "COCO's rules" in scores.convention
    boxes = measure(coco / "results.json", coco / "truth.json", metrics=["box AP50"])
    assert boxes.values["box AP50"] == scores.values["AP50"]
    with pytest.raises(UsageError, match=r"is a list of detections; give the file of annotations .* perhaps .*truth.json"):
        tally_results(coco / "results.json", coco)
    with pytest.raises(UsageError, match="for which average precision is measured, not confusion; convert it to a data set"):
        tally_results(coco / "results.json", coco / "truth.json", ["mIoU"])


def test_groups_are_drawn_together(truths, guess):
    many = replace(truths, keys=tuple(f"{key}__{n}" for key in truths.keys for n in range(4)))
    many = replace(many, load=lambda key: replace(truths.load(key.partition("__")[0]), key=key))
    guesses = replace(many, load=lambda key: replace(many.load(key), truth=guess(truths.load(key.partition("__")[0]))))
    groups = tuple(tuple(key for key in many.keys if key.startswith(f"{one}__")) for one in truths.keys)
    alone, together = (tally_pairs(pair(guesses, many, given), ["mIoU"]).scores() for given in ((), groups))
    assert alone.values == together.values and "24 images" in alone.convention and "6 groups" in together.convention
    widths = [np.ptp(scores.intervals["mIoU"]) for scores in (alone, together)]
    assert widths[1] > 1.5 * widths[0]  # four copies of an image tell no more than one


def test_two_predictions_are_compared(truths, guess):
    sides = {
        "guess": replace(truths, load=lambda key: replace(truths.load(key), truth=guess(truths.load(key)))),
        "truth": truths,
    }
    first, second = (tally_pairs(pair(side, truths), ["mIoU", "pixel accuracy"]) for side in sides.values())
    rows = {row.score: row for row in tally_differences(first, second)}
    assert set(rows) == {"mIoU", "pixel accuracy"} and rows["mIoU"].second == 1
    assert rows["mIoU"].interval[0] > 0 and rows["mIoU"].p < 0.1 <= 2 * rows["mIoU"].p_holm
    assert all(row.p == 1 for row in tally_differences(first, first))
    other = tally_pairs(pair(truths.subset(truths.keys[:2]), truths.subset(truths.keys[:2])), ["mIoU", "pixel accuracy"])
    with pytest.raises(UsageError, match="for 6 and 2 images, which are not the same; give both for the same part"):
        tally_differences(first, other)


def test_without_a_word_on_metrics_overlaps_leave_out_what_they_forbid():
    cells = Classes.of(["cell"], is_thing=[True])
    masks = np.zeros((2, 6, 6), bool)
    masks[0, :4], masks[1, 3:] = True, True
    both = Segmentation.instances(masks, [0, 0], classes=cells)
    data = Dataset("cells", cells, ("a",), lambda key: Sample.of(key, np.zeros((0, 6, 6), np.uint8), both))
    scores = measure(data, data)
    assert scores.values["AP"] == 1 and "PQ" not in scores.values and scores.notes[0].startswith("PQ is left out, as segments")
    with pytest.raises(UsageError, match="sample 'a': segments of the prediction overlap at 6 pixels.*ask for other scores"):
        measure(data, data, metrics=["PQ"])


def test_annotations_that_became_no_segment_are_told(classes, truths):
    def less(data, **left_out):
        return replace(data, load=lambda key: replace(data.load(key), left_out=left_out))

    notes = measure(less(truths, unseen=3), less(truths, odd=1), metrics=["mIoU"]).notes
    assert notes[0].startswith("Predictions are left out, as they are unseen (6 images: 's0'")
    assert notes[1].startswith("Annotations of the truth are left out, as they are odd (6 images: 's0'")
    own = evaluate(lambda sample: sample.truth, less(truths, odd=1), metrics=["mIoU"]).notes
    assert own[0].startswith("Annotations of the truth are left out, as they are odd (6 images")


def test_remarks_on_images_become_notes(classes, truths):
    unmasked = replace(truths, load=lambda key: replace(truths.load(key), truth=None))
    notes = measure(unmasked, truths, metrics=["mIoU", "HD95"]).notes
    assert notes[0].startswith("Predictions without a mask count as missed (6 images: 's0', 's1', 's2', ...")
    assert notes[1].startswith("Where no pixel size is known, distances are in pixels (6 images: ")


def test_a_model_is_not_measured_on_videos_and_by_default_by_class(truths, guess):
    with pytest.raises(UsageError, match="davis_jf is of objects followed through a video.*use segwright metrics"):
        evaluate(guess, truths, metrics=["mIoU", "J&F"])
    assert evaluate(guess, truths, metrics=[]).values == evaluate(guess, truths).values


def test_names_in_one_text_and_wrong_resamples(truths):
    assert set(measure(truths, truths, metrics="mIoU, Dice").per_image["s0"]) == {"mIoU", "Dice"}
    with pytest.raises(SettingError, match="-1 resamples were asked for; give some, such as 1000, or 0 for no intervals"):
        measure(truths, truths, resamples=-1)


def test_results_without_an_entry_and_scores_of_lvis(coco):
    (coco / "empty.json").write_text("[]")
    assert measure(coco / "empty.json", coco / "truth.json").values["AP"] == 0  # masks, as the truth has them
    table = json.loads((coco / "truth.json").read_text())
    table["categories"][0]["frequency"] = "f"
    table["images"] = [image | {"neg_category_ids": [], "not_exhaustive_category_ids": []} for image in table["images"]]
    (coco / "lvis.json").write_text(json.dumps(table))
    asked = measure(coco / "results.json", coco / "lvis.json", metrics=["AP", "AP75"]).values
    assert [name for name in asked if "/" not in name] == ["AP", "AP75"]
    assert "AP rare" in measure(coco / "results.json", coco / "lvis.json").values
    with pytest.raises(UnknownNameError, match="LVIS has no score AR@1; it has AP, AP50"):
        measure(coco / "results.json", coco / "lvis.json", metrics=["AR@1"])


def test_of_few_images_an_end_that_says_nothing_is_left_out_and_it_is_said(classes):
    """Two images, one met well and one badly: no distance is longer than the diagonal, no share above 1."""
    truth = Segmentation.semantic(np.pad(np.ones((4, 4), np.int64), 3), classes)
    poor = Segmentation.semantic(np.pad(np.ones((1, 1), np.int64), ((9, 0), (9, 0))), classes)
    pairs = Dataset("memory", classes, ("a", "b"), lambda key: Sample.of(key, np.zeros((1, 10, 10)), truth))
    scores = evaluate(lambda sample: truth if sample.key == "a" else poor, pairs, metrics=["surface_distance", "confusion"])
    for name, (low, high) in scores.intervals.items():
        limit = 200**0.5 if name.partition("/")[0] in ("HD95", "HD", "ASSD") else 1
        assert not high > limit and not low < (-1 if name == "kappa" else 0), name
    assert any(np.isnan(low) != np.isnan(high) for low, high in scores.intervals.values())
    assert "Where one end alone is given, so few images tell no more on the other side" in scores.conventions["intervals"]
    perfect = evaluate(lambda sample: truth, pairs)
    assert "Where one end" not in perfect.conventions["intervals"]


def test_the_classes_of_objects_stay_where_no_score_needs_a_background():
    cell = Classes(("cell",), ((1, 1, 1),), (True,))
    masks = np.zeros((1, 4, 4), bool)
    masks[0, :2, :2] = True
    truth = Segmentation.instances(masks, [0], classes=cell)
    one = Dataset("memory", cell, ("a",), lambda key: Sample.of(key, np.zeros((1, 4, 4)), truth))
    seen = []

    def predict(sample: Sample) -> Segmentation:
        seen.append(sample.truth.classes.names)
        return Segmentation.instances(masks, [0], classes=sample.truth.classes)

    assert evaluate(predict, one, metrics=["AP50"]).values["AP50"] == 1
    filled = Segmentation.semantic((~masks[0] * -1) + 1, Classes(("background", "cell"), ((0, 0, 0), (1, 1, 1)), (False, True)))
    evaluate(lambda sample: seen.append(sample.truth.classes.names) or filled, one, metrics=["mIoU"])
    assert seen == [("cell",), ("background", "cell")]
