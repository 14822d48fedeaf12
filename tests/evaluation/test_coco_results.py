import contextlib
import copy
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from segwright.codecs import rle
from segwright.core.errors import FormatError, SettingError, UsageError
from segwright.evaluation.coco_results import coco_results, lvis_results
from segwright.metrics.matching import Matches

NUCLEI = Path(__file__).parents[3] / "shared" / "data" / "nuclei"
SHAPE = (120, 160)
IDS = (7, 3, 12)  # of categories


def ellipse(generator, near=None):
    """A mask of any size and place, or one that differs a little."""
    centre, radius = near if near is not None else (generator.random(2) * SHAPE, generator.choice([4, 14, 45], 2))
    if near is not None:
        centre, radius = centre + generator.normal(0, 0.1, 2) * radius, radius * (1 + generator.normal(0, 0.1, 2))
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return ((rows - centre[0]) / radius[0]) ** 2 + ((columns - centre[1]) / radius[1]) ** 2 <= 1, (centre, radius)


def entry(mask, image, category, *, form="text", **more):
    counts = rle.encode(mask)
    given = {"size": list(SHAPE), "counts": rle.to_text(counts) if form == "text" else counts.tolist()}
    x, y, right, bottom = rle.box_xyxy(counts, SHAPE)
    if form == "polygon":
        given = [[x, y, right, y, right, bottom, x, bottom + 0.4]]
    box = [float(x), float(y), float(right - x), float(bottom - y)]
    return {"image_id": image, "category_id": category, "segmentation": given, "bbox": box, "area": int(mask.sum()), **more}


def random_files(seed, *, images=8, ties=False, form="text", crowds=0.2):
    """A truth and results in COCO's form, some images empty, ids in no order."""
    generator = np.random.default_rng(seed)
    truth = {
        "images": [{"id": int(n), "height": SHAPE[0], "width": SHAPE[1]} for n in generator.permutation(images) + 5],
        "categories": [{"id": n, "name": f"class {n}"} for n in IDS],
        "annotations": [],
    }
    results = []
    for image in truth["images"]:
        for _ in range(generator.integers(0, 8)):
            mask, shape = ellipse(generator)
            category = int(generator.choice(IDS[:2]))
            area = float(mask.sum() * generator.choice([1, 0.9, 2]))  # files say what they like
            more = {"iscrowd": int(generator.random() < crowds), "area": area, "id": len(truth["annotations"]) + 1}
            truth["annotations"].append(entry(mask, image["id"], category, form=form, **more))
            for _ in range(generator.integers(0, 4)):
                guess = ellipse(generator, shape)[0]
                score = generator.integers(1, 5) / 5 if ties else generator.random()
                category = category if generator.random() < 0.9 else int(generator.choice(IDS))
                results.append(entry(guess, image["id"], category, score=float(score)))
    generator.shuffle(truth["annotations"])
    generator.shuffle(results)
    return truth, results


def without(results, name):
    return [{key: value for key, value in each.items() if key != name} for each in results]


def official(truth, results, kind="segm", limits=(1, 10, 100)):
    """The 12 scores and AP per class of pycocotools, NaN for -1."""
    coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = copy.deepcopy(truth)
        true.createIndex()
        evaluation = COCOeval(true, true.loadRes(copy.deepcopy(results)), kind)
        evaluation.params.maxDets = list(limits)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = [table[table > -1].mean() if (table > -1).any() else -1 for table in np.moveaxis(precision, 2, 0)]
    return [np.nan if value == -1 else value for value in [*evaluation.stats[:12], *per_class]]


def ours(truth, results, **settings):
    return list(coco_results(truth, results, **settings).scores().values())


@pytest.mark.parametrize("form", ["text", "list", "polygon"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("is_box", [False, True])
def test_equals_pycocotools(is_box, ties, form):
    for seed in range(3):
        truth, results = random_files(seed, ties=ties, form=form)
        theirs = official(truth, results, "bbox" if is_box else "segm")
        np.testing.assert_allclose(ours(truth, results, is_box=is_box), theirs, rtol=0, atol=1e-12)
        assert 0 < theirs[0] < 1


@pytest.mark.parametrize("is_box", [False, True])
def test_equals_pycocotools_where_results_have_no_boxes(is_box):
    """Only then is the area of a result that of its mask."""
    truth, results = random_files(11)
    results = without(results, "bbox")
    theirs = official(truth, results, "bbox" if is_box else "segm")
    np.testing.assert_allclose(ours(truth, results, is_box=is_box), theirs, rtol=0, atol=1e-12)


def test_equals_pycocotools_at_boxes_alone():
    truth, results = random_files(12)
    theirs = official(truth, without(results, "segmentation"), "bbox")
    np.testing.assert_allclose(ours(truth, without(results, "segmentation"), is_box=True), theirs, rtol=0, atol=1e-12)


def test_equals_pycocotools_at_other_limits():
    truth, results = random_files(13)
    theirs = official(truth, results, limits=(1, 2, 100))
    np.testing.assert_allclose(ours(truth, results, max_detections=(1, 2, 100)), theirs, rtol=0, atol=1e-12)


def test_equals_pycocotools_on_nuclei(tmp_path):
    if not NUCLEI.is_dir():
        pytest.skip("needs the real data in ../shared, which are not part of the repository")
    truth = json.loads((NUCLEI / "instances_val.json").read_text())
    truth["images"] = truth["images"][:10]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [each for each in truth["annotations"] if each["image_id"] in kept]
    generator, results = np.random.default_rng(0), []
    for each in truth["annotations"]:
        mask = rle.decode(rle.from_text(each["segmentation"]["counts"]), each["segmentation"]["size"])
        guess = np.roll(mask, generator.integers(-2, 3, 2), (0, 1))
        if generator.random() < 0.8:
            given = {"size": each["segmentation"]["size"], "counts": rle.to_text(rle.encode(guess))}
            score = float(generator.integers(1, 30)) / 30
            results.append({"image_id": each["image_id"], "category_id": 1, "segmentation": given, "score": score})
    theirs = official(truth, results, limits=(1, 10, 500))
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    scores = ours(tmp_path / "truth.json", str(tmp_path / "results.json"), max_detections=(1, 10, 500))
    np.testing.assert_allclose(scores[1:], theirs[1:], rtol=0, atol=1e-12)
    assert np.isnan(theirs[0]) and scores[0] == pytest.approx(theirs[12], abs=1e-12)  # theirs asks for 100 detections


def test_masks_of_images_add_up():
    truth, results = random_files(14, ties=True)
    found = coco_results(truth, results)
    assert found.keys == tuple(str(n) for n in range(5, 13)) and len(found.states) == 8
    whole = found.metric.score(Matches.weighted(found.states, np.array([[1] * 8, [0, 2, 0, 1, 1, 3, 0, 1]])))
    assert {name: values[0] for name, values in whole.items()} == pytest.approx(found.scores(), abs=1e-12, nan_ok=True)
    repeated, number = {"images": [], "annotations": [], "categories": truth["categories"]}, 0
    again = []
    for image, count in zip(sorted(truth["images"], key=lambda each: each["id"]), [0, 2, 0, 1, 1, 3, 0, 1], strict=True):
        for _ in range(count):
            number += 1
            repeated["images"].append(image | {"id": number})
            for given, kept in ((truth["annotations"], repeated["annotations"]), (results, again)):
                kept += [each | {"image_id": number} for each in given if each["image_id"] == image["id"]]
    for count, each in enumerate(repeated["annotations"], 1):
        each["id"] = count
    np.testing.assert_allclose([values[1] for values in whole.values()], official(repeated, again), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["text", "polygon"])
def test_turns_change_nothing(monkeypatch, form):
    truth, results = random_files(5, form=form)
    truth["images"] = [{**image, "id": n} for image, n in zip(truth["images"], (8, 11, 7, 12, 5, 9, 6, 10), strict=True)]
    truth["images"] += [{"id": n, "height": 3, "width": 3} for n in (1, 2, 40)]  # without objects
    whole = coco_results(truth, results)
    for together in (1, 20):
        monkeypatch.setattr("segwright.evaluation.coco_results.TOGETHER", together)
        parts = coco_results(truth, results)
        assert len(parts.states) == len(parts.keys) == 11
        for one, other in zip(whole.states, parts.states, strict=True):
            for name, values in vars(one.images[0]).items():
                np.testing.assert_array_equal(getattr(other.images[0], name), values)


def test_an_annotation_may_have_id_0():
    truth, results = random_files(15)
    expected = coco_results(truth, results).scores()
    for number, each in enumerate(truth["annotations"]):
        each["id"] = number
    assert coco_results(truth, results).scores() == pytest.approx(expected, nan_ok=True)


def test_what_is_missing_has_a_default(caplog):
    truth, results = random_files(16, crowds=0)
    for each in truth["annotations"]:
        each["area"] = rle.area(rle.from_text(each["segmentation"]["counts"]))
    expected = coco_results(truth, results).scores()
    for each in truth["annotations"]:
        del each["area"], each["iscrowd"]
    truth["annotations"].append(truth["annotations"][0] | {"image_id": 99})
    with caplog.at_level(logging.WARNING):
        assert coco_results(truth, results).scores() == pytest.approx(expected, nan_ok=True)
    assert "1 of" in caplog.text and "images not listed there" in caplog.text
    assert coco_results(truth, []).scores()["AP"] == 0
    assert np.isnan(coco_results(truth | {"annotations": []}, results).scores()["AP"])


def test_keys_are_file_names_where_these_differ():
    truth, results = random_files(17, images=2)
    for image, name in zip(truth["images"], ("a/one.jpg", "b/two.jpg"), strict=True):
        image["file_name"] = name
    assert set(coco_results(truth, results).keys) == {"one", "two"}
    truth["images"][0]["file_name"] = "a/two.jpg"
    assert coco_results(truth, results).keys == ("5", "6")


def federated_files(seed):
    truth, results = random_files(seed, images=6, ties=True, crowds=0)
    generator = np.random.default_rng(seed)
    for number, category in enumerate(truth["categories"]):
        category["frequency"] = "rcf"[number]
    for image in truth["images"]:
        image["neg_category_ids"] = generator.choice(IDS, generator.integers(0, 3), replace=False).tolist()
        image["not_exhaustive_category_ids"] = generator.choice(IDS, generator.integers(0, 2)).tolist()
    for each in truth["annotations"]:
        each["ignore"] = int(generator.random() < 0.1)
        each["area"] *= generator.random() > 0.05
    many = [each | {"score": float(generator.integers(1, 100) / 100)} for each in results * 60]
    return truth, many


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")
@pytest.mark.parametrize("is_box", [False, True])
@pytest.mark.parametrize("has_box", [False, True])
def test_equals_lvis(tmp_path, monkeypatch, is_box, has_box):
    lvis = pytest.importorskip("lvis")
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis is older than numpy 1.24
    for seed in range(2):
        truth, results = federated_files(seed)
        results = results if has_box else without(results, "bbox")
        assert max(sum(each["image_id"] == image["id"] for each in results) for image in truth["images"]) > 300
        (tmp_path / "truth.json").write_text(json.dumps(truth))
        true = lvis.LVIS(str(tmp_path / "truth.json"))
        evaluation = lvis.LVISEval(true, lvis.LVISResults(true, copy.deepcopy(results)), "bbox" if is_box else "segm")
        evaluation.run()
        theirs = [np.nan if value == -1 else value for value in evaluation.results.values()]
        scores = list(lvis_results(truth, results, is_box=is_box).scores().values())[: len(theirs)]
        np.testing.assert_allclose(scores, theirs, rtol=0, atol=1e-12)


def changed(truth, results, part, **more):
    """The files with other values in the second entry of a part; None takes a key away."""
    truth, results = copy.deepcopy(truth), copy.deepcopy(results)
    target = results[1] if part == "results" else truth[part][1]
    for name, value in more.items():
        target[name] = value
        if value is None:
            del target[name]
    return truth, results


@pytest.mark.parametrize(
    ("part", "more", "error", "message"),
    [
        ("results", {"image_id": 99}, FormatError, r"results\[1\]: image_id 99 is no image of the truth"),
        ("results", {"image_id": [5]}, FormatError, r"results\[1\]: image_id \[5\] is no image of the truth"),
        ("results", {"category_id": 1}, FormatError, r"results\[1\]: category_id 1 is no category of the truth"),
        (
            "results",
            {"score": float("nan")},
            UsageError,
            r"results\[1\]: score is NaN, a number is needed; leave the entry out",
        ),
        ("results", {"score": "high"}, UsageError, r"results\[1\]: score is 'high', a number is needed"),
        ("results", {"score": None}, FormatError, r"results\[1\] has no 'score'; export it again"),
        (
            "results",
            {"segmentation": None},
            FormatError,
            r"results\[1\] has no 'segmentation', masks are compared; export masks",
        ),
        ("results", {"segmentation": [[1, 2, 3]]}, FormatError, r"results\[1\].segmentation: it is neither run lengths nor"),
        (
            "results",
            {"segmentation": {"size": [1, 1], "counts": "1"}},
            FormatError,
            r"run lengths of size \[1, 1\] for an image",
        ),
        (
            "results",
            {"segmentation": {"size": SHAPE, "counts": "1"}},
            FormatError,
            r"results\[1\].segmentation: .* add up to 1 ",
        ),
        (
            "results",
            {"segmentation": {"size": SHAPE, "counts": "a b"}},
            FormatError,
            r"results\[1\].segmentation: .* damaged at",
        ),
        ("results", {"segmentation": {"size": SHAPE, "counts": [-1]}}, FormatError, r"\[1\].segmentation: .* no whole numbers"),
        ("results", {"bbox": [1, 2]}, FormatError, r"results\[1\]: bbox is \[1, 2\], left, top, width and height are needed"),
        ("annotations", {"category_id": 1}, FormatError, r"truth: annotations\[1\]: category_id 1 is no category"),
        ("annotations", {"area": "big"}, UsageError, r"truth: annotations\[1\]: area is 'big', a number is needed"),
        ("annotations", {"segmentation": None}, FormatError, r"truth: annotations\[1\] has no 'segmentation'"),
        ("images", {"height": None}, FormatError, r"truth: images\[1\] has no 'height'"),
        ("images", {"height": "tall"}, FormatError, r"truth: images: .* sizes no numbers"),
        ("categories", {"id": 7}, FormatError, r"truth: categories: an id is there twice; give each category its own"),
    ],
)
def test_messages(part, more, error, message):
    with pytest.raises(error, match=message):
        coco_results(*changed(*random_files(18), part, **more))


def test_messages_of_whole_files(tmp_path):
    truth, results = random_files(19)
    with pytest.raises(FormatError, match="nowhere.json cannot be read"):
        coco_results(tmp_path / "nowhere.json", results)
    (tmp_path / "broken.json").write_text('[{"image_id": 1')
    with pytest.raises(FormatError, match="broken.json: Invalid JSON: EOF while parsing .*; correct it or export"):
        coco_results(truth, tmp_path / "broken.json")
    with pytest.raises(FormatError, match="truth has no list of 'images'; give COCO's annotations"):
        coco_results(results, results)
    with pytest.raises(FormatError, match="results: a list is needed, dict was given"):
        coco_results(truth, truth)
    with pytest.raises(FormatError, match=r"images: \[0\] and \[8\] have one id"):
        coco_results(truth | {"images": truth["images"] + truth["images"][:1]}, results)
    with pytest.raises(FormatError, match="truth: images are none, there is nothing to measure"):
        coco_results(truth | {"images": []}, results)
    with pytest.raises(FormatError, match="categories are missing"):
        coco_results(truth | {"categories": []}, results)
    with pytest.raises(SettingError, match="max_detections are"):
        coco_results(truth, results, max_detections=())
    with pytest.raises(FormatError, match=r"categories\[0\] has no 'frequency'"):
        lvis_results(truth, results)
    truth, results = federated_files(0)
    with pytest.raises(FormatError, match="the frequency 'often' is none of r, c, f; correct it"):
        lvis_results(*changed(truth, results, "categories", frequency="often"))
    with pytest.raises(FormatError, match=r"images\[1\] has no 'neg_category_ids'"):
        lvis_results(truth | {"images": [truth["images"][0], *without(truth["images"][1:], "neg_category_ids")]}, results)


def test_categories_of_one_name_get_their_id():
    truth, results = random_files(20)
    for category in truth["categories"]:
        category["name"] = "cat"
    assert coco_results(truth, results).classes.names == ("cat (3)", "cat (7)", "cat (12)")
