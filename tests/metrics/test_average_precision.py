import contextlib
import io
import json
import pickle
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pytest

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.metrics.average_precision import IOU_THRESHOLDS, AveragePrecision

NUCLEI = Path(__file__).parents[3] / "shared" / "data" / "nuclei"
CLASSES = Classes.of(["cat", "dog", "cow"], is_thing=[True] * 3)
NAMES = AveragePrecision.SCORES
SHAPE = (150, 180)  # room for large objects


def box(top, left, bottom, right, shape=SHAPE):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def objects(masks, class_ids, scores=None, crowd=()):
    """A segmentation of masks, those listed in `crowd` without a number."""
    given = Segmentation.instances(np.array(masks, bool).reshape(-1, *SHAPE), class_ids, scores=scores, classes=CLASSES)
    numbers = np.where(np.isin(np.arange(len(given)), crowd), 0, given.instance_ids).astype(np.int32)
    return Segmentation(given.planes, given.class_ids, numbers, given.scores, CLASSES)


def random_box(generator, near=None):
    """A box of any size, or one that differs a little."""
    if near is None:
        size = generator.choice([10, 40, 110])
        top, left = generator.integers(0, SHAPE[0] - size), generator.integers(0, SHAPE[1] - size)
        near = np.array([top, left, top + generator.integers(2, size + 1), left + generator.integers(2, size + 1)])
    else:
        near = near + generator.integers(-3, 4, 4) * max(1, (near[2] - near[0]) // 12)
    top, left, bottom, right = np.clip(near, 0, [*SHAPE, *SHAPE])
    return np.array([top, left, max(bottom, top + 1), max(right, left + 1)])


def random_pair(seed, *, ties=False, most=12):
    """A prediction and a truth with crowds, overlapping objects, missed and false ones, either of them perhaps empty."""
    generator = np.random.default_rng(seed)
    true = [random_box(generator) for _ in range(generator.integers(0, most))]
    classes = generator.integers(0, len(CLASSES) - 1, len(true))  # the last class has no truth
    crowd = np.flatnonzero(generator.random(len(true)) < 0.2)
    guesses, guessed = [], []
    for corners, class_id in zip(true, classes, strict=True):
        for _ in range(generator.integers(0, 4)):
            guesses.append(random_box(generator, corners))
            guessed.append(class_id if generator.random() < 0.9 else generator.integers(0, len(CLASSES)))
    guesses += [random_box(generator) for _ in range(generator.integers(0, 3))]
    guessed += list(generator.integers(0, len(CLASSES), len(guesses) - len(guessed)))
    scores = generator.integers(1, 4, len(guesses)) / 4 if ties else generator.random(len(guesses))
    return objects([box(*each) for each in guesses], guessed, scores), objects(
        [box(*each) for each in true], classes, crowd=crowd
    )


def coco_files(pairs, *, boxes=False):
    """The truth and the results of pairs, as pycocotools takes them."""
    mask = pytest.importorskip("pycocotools.mask")
    truth = {"images": [], "annotations": [], "categories": [{"id": k + 1, "name": n} for k, n in enumerate(CLASSES.names)]}
    results = []
    for number, (prediction, true) in enumerate(pairs):
        truth["images"].append({"id": number, "height": true.shape[0], "width": true.shape[1]})
        for given, entries in ((true, truth["annotations"]), (prediction, results)):
            edges = given.boxes_xyxy().astype(float)
            for n, each in enumerate(given.masks()):
                entry = {"id": len(entries) + 1, "image_id": number, "category_id": int(given.class_ids[n]) + 1}
                run_lengths = mask.encode(np.asfortranarray(each.astype(np.uint8)))
                entry["bbox"] = [*edges[n, :2], *(edges[n, 2:] - edges[n, :2])]
                entry |= {"area": int(each.sum()), "iscrowd": int(given.instance_ids[n] == 0), "score": float(given.scores[n])}
                if entries is results and not boxes:
                    del entry["bbox"]  # where there is one, it is taken for the area
                if not boxes:
                    entry["segmentation"] = run_lengths
                entries.append(entry)
    return truth, results


def official(truth, results, *, kind="segm", thresholds=IOU_THRESHOLDS, limits=(1, 10, 100)):
    """Scores by our names from pycocotools' tables, NaN for its -1."""
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = truth
        true.createIndex()
        evaluation = COCOeval(true, true.loadRes(results) if results else coco.COCO(), kind)
        evaluation.params.maxDets, evaluation.params.iouThrs = list(limits), np.array(thresholds)
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # (T, 101, K, A, M), (T, K, A, M)
    ranges = ("", " small", " medium", " large")
    tables = {f"AP{name}": precision[:, :, :, a, -1] for a, name in enumerate(ranges)}
    tables |= {f"AR{name}": recall[:, :, a, -1] for a, name in enumerate(ranges) if a}
    tables |= {f"AR@{limit}": recall[:, :, 0, m] for m, limit in enumerate(limits)}
    tables |= {f"AP{100 * share:.0f}": precision[np.isclose(thresholds, share)][:, :, :, 0, -1] for share in (0.5, 0.75)}
    tables |= {f"AP/{name}": precision[:, :, k, 0, -1] for k, name in enumerate(CLASSES.names)}
    return {name: table[table > -1].mean() if (table > -1).any() else np.nan for name, table in tables.items()}


def assert_equal(ours, theirs, tolerance=1e-12):
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=0, atol=tolerance, err_msg=name)


def total(metric, pairs):
    return reduce(add, [metric.count(*pair) for pair in pairs])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools(seed, ties):
    pairs = [random_pair(100 * seed + n, ties=ties) for n in range(10)]
    metric = AveragePrecision(CLASSES)
    scores = metric.score(total(metric, pairs))
    assert 0 < scores["AP"] < 1
    assert_equal(scores, official(*coco_files(pairs)))


@pytest.mark.parametrize("limits", [(1,), (2, 3), (1, 10, 500), (5, 7, 9, 300)])
@pytest.mark.parametrize("thresholds", [(0.5,), (0.75, 0.3, 1.0), tuple(np.linspace(0.05, 1, 64))])
def test_equals_pycocotools_at_any_thresholds_and_limits(thresholds, limits):
    pairs = [random_pair(900 + n) for n in range(6)]
    metric = AveragePrecision(CLASSES, iou_thresholds=thresholds, max_detections=limits)
    theirs = official(*coco_files(pairs), thresholds=thresholds, limits=limits)
    assert_equal(metric.score(total(metric, pairs)), theirs)


def test_equals_pycocotools_on_nuclei():
    if not NUCLEI.is_dir():
        pytest.skip("needs the real data in ../shared, which are not part of the repository")
    import cv2

    generator = np.random.default_rng(0)
    names = [image["file_name"] for image in json.loads((NUCLEI / "instances_val.json").read_text())["images"]][:8]
    classes = Classes.of(["cat"], is_thing=[True])
    pairs = []
    for name in names:
        labels = cv2.imread(str(NUCLEI / "val" / "masks" / Path(name).name), cv2.IMREAD_UNCHANGED)
        truth = Segmentation.panoptic(labels.astype(np.int32), np.zeros(labels.max(), int), np.arange(1, labels.max() + 1))
        moved = np.roll(labels, generator.integers(-2, 3, 2), (0, 1)).astype(np.int32)
        moved[np.isin(moved, generator.integers(1, labels.max() + 1, labels.max() // 6))] = 0  # some are missed
        scores = generator.integers(1, 50, labels.max()) / 50
        guess = Segmentation.panoptic(moved, np.zeros(labels.max(), int), np.arange(1, labels.max() + 1), scores=scores)
        pairs.append((guess, truth))
    metric = AveragePrecision(classes)
    theirs = {name: value for name, value in official(*coco_files(pairs)).items() if name not in ("AP/dog", "AP/cow")}
    assert_equal(metric.score(total(metric, pairs)), theirs)


def test_by_hand():
    """Two cats. The first guess has IoU 0.6 with one of them, the second finds nothing, the third is the other cat."""
    truth = objects([box(0, 0, 10, 10), box(20, 0, 30, 10)], [0, 0])
    prediction = objects([box(0, 0, 6, 10), box(50, 50, 60, 60), box(20, 0, 30, 10)], [0, 0, 0], [0.9, 0.8, 0.7])
    scores = AveragePrecision(CLASSES).score(AveragePrecision(CLASSES).count(prediction, truth))
    low = (51 * 1 + 50 * 2 / 3) / 101  # up to IoU 0.6: precision 1 at recalls 0 to 0.5, then two of three
    high = 51 / 3 / 101  # above: only the third is right, half of the cats
    assert scores["AP50"] == pytest.approx(low, abs=1e-15)
    assert scores["AP75"] == pytest.approx(high, abs=1e-15)
    assert scores["AP"] == scores["AP/cat"] == pytest.approx((3 * low + 7 * high) / 10, abs=1e-15)
    assert scores["AP small"] == scores["AP"] and np.isnan(scores["AP large"]) and np.isnan(scores["AP/dog"])
    assert scores["AR@1"] == pytest.approx(3 * 0.5 / 10) and scores["AR@10"] == pytest.approx((3 * 1 + 7 * 0.5) / 10)


def test_no_prediction_is_zero_and_no_truth_unknown():
    nothing, cat = objects([], []), objects([box(0, 0, 10, 10)], [0])
    metric = AveragePrecision(CLASSES)
    assert metric.score(metric.count(nothing, cat))["AP"] == 0 == metric.score(metric.count(nothing, cat))["AR@100"]
    assert all(np.isnan(value) for value in metric.score(metric.count(cat, nothing)).values())
    assert all(np.isnan(value) for value in metric.score(metric.count(nothing, nothing)).values())


def test_an_object_without_a_pixel_is_found_by_nothing():
    truth = objects([box(0, 0, 10, 10)], [0])
    prediction = objects([box(0, 0, 0, 0), box(0, 0, 10, 10)], [0, 0], [0.9, 0.8])
    metric = AveragePrecision(CLASSES)
    assert metric.score(metric.count(prediction, truth))["AP"] == pytest.approx(0.5)


def test_stuff_is_left_out():
    classes = Classes.of(["cat", "sky", "cow"], is_thing=[True, False, True])
    labels = np.zeros(SHAPE, np.int32)
    labels[:50], labels[60:70, :10] = 1, 2
    truth = Segmentation.panoptic(labels, [1, 0], [0, 1], classes=classes)
    metric = AveragePrecision(classes)
    scores = metric.score(metric.count(truth, truth))
    assert scores["AP"] == 1 and np.isnan(scores["AP/sky"])


def test_what_lies_in_void_is_neither_right_nor_wrong():
    labels = np.zeros(SHAPE, np.int32)
    labels[:10, :10], labels[50:, :] = 1, VOID
    truth = Segmentation.panoptic(labels, [0], [1], classes=CLASSES)
    metric = AveragePrecision(CLASSES, max_detections=(1,))
    inside = objects([box(60, 0, 90, 90), box(0, 0, 10, 10)], [0, 0], [0.9, 0.8])
    assert metric.score(metric.count(inside, truth))["AP"] == 1  # not even one of the detections that count
    labels[45:50, :10] = 1
    truth = Segmentation.panoptic(labels, [0], [1], classes=CLASSES)
    both = box(0, 0, 10, 10) | box(45, 0, 70, 10)
    assert metric.score(metric.count(objects([both], [0]), truth))["AP"] == 1


def test_a_volume_is_scored_as_an_image():
    prediction, truth = random_pair(3)
    deep = [Segmentation(s.planes[:, :, None], s.class_ids, s.instance_ids, s.scores, s.classes) for s in (prediction, truth)]
    metric = AveragePrecision(CLASSES)
    assert_equal(metric.score(metric.count(*deep)), metric.score(metric.count(prediction, truth)), 0)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_sums_are_those_of_repeated_images(ties):
    generator = np.random.default_rng(5)
    metric = AveragePrecision(CLASSES)
    states = [metric.count(*random_pair(70 + n, ties=ties, most=25)) for n in range(7)]
    weights = generator.multinomial(7, np.full(7, 1 / 7), size=40)
    weights[0], weights[1] = 0, 1
    weights[2, 3] = 9
    many = metric.score(type(states[0]).weighted(states, weights))
    for row, counts in enumerate(weights[1:], 1):
        repeated = [state for state, count in zip(states, counts, strict=True) for _ in range(count)]
        assert_equal({name: values[row] for name, values in many.items()}, metric.score(reduce(add, repeated)), 1e-15)
    assert all(np.isnan(values[0]) for values in many.values())


def test_weighted_sums_add_up():
    metric = AveragePrecision(CLASSES)
    states = [metric.count(*random_pair(n)) for n in range(4)]
    weights = np.array([[1, 2, 0, 3], [0, 1, 1, 1]])
    kind = type(states[0])
    halves = kind.weighted(states[:2], weights[:, :2]) + kind.weighted([states[2] + states[3]], np.array([[1], [1]]))
    together = kind.weighted(states, np.array([[1, 2, 1, 1], [0, 1, 1, 1]]))
    assert_equal(metric.score(halves), metric.score(together), 0)
    mixed = kind.weighted(states[:1], weights[:, :1]) + states[1]
    assert_equal(metric.score(mixed), metric.score(kind.weighted(states[:2], np.array([[1, 1], [0, 1]]))), 0)


def test_the_order_of_images_matters_between_equal_scores_alone():
    metric = AveragePrecision(CLASSES)
    states = [metric.count(*random_pair(n)) for n in range(5)]
    assert_equal(metric.score(reduce(add, states)), metric.score(reduce(add, states[::-1])), 0)
    assert_equal(metric.score(pickle.loads(pickle.dumps(reduce(add, states)))), metric.score(reduce(add, states)), 0)


def test_messages():
    prediction, truth = random_pair(2)
    metric = AveragePrecision(CLASSES)
    with pytest.raises(SettingError, match="an IoU threshold is 0.0; give shares above 0 and up to 1"):
        AveragePrecision(CLASSES, iou_thresholds=(0.0,))
    with pytest.raises(SettingError, match="65 IoU thresholds were given; between 1 and 64"):
        AveragePrecision(CLASSES, iou_thresholds=(0.5,) * 65)
    with pytest.raises(SettingError, match=r"max_detections are \(10, 1\); give rising"):
        AveragePrecision(CLASSES, max_detections=(10, 1))
    with pytest.raises(ShapeError, match="predict at the size"):
        metric.count(objects([], []), Segmentation.panoptic(np.zeros((4, 4), np.int32), [], classes=CLASSES))
    with pytest.raises(UsageError, match="the truth holds class 1 .dog., the metric knows 1 classes"):
        AveragePrecision(Classes.of(["cat"])).count(objects([], []), objects([box(0, 0, 5, 5)], [1]))
    with pytest.raises(UsageError, match="the score of detection 1 is NaN, which has no rank; leave it out"):
        metric.count(objects([box(0, 0, 5, 5), box(8, 8, 9, 9)], [0, 0], [0.5, np.nan]), truth)
    assert "10 thresholds from 0.5 to 0.95" in metric.convention and "at most 100 detections" in metric.convention
    assert "of masks at 0.5 of" in AveragePrecision(CLASSES, iou_thresholds=(0.5,)).convention
