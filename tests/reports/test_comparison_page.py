"""The page of a comparison holds what was found, and nothing from outside."""

import numpy as np
import pytest

from segwright.core import Classes
from segwright.core.errors import OutputError
from segwright.evaluation.ranking import Ranking, ranked
from segwright.metrics.confusion import Confusion, class_sums
from segwright.reports.comparison_page import write_comparison

LOG = [{"step": 1, "seconds": 2.0, "loss": 1.0}, {"step": 1, "seconds": 2.5, "score": 0.5, "metric": "mIoU"}]


def runs_of(right, seed, images=10):
    """States of a run on two classes, of whose second so many of a hundred pixels are found."""
    rng = np.random.default_rng(seed)
    tables = [np.array([[90, 10, 0], [100 - right, right, 0]]) + rng.integers(0, 4, (2, 3)) for _ in range(images)]
    return [class_sums(table) for table in tables]


@pytest.fixture
def ranking():
    runs = {"plain": [runs_of(30, 1), runs_of(32, 2)], "<b>dice": [runs_of(80, 3), runs_of(79, 4)]}
    runs["focal"] = [runs_of(78, 5), runs_of(80, 6)]
    return ranked(Confusion(Classes.of(["sky", "car<i>"])), runs, "mIoU", resamples=400)


def text_of(path, read_html):
    return "".join(read_html(path.read_text(encoding="utf-8")).text)


def test_by_hand_everything_is_there(ranking, tmp_path, read_html):
    path = tmp_path / "new" / "report.html"
    efforts = {"plain": (120.0, 480.0), "<b>dice": (110.0, 440.0), "focal": (100.0, 400.0), "lost": (3.0, 12.0)}
    logs = {name: [LOG, LOG] for name in ("plain", "<b>dice", "focal")} | {"lost": [[]]}
    words = {"lead": "4 variants.", "notes": ["lost is left out."], "convention": "How.", "footer": {"python": "3.12"}}
    write_comparison(path, title="data: <c>", ranking=ranking, efforts=efforts, logs=logs, **words)
    text = text_of(path, read_html)
    for part in ("data: <c>", "4 variants.", "lost is left out.", "How.", "3.12", "<b>dice, seed 1", "car<i>", "To the best"):
        assert part in text, part
    for sentence in ranking.sentences():
        assert sentence in text
    best = ranking.standings[0]
    assert f"{100 * best.values['mIoU']:.1f}" in text and "120" in text and "480" in text
    html = path.read_text(encoding="utf-8")
    assert html.count("<polyline") == 6 and html.count('class="calm"') >= 2 and len(html) < 100_000


def test_claims_come_first_and_pairs_are_shown_both_ways(ranking, tmp_path, read_html):
    write_comparison(tmp_path / "r.html", title="t", ranking=ranking)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert html.index("is better than plain") < html.index("No difference can be claimed")
    text = text_of(tmp_path / "r.html", read_html)
    row = ranking.against_best["plain"].differences[0]
    assert f"{100 * row.difference:+.1f}" in text and f"{-100 * row.difference:+.1f}" in text


def test_of_nothing_there_is_a_page_too(tmp_path, read_html):
    ranking = Ranking(score="mIoU", standings=(), pairings=())
    write_comparison(tmp_path / "r.html", title="t", ranking=ranking, efforts={"a": (0.0, 0.0)}, notes=["All failed."])
    text = text_of(tmp_path / "r.html", read_html)
    assert "All failed." in text and "Pairs" not in text and "Classes" not in text and "Learning" not in text


def test_messages(ranking, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="r.html cannot be written"):
        write_comparison(tmp_path / "file" / "r.html", title="t", ranking=ranking)
