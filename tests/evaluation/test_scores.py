import json
from dataclasses import replace
from math import nan

import numpy as np
import pytest

from segwright.core.errors import FormatError, OutputError
from segwright.evaluation.evaluate import evaluate
from segwright.evaluation.scores import Scores, interval_text, is_distance, score_text, write_scores
from segwright.evaluation.significance import Difference


def test_law_json_reads_back_what_it_wrote(truths, guess, tmp_path, classes):
    scores = evaluate(guess, truths)
    scores = replace(scores, values={**scores.values, "IoU/car": float("nan")})
    write_scores(tmp_path / "new" / "scores.json", scores)
    text = (tmp_path / "new" / "scores.json").read_text()
    table = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert table["values"]["IoU/car"] is None and table["values"]["mIoU"] == scores.values["mIoU"]
    again = Scores.from_json(text)
    assert again.to_json() == text and np.isnan(again.values["IoU/car"])
    assert again.classes == classes and (again.confusion() == scores.confusion()).all()
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "scores.json"]  # no temporary file stays


def test_messages(truths, guess, tmp_path):
    for text in ("no json", "[1]", '{"count": 1}'):
        with pytest.raises(FormatError, match="a.json hold no scores of segwright.*make them with: segwright evaluate"):
            Scores.from_json(text, source="a.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="scores.json cannot be written"):
        write_scores(tmp_path / "file" / "scores.json", evaluate(guess, truths))


def test_scores_as_text():
    assert score_text("IoU", 0.5) == "50.0\u00a0%" and score_text("IoU", 0.5, unit="") == "50.0"
    assert score_text("HD95", 3.14159) == "3.14" and score_text("HD95", float("nan")) == "–" == score_text("PQ", float("nan"))

    assert is_distance("element HD95/liver") and is_distance("Betti-0 error") and not is_distance("NSD/liver")


@pytest.mark.parametrize(
    ("interval", "text"),
    [((0.25, 0.5), "0.25 to 0.5"), ((0.25, nan), "at least 0.25"), ((nan, 0.5), "at most 0.5"), ((nan, nan), "")],
)
def test_an_end_that_is_not_known_is_not_shown(interval, text):
    assert interval_text(interval, str) == text


def test_an_end_that_is_not_known_is_null(truths, guess):
    scores = replace(evaluate(guess, truths), intervals={"mIoU": (0.25, nan), "Dice": (nan, 0.5), "kappa": (nan, nan)})
    table = json.loads(scores.to_json())["intervals"]
    assert table == {"mIoU": [0.25, None], "Dice": [None, 0.5], "kappa": [None, None]}
    again = Scores.from_json(scores.to_json()).intervals
    np.testing.assert_array_equal(list(again.values()), list(scores.intervals.values()))


def test_differences_read_back_with_what_is_not_known(truths, guess):
    row = Difference(score="mIoU", first=0.5, second=0.6, difference=0.1, interval=(nan, 0.2), p=0.04, p_holm=nan)
    scores = replace(evaluate(guess, truths), differences=(row,))
    (again,) = Scores.from_json(scores.to_json()).differences
    assert replace(again, interval=row.interval, p_holm=row.p_holm) == row
    assert np.isnan([again.interval[0], again.p_holm]).all() and again.interval[1] == 0.2
    earlier = json.loads(scores.to_json())
    del earlier["differences"]
    assert Scores.from_json(json.dumps(earlier)).differences == ()
