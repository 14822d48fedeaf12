import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import OutputError
from segwright.evaluation.gallery import Gallery
from segwright.evaluation.measuring import evaluate
from segwright.evaluation.report import plan_table, write_report

PLAN = """
[training]
steps = 100  # 0.3 s a step "as measured" # here
name = "a # b"
# a line alone
[[loss.terms]]
"""
LOG = [{"step": i, "seconds": i / 2, "loss": 2 / i, "learning_rate": 0.001} for i in range(1, 50)] + [
    {"step": 49, "seconds": 25.0, "mIoU": 0.5}
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
    assert f"{100 * scores.values['mIoU']:.1f}" in text and scores.convention in text
    low, high = scores.intervals["mIoU"]
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f}" in text
    for part in ("Per class", "Confusion", "Learning", "Images", "Plan", "machine", "2 cores", "rank 6 of 6", "rank 1 of 6"):
        assert part in text
    assert tags.seen.count("img") == 3 * 4 and tags.seen.count("svg") == 4
    assert text.index("rank 6 of 6") < text.index("rank 5 of 6") < text.index("rank 1 of 6")
    assert len(html) < 200_000


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
