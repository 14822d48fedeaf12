import re

import numpy as np

from segwright.core import Classes
from segwright.evaluation.scores import Scores
from segwright.reports.heat_map import confusion_map, mistakes


def scores_of(matrix, names=None):
    matrix = np.asarray(matrix)
    classes = Classes.of(names or [f"class_{k}" for k in range(len(matrix))])
    table = tuple(map(tuple, matrix.tolist()))
    return Scores(count=1, classes=classes, values={}, intervals={}, per_image={}, matrix=table, conventions={})


def plain(text):
    return re.sub(r"\s+", " ", text.replace("\u00a0", " "))


def test_by_hand(read_html):
    scores = scores_of([[75, 25, 0], [0, 100, 0]], ["a", "b<"])
    html = plain(confusion_map(scores))
    tags = read_html(html)
    assert "a taken for b&lt;: 25.0 %" in html and "<title>b&lt;: 100.0 %</title>" in html
    assert tags.seen.count("title") == 3  # what never happened has no cell
    assert [word for word in tags.text if word.isdigit()] == ["75", "25", "100"]
    listed = plain("".join(read_html(mistakes(scores)).text))
    assert "12.5 %a taken for b< 25.0 % of a" in listed and "taken for a" not in listed


def test_pixels_without_a_class_have_a_column_where_there_are_some():
    assert "nothing" not in confusion_map(scores_of([[4, 1, 0], [1, 4, 0]]))
    html = scores_of([[4, 1, 5], [1, 4, 0]])
    assert "class_0 taken for nothing: 50.0" in confusion_map(html) and "taken for nothing" in mistakes(html)


def test_nothing_measured_and_nothing_wrong():
    empty, perfect = scores_of(np.zeros((3, 4), int)), scores_of([[5, 0, 0], [0, 7, 0]])
    assert confusion_map(empty) == "" and mistakes(empty) == "" and mistakes(perfect) == ""
    assert "<rect" in confusion_map(perfect)


def test_150_classes_stay_light_and_each_can_be_found(read_html):
    rng = np.random.default_rng(0)
    matrix = (rng.random((150, 151)) ** 40 * 1000).astype(int) + np.eye(150, 151, dtype=int) * 1000
    html = confusion_map(scores_of(matrix))
    read_html(html)
    assert len(html) < 1_000_000 and html.count("class_149") >= 3  # its row, its column, its cell
    assert confusion_map(scores_of(np.eye(300, 301, dtype=int))) == ""  # too many to be seen


def test_law_numbers_equal_the_rows_of_the_matrix():
    rng = np.random.default_rng(4)
    matrix = rng.integers(0, 1000, (5, 6))
    html = confusion_map(scores_of(matrix))
    shares = {
        (truth, guess): float(value)
        for truth, guess, value in re.findall(r"<title>class_(\d) taken for (\w+): ([\d.]+)", html.replace("class_", "class_"))
    }
    for (truth, guess), value in shares.items():
        column = 5 if guess == "nothing" else int(guess[-1])
        assert abs(value - 100 * matrix[int(truth), column] / matrix[int(truth)].sum()) <= 0.051
    assert len(shares) == 25


def test_classes_that_do_not_occur_are_left_out():
    matrix = np.zeros((133, 134), int)
    matrix[5, 5], matrix[5, 70], matrix[9, 9] = 3, 1, 4
    html = confusion_map(scores_of(matrix))
    assert html.count("class_5 taken for class_70: 25.0") == 1 and "class_6<" not in html and "nothing" not in html
