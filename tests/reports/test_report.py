from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import OutputError
from segwright.evaluation.error_analysis import Atlas
from segwright.evaluation.evaluate import evaluate
from segwright.evaluation.scores import Scores
from segwright.evaluation.significance import Difference
from segwright.formats.synthetic import cells
from segwright.reports.gallery import Gallery
from segwright.reports.report import plan_table, write_report

PLAN = """
[training]
steps = 100  # 0.3 s a step "as measured" # here
name = "a # b"
# a line alone
[[loss.terms]]
"""
LOG = [{"step": i, "seconds": i / 2, "loss": 2 / i, "learning_rate": 0.001} for i in range(1, 50)] + [
    {"step": 49, "seconds": 25.0, "score": 0.5, "metric": "mIoU"}
]


@pytest.fixture
def report(truths, guess, tmp_path, read_html):
    gallery = Gallery(worst=2, best=1)
    scores = evaluate(guess, truths, on_image=gallery)
    path = tmp_path / "runs" / "report.html"
    footer = {"machine": "2 cores"}
    write_report(path, title="streets", scores=scores, log=LOG, examples=gallery.examples(), plan_text=PLAN, footer=footer)
    return scores, path.read_text(encoding="utf-8")


def test_by_hand_everything_is_there(report, read_html):
    scores, html = report
    tags = read_html(html)
    text = "".join(tags.text)
    assert f"{100 * scores.values['mIoU']:.1f}" in text and all(each in text for each in scores.conventions.values())
    low, high = scores.intervals["mIoU"]
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f}" in text
    for part in ("Per class", "Confusion", "Learning", "Images", "Plan", "machine", "2 cores", "rank 6 of 6", "rank 1 of 6"):
        assert part in text
    assert tags.seen.count("img") == 3 * 4 and tags.seen.count("svg") == 4
    assert text.index("rank 6 of 6") < text.index("rank 5 of 6") < text.index("rank 1 of 6")
    assert len(html) < 200_000


def test_what_training_has_changed_stands_below_the_scores(truths, guess, tmp_path, read_html):
    row = Difference(score="mIoU", first=0.5, second=0.625, difference=0.125, interval=(0.1, 0.15), p=0.0004, p_holm=0.25)
    write_report(tmp_path / "r.html", title="t", scores=replace(evaluate(guess, truths), differences=(row,)))
    text = "".join(read_html((tmp_path / "r.html").read_text(encoding="utf-8")).text)
    assert "ScoreBeforeAfterChange95 % intervalpp (Holm)mIoU50.062.512.510.0 to 15.0below 0.0010.25" in text


def test_classes_are_sorted_and_the_absent_one_is_last(classes, tmp_path, read_html):
    truth = Segmentation.semantic(np.array([[0, 0, 1, 1]]), classes)
    answer = Segmentation.semantic(np.array([[0, 1, 1, 1]]), classes)
    one = Dataset("memory", classes, ("a",), lambda key: Sample.of(key, np.zeros((1, 1, 4), np.uint8), truth))
    write_report(tmp_path / "r.html", title="t", scores=evaluate(lambda sample: answer, one))
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    text = "".join(read_html(html).text)
    table = text[text.index("ClassIoU") :]
    assert table.index("road66.7") < table.index("sky50.0") < table.index("car–")
    assert "no interval" in text and "Measured on 1 image with 3 classes" in text
    for part in ("Learning", "Images", "Plan"):  # nothing was given for them
        assert part not in text


def scores_of(values, classes, **others):
    table = {"count": 3, "classes": classes, "values": values, "intervals": {}, "per_image": {}, "matrix": ()}
    return Scores(**table | {"conventions": {"a": "What was counted."}} | others)


def written(tmp_path, **parts):
    write_report(tmp_path / "r.html", title="t", **parts)
    return (tmp_path / "r.html").read_text(encoding="utf-8")


def test_scores_of_objects_lead_where_they_come_first(classes, tmp_path, read_html):
    values = {"PQ": 0.5, "SQ": 0.8, "RQ": 0.6, "PQ things": 0.4, "PQ/sky": 0.9, "SQ/sky": 0.9, "PQ/car": 0.1, "PQ/road": np.nan}
    text = "".join(read_html(written(tmp_path, scores=scores_of(values, classes, notes=("2 of 3 are missing.",)))).text)
    assert text.index("PQ50.0%") < text.index("SQ80.0%") < text.index("RQ60.0%") < text.index("1 further scores")
    assert "PQ things40.0" in text and "2 of 3 are missing." in text and "What was counted." in text
    assert "Best at sky (PQ 90.0" in text and "ClassPQ, %SQsky90.090.0car10.0–road––" in text
    assert "Confusion" not in text and "Pixels" not in text


def test_distances_are_no_shares_and_the_smallest_is_best(classes, tmp_path, read_html):
    values = {"HD95": 12.5, "NSD": 0.9, "HD95/sky": 20.0, "HD95/road": 5.0, "HD95/car": 7.5}
    intervals = {"HD95": (10.0, 14.0)}
    text = "".join(read_html(written(tmp_path, scores=scores_of(values, classes, intervals=intervals))).text)
    assert "HD9512.50" in text and "12.50%" not in text and "95 % interval 10.00 to 14.00" in text
    assert "road5.00car7.50sky20.00" in text and "Best at" not in text


def test_of_many_classes_those_that_were_not_measured_are_counted_only(tmp_path, read_html):
    many = Classes.of([f"c{k}" for k in range(40)])
    values = {"mIoU": 0.5} | {f"IoU/c{k}": 0.5 if k < 3 else np.nan for k in range(40)}
    text = "".join(read_html(written(tmp_path, scores=scores_of(values, many))).text)
    assert "37 further classes could not be measured here." in text and "c2" in text and "c39" not in text


def test_no_scores_at_all(classes, tmp_path, read_html):
    assert "Measured on 3 images" in "".join(read_html(written(tmp_path, scores=scores_of({}, classes))).text)


def without_each_third(sample):
    truth = sample.truth
    planes = np.where(truth.planes % 3 == 0, 0, truth.planes)
    return Segmentation(planes, truth.class_ids, truth.instance_ids, truth.scores, truth.classes)


@pytest.mark.parametrize("shape", [(96, 96), (12, 48, 48)])
def test_an_atlas_adds_its_parts_in_2d_and_3d(shape, tmp_path, read_html):
    dataset = cells(2, shape=shape)
    atlases, gallery = [], Gallery()

    def watch(sample, prediction, own):
        atlases.append(Atlas.of(sample.key, prediction, sample.truth, sample.image))
        gallery(sample, prediction, own)

    scores = evaluate(without_each_third, dataset, metrics=("average_precision",), on_image=watch)
    html = written(tmp_path, scores=scores, examples=gallery.examples(), atlas=Atlas.total(atlases))
    text = "".join(read_html(html).text)
    for part in ("Objects by cause", "Panoptic quality", "Borders and interiors", "True objects", "Labels to look at"):
        assert part in text
    assert "Most is lost to missed objects" in text and "matched" in text and len(html) < 1_500_000


def test_an_atlas_of_class_maps_has_no_objects(truths, guess, tmp_path, read_html):
    atlases = []
    scores = evaluate(guess, truths, on_image=lambda s, p, own: atlases.append(Atlas.of(s.key, p, s.truth, s.image)))
    text = "".join(read_html(written(tmp_path, scores=scores, atlas=Atlas.total(atlases))).text)
    assert "Borders and interiors" in text and "Objects by cause" not in text and "Panoptic" not in text


def test_plan_by_hand(read_html):
    tags = read_html(plan_table(PLAN))
    assert tags.text == [
        "[training]", "steps = 100", '0.3 s a step "as measured" # here', 'name = "a # b"', "a line alone", "[[loss.terms]]",
    ]  # fmt: skip
    assert plan_table("") == ""


def test_volumes_and_deep_colours(classes, tmp_path, read_html):
    class_map = np.random.default_rng(0).integers(-1, 3, (4, 6, 7))
    sample = Sample.of("volume", np.random.default_rng(0).normal(size=(2, 4, 6, 7)), Segmentation.semantic(class_map, classes))
    gallery = Gallery()
    scores = evaluate(lambda sample: sample.truth, Dataset("memory", classes, ("v",), lambda key: sample), on_image=gallery)
    write_report(tmp_path / "r.html", title="t", scores=scores, examples=gallery.examples())
    assert read_html((tmp_path / "r.html").read_text(encoding="utf-8")).seen.count("img") == 4


def test_law_names_from_outside_stay_words(tmp_path, read_html):
    evil = Classes.of(["<script>alert(1)</script>", 'road" onload="x', "car&amp;<b>"])
    class_map = np.random.default_rng(0).integers(0, 3, (8, 8))
    answer = Segmentation.semantic(np.roll(class_map, 1, axis=0), evil)
    sample = Sample.of("<img src=x>", np.zeros((1, 8, 8), np.uint8), Segmentation.semantic(class_map, evil))
    gallery = Gallery()
    scores = evaluate(lambda sample: answer, Dataset("<i>", evil, ("a",), lambda key: sample), on_image=gallery)
    log = [{"step": 1, "loss": 1.0, "event": "<script>"}]
    write_report(
        tmp_path / "r.html", title="</title><script>", scores=scores, log=log, examples=gallery.examples(),
        plan_text="[<script>] # <script>", footer={"<script>": "<script>"},
    )  # fmt: skip
    tags = read_html((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "<script>alert(1)</script>" in "".join(tags.text) and "<img src=x>" in "".join(tags.text)
    assert tags.seen.count("img") == 4


def test_messages(truths, guess, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="report.html cannot be written"):
        write_report(tmp_path / "file" / "report.html", title="t", scores=evaluate(guess, truths, resamples=0))


def test_an_end_of_an_interval_that_is_not_known_is_not_shown(classes, tmp_path, read_html):
    values = {"mIoU": 0.5, "Dice": 0.6, "kappa": 0.3, "IoU/sky": 0.5}
    intervals = {"mIoU": (0.25, np.nan), "Dice": (np.nan, 0.75), "kappa": (0.125, np.nan), "IoU/sky": (0.25, np.nan)}
    html = written(tmp_path, scores=scores_of(values, classes, intervals=intervals))
    text = "".join(read_html(html).text)
    assert "95 % interval at least 25.0" in text and "95 % interval at most 75.0" in text and "at least 12.5" in text
    assert "nan" not in html.lower().replace("<nan", "") and html.count("left:25.00%;width:75.00%") == 2
