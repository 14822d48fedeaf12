import importlib.util
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segwright.core import Classes, Segmentation
from segwright.core.errors import ShapeError, UsageError
from segwright.evaluation.evaluate import measure
from segwright.formats import coco_panoptic
from segwright.metrics.accumulators import Sums
from segwright.metrics.panoptic_quality import PanopticQuality, disjoint

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics_panoptic_quality.json"  # says which commit of panopticapi made it
CLASSES = Classes.of(["sky", "car"], is_thing=[False, True])


def panoptic(rows, class_ids, instance_ids):
    return Segmentation.panoptic(np.array(rows), class_ids, instance_ids, classes=CLASSES)


def counts(prediction, truth):
    return PanopticQuality(CLASSES).count(prediction, truth).values


# By hand

TRUTH = panoptic([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, -1, -1]], [0, 1, 1], [0, 1, 2])


def test_by_hand():
    guess = panoptic([[1, 1, 1, 1], [2, 2, 2, 0], [4, 4, 4, 4]], [0, 1, 1, 1], [0, 1, 2, 3])
    np.testing.assert_array_equal(counts(guess, TRUTH), [[1, 1, 0, 0], [0.75 + 1, 2, 0, 0]])
    scores = PanopticQuality(CLASSES).score(Sums(np.array([[1, 1, 0, 0], [0.75, 1, 1, 2]])))
    assert scores["PQ/sky"] == scores["PQ stuff"] == 1
    assert scores["PQ/car"] == scores["PQ things"] == 0.75 / 2.5
    assert (scores["SQ/car"], scores["RQ/car"]) == (0.75, 1 / 2.5)
    assert scores["PQ"] == (1 + 0.75 / 2.5) / 2


def test_an_iou_of_one_half_is_no_match():
    guess = panoptic([[1, 1, 1, 1], [2, 2, 0, 0], [3, 3, 0, 0]], [0, 1, 1], [0, 1, 2])
    np.testing.assert_array_equal(counts(guess, TRUTH), [[1, 1, 0, 0], [1, 1, 1, 1]])


def test_another_class_is_no_match():
    guess = panoptic([[1, 1, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]], [1, 0], [1, 0])
    np.testing.assert_array_equal(counts(guess, TRUTH), [[0, 0, 1, 1], [0, 0, 1, 2]])


def test_a_missing_prediction_misses_everything():
    guess = panoptic(np.zeros((3, 4), int), [], [])
    np.testing.assert_array_equal(counts(guess, TRUTH), [[0, 0, 0, 1], [0, 0, 0, 2]])


def test_a_segment_in_void_or_in_a_crowd_of_its_class_is_not_false():
    truth = panoptic([[1, 1, 1, 1, 2, 2, -1, -1]], [0, 1], [0, 0])  # the second is a crowd
    for rows, expected in (
        ([[1, 1, 1, 1, 2, 2, 0, 0]], 0),  # all in the crowd
        ([[1, 1, 1, 2, 2, 0, 0, 0]], 1),  # one half in the crowd
        ([[1, 1, 1, 2, 2, 2, 0, 0]], 0),
        ([[1, 1, 1, 2, 2, 2, 2, 2]], 0),  # void and crowd together
        ([[1, 1, 2, 2, 0, 2, 0, 0]], 1),
    ):
        assert counts(panoptic(rows, [0, 1], [0, 1]), truth)[1].tolist() == [0, 0, expected, 0]
    sky = counts(panoptic([[0, 0, 0, 0, 1, 1, 0, 0]], [0], [0]), truth)
    assert sky[0].tolist() == [0, 0, 1, 1]  # a crowd of another class excuses nothing


def test_all_crowds_of_a_class_excuse():
    truth = panoptic([[1, 2, 3, 3, 3]], [1, 1, 0], [0, 0, 0])
    assert counts(panoptic([[1, 1, 1, 2, 2]], [1, 0], [1, 0]), truth)[1].tolist() == [0, 0, 0, 0]


def test_void_does_not_make_a_union_larger():
    truth = panoptic([[1, 1, -1, -1, -1]], [1], [1])
    assert counts(panoptic([[0, 1, 1, 1, 1]], [1], [1]), truth)[1].tolist() == [0, 0, 0, 1]  # 1 of 2: no match, but excused
    assert counts(panoptic([[1, 1, 1, 1, 1]], [1], [1]), truth)[1].tolist() == [1, 1, 0, 0]


def test_stuff_of_one_class_and_an_object_of_one_number_are_one_segment():
    truth = panoptic([[1, 1, 2, 2, 3, 4]], [0, 0, 1, 1], [0, 0, 5, 5])
    guess = panoptic([[2, 2, 2, 2, 1, 1]], [1, 0], [1, 0])
    np.testing.assert_array_equal(counts(guess, truth), [[1, 1, 0, 0], [1, 1, 0, 0]])


def test_predicted_objects_without_a_number_are_each_their_own():
    truth = panoptic([[1, 1, 2, 2]], [1, 1], [1, 2])
    assert counts(panoptic([[1, 1, 2, 2]], [1, 1], [0, 0]), truth)[1].tolist() == [2, 2, 0, 0]


def test_void_and_nothing_at_all_are_unknown():
    void = panoptic(np.full((2, 3), -1), [], [])
    for given in (void, panoptic(np.zeros((2, 3), int), [], [])):
        scores = PanopticQuality(CLASSES).score(PanopticQuality(CLASSES).count(given, void))
        assert all(np.isnan(value) for value in scores.values())


def test_segments_without_a_pixel_do_not_count():
    truth = panoptic([[1, 1]], [0, 1, 1], [0, 1, 2])
    assert counts(truth, truth).tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]


def test_a_volume_is_counted_like_an_image():
    truth, guess = [[1, 1, 2, 2]], [[1, 1, 1, 2]]
    flat = counts(panoptic(guess, [0, 1], [0, 1]), panoptic(truth, [0, 1], [0, 1]))
    deep = counts(panoptic([guess], [0, 1], [0, 1]), panoptic([truth], [0, 1], [0, 1]))
    np.testing.assert_array_equal(flat, deep)


# Equal to panopticapi


def given_segments(ids, segments, classes, categories):
    """Our segmentation of COCO's: 0 is void, stuff has no number, neither have crowds."""
    ids, known = np.array(ids), [each["id"] for each in segments]
    places = np.select([ids == number for number in known], range(1, len(known) + 1), -1) if known else np.full(ids.shape, -1)
    class_ids = [categories.index(each["category_id"]) for each in segments]
    numbers = [
        index * int(classes.is_thing[class_id] and not each["iscrowd"])
        for index, (each, class_id) in enumerate(zip(segments, class_ids, strict=True), start=1)
    ]
    return Segmentation.panoptic(places, class_ids, numbers, classes=classes)


@pytest.mark.parametrize("kind", ["noisy", "perturbed"])
def test_equals_panopticapi(kind):
    golden = json.loads(GOLDEN.read_text())
    categories = [each["id"] for each in golden["categories"]]
    classes = Classes.of(map(str, categories), is_thing=[bool(each["isthing"]) for each in golden["categories"]])
    metric, total = PanopticQuality(classes), Sums(np.zeros((len(classes), 4)))
    for image in golden["sets"][kind]["images"]:
        truth = given_segments(image["truth"], image["truth_segments"], classes, categories)
        prediction = given_segments(image["prediction"], image["prediction_segments"], classes, categories)
        total += metric.count(prediction, truth)
    results, scores = golden["sets"][kind]["results"], metric.score(total)
    for k, category in enumerate(categories):
        expected = results["per_class"][str(category)]
        np.testing.assert_allclose(total.values[k], [expected[each] for each in ("iou", "tp", "fp", "fn")], rtol=0, atol=1e-12)
        for name in ("PQ", "SQ", "RQ"):
            if total.values[k, 1:].any():  # an absent class is 0 there and unknown here
                assert scores[f"{name}/{category}"] == pytest.approx(expected[name.lower()], abs=1e-12)
    for group, expected in (("", results["All"]), (" things", results["Things"]), (" stuff", results["Stuff"])):
        for name in ("PQ", "SQ", "RQ"):
            assert scores[name + group] == pytest.approx(expected[name.lower()], abs=1e-12)


def perturbed(labels, count):
    """Numbers (H, W) of a prediction made of a truth's 0..count: moved, each fifth segment void, each seventh in the next."""
    moved = np.roll(labels, (5, -7), axis=(0, 1))
    moved[(moved % 5 == 0) | (moved > count)] = 0
    return np.where(moved % 7 == 0, np.minimum(moved + 1, count) * (moved > 0), moved)


def test_equals_panopticapi_on_photographs(shared_data):
    """The scores that panopticapi gives to predictions of `perturbed`, whose files hold the number of a segment as its id."""
    dataset = coco_panoptic.read(shared_data / "coco_panoptic" / "panoptic_examples.json")
    golden = json.loads(GOLDEN.with_name("metrics_panoptic_photographs.json").read_text())
    metric, total = PanopticQuality(dataset.classes), Sums(np.zeros((len(dataset.classes), 4)))
    for sample in dataset:
        truth = sample.truth
        guess = perturbed(np.maximum(truth.planes[0], 0), len(truth))
        total += metric.count(Segmentation.panoptic(guess, truth.class_ids, truth.instance_ids, classes=truth.classes), truth)
    expected = np.zeros_like(total.values)
    for name, values in golden["iou_tp_fp_fn"].items():
        expected[dataset.classes.names.index(name)] = values
    np.testing.assert_allclose(total.values, expected, rtol=0, atol=1e-12)
    for name, value in golden["scores"].items():
        assert metric.score(total)[name] == pytest.approx(value, abs=1e-12)


def made_files(folder):
    """The JSON files of truths and predictions that panopticapi's own program was run on, made once more."""
    spec = importlib.util.spec_from_file_location("make_metrics", GOLDEN.with_name("make_metrics.py"))
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    golden = json.loads(GOLDEN.with_name("metrics_panoptic_files.json").read_text())
    return golden, *maker.panoptic_file_pair(golden, folder)


def test_panopticapi_on_our_files_equals_ours(tmp_path):
    golden, truth, found = made_files(tmp_path)
    for name_of_truth, name_of_found in ((truth, found), (tmp_path / "truth", tmp_path / "found")):
        scores = measure(name_of_found, name_of_truth, metrics=["panoptic_quality"], resamples=0).values
        for group, expected in zip(("", " things", " stuff"), ("All", "Things", "Stuff"), strict=True):
            for title in ("PQ", "SQ", "RQ"):
                assert scores[title + group] == pytest.approx(golden["results"][expected][title.lower()], abs=1e-12)
        for k, number in enumerate(golden["category_ids"]):
            assert scores[f"PQ/class_{k}"] == pytest.approx(golden["results"]["per_class"][str(number)]["pq"], abs=1e-12)


def test_our_files_are_as_panopticapi_wants_them(tmp_path):
    """Each image has a prediction under its number, and PNG and JSON name the same segments, of known categories."""
    golden, *files = made_files(tmp_path)
    truth, found = (json.loads(file.read_text()) for file in files)
    assert {each["image_id"] for each in truth["annotations"]} == {each["image_id"] for each in golden["images"]}
    assert {each["image_id"] for each in found["annotations"]} == {each["image_id"] for each in golden["images"]}
    for content, file in ((truth, files[0]), (found, files[1])):
        assert {each["id"] for each in content["categories"]} == {*golden["category_ids"]}
        for annotation in content["annotations"]:
            colors = np.array(Image.open(file.with_suffix("") / annotation["file_name"])).astype(int)
            numbers, areas = np.unique(colors @ [1, 256, 65536], return_counts=True)
            counted = {int(number): int(area) for number, area in zip(numbers, areas, strict=True) if number}
            assert counted == {each["id"]: each["area"] for each in annotation["segments_info"]}
            kinds = [(each["category_id"], each["iscrowd"]) for each in annotation["segments_info"]]
            is_stuff = {each["id"] for each in content["categories"] if not each["isthing"]}
            single = [kind for kind in kinds if kind[0] in is_stuff or kind[1]]
            assert len({*single}) == len(single)  # stuff of one class is one segment, and so are its crowds


# By a slow twin, written from the paper


def slow_twin(prediction, truth, num_classes):
    def segments(given, is_truth):
        found = defaultdict(lambda: np.zeros(given.shape, bool))
        for index, (class_id, number) in enumerate(zip(given.class_ids, given.instance_ids, strict=True)):
            is_loose = not is_truth and number == 0 and CLASSES.is_thing[class_id]
            found[(class_id, f"loose {index}" if is_loose else number)] |= given.planes[0] == index + 1
        return {key: mask for key, mask in found.items() if mask.any()}

    sums, void = np.zeros((num_classes, 4)), truth.planes[0] == -1
    true, predicted = segments(truth, True), segments(prediction, False)
    crowds = {key: mask for key, mask in true.items() if CLASSES.is_thing[key[0]] and key[1] == 0}
    real = {key: mask for key, mask in true.items() if key not in crowds}
    missed, false = set(real), set(predicted)
    for p, guess in predicted.items():
        for t, mask in real.items():
            iou = (guess & mask).sum() / ((guess & ~void) | mask).sum()
            if iou > 0.5 and p[0] == t[0]:
                sums[p[0], :2] += iou, 1
                missed.remove(t)
                false.remove(p)
    for key in missed:
        sums[key[0], 3] += 1
    for key in false:
        excused = void | np.any([np.zeros_like(void), *(mask for t, mask in crowds.items() if t[0] == key[0])], axis=0)
        sums[key[0], 2] += (predicted[key] & excused).sum() / predicted[key].sum() <= 0.5
    return sums


@pytest.mark.parametrize("seed", range(30))
def test_equals_a_slow_twin(seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-1, 7, (4, 5)).repeat(3, 0).repeat(3, 1)
    class_ids, numbers = rng.integers(0, 2, 6), rng.integers(0, 4, 6)
    truth = panoptic(coarse, class_ids, numbers * (class_ids == 1))
    moved = np.where(rng.random(coarse.shape) < 0.2, rng.integers(-1, 7, coarse.shape), np.roll(coarse, 1, axis=1))
    guess_classes = np.where(rng.random(6) < 0.3, 1 - class_ids, class_ids)
    guess = panoptic(moved, guess_classes, numbers * (guess_classes == 1))
    np.testing.assert_allclose(counts(guess, truth), slow_twin(guess, truth, 2), rtol=0, atol=1e-12)


# By laws


@pytest.mark.parametrize("seed", range(5))
def test_quality_is_that_of_matches_times_that_of_finding(seed):
    sums = np.random.default_rng(seed).integers(0, 5, (3, 2, 4)) * [0.7, 1, 1, 1]
    sums[..., 0] = sums[..., 1] * 0.8  # a class without a match has no IoU
    scores = PanopticQuality(CLASSES).score(Sums(sums))
    assert scores["PQ"].shape == (3,)
    for name in CLASSES.names:
        np.testing.assert_allclose(scores[f"PQ/{name}"], scores[f"SQ/{name}"] * scores[f"RQ/{name}"])


def test_the_order_of_segments_does_not_matter():
    renumbered = panoptic([[3, 3, 3, 3], [1, 1, 1, 1], [2, 2, -1, -1]], [1, 1, 0], [8, 9, 0])
    np.testing.assert_array_equal(counts(TRUTH, TRUTH), counts(renumbered, TRUTH))


# By messages


def test_overlaps_are_refused_and_the_remedy_helps():
    masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 1]]], bool)
    both = Segmentation.instances(masks, [1, 1], scores=[0.9, 0.5], classes=CLASSES)
    truth = panoptic([[1, 1, 2, 2]], [1, 1], [1, 2])
    with pytest.raises(UsageError, match=r"prediction overlap at 1 pixels.*panoptic_quality\.disjoint"):
        counts(both, truth)
    with pytest.raises(UsageError, match="of the truth overlap"):
        counts(truth, both)
    assert counts(disjoint(both), truth)[1].tolist() == [2, 2, 0, 0]
    equal = Segmentation.instances(masks, [1, 1], classes=CLASSES)
    np.testing.assert_array_equal(disjoint(equal).planes, [[[1, 2, 2, 2]]])
    in_void = replace(truth, planes=np.array([[[-1, 1, 2, 2]], [[1, 0, 0, 0]]], np.int32))
    with pytest.raises(UsageError, match="of the truth overlap at 1 pixels"):
        counts(truth, in_void)
    np.testing.assert_array_equal(disjoint(in_void).planes, [[[-1, 1, 2, 2]]])


def test_several_planes_without_overlap_are_fine():
    flat = panoptic([[1, 2]], [1, 1], [1, 2])
    deep = replace(flat, planes=np.array([[[1, 0]], [[0, 2]]], np.int32))
    assert counts(deep, flat)[1].tolist() == [2, 2, 0, 0]


def test_other_classes_and_sizes_are_refused():
    with pytest.raises(UsageError, match=r"prediction holds class 1 \(car\), the metric knows 1 classes"):
        PanopticQuality(Classes.of(["sky"])).count(TRUTH, TRUTH)
    with pytest.raises(ShapeError, match="the prediction is 1 x 1 and the truth 3 x 4"):
        counts(panoptic([[1]], [0], [0]), TRUTH)


def test_background_is_in_no_mean():
    classes = Classes.of(["background", "cell"], is_thing=[False, True])
    truth = Segmentation.panoptic(np.array([[1, 1, 2]]), [0, 1], [0, 1], classes=classes)
    guess = Segmentation.panoptic(np.array([[0, 0, 1]]), [1], [1], classes=classes)  # nobody drew the background
    scores = PanopticQuality(classes).score(PanopticQuality(classes).count(guess, truth))
    assert scores["PQ"] == 1 and scores["PQ/background"] == 0 and np.isnan(scores["PQ stuff"])
