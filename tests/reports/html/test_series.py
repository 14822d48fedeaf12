import re

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from segwright.reports.html.series import BOTTOM, COLORS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, color_of, series_chart


def series(seconds, values, name="a, seed 0"):
    return Series(name=name, color="#0072b2", seconds=np.array(seconds, float), values=np.array(values, float))


def test_by_hand(read_html):
    html = series_chart([series([30, 60], [20, 40]), series([60], [10], "b <, seed 0")], "score, %")
    tags = read_html(html)
    assert tags.seen.count("polyline") == 2 and tags.seen.count("circle") == 3 and "b <, seed 0" in tags.text
    (first, second), _ = [re.findall(r"([\d.]+),([\d.]+)", points) for points in re.findall(r'points="([^"]*)"', html)]
    assert float(first[0]) < float(second[0]) == WIDTH - RIGHT and float(first[1]) > float(second[1])
    assert "60 s" in tags.text


def test_nothing_without_points():
    assert series_chart([], "score") == "" and series_chart([series([], [])], "score") == ""


def test_colours_begin_again():
    assert color_of(0) == color_of(len(COLORS)) == COLORS[0] and len(set(COLORS)) == len(COLORS)


@example([(5e-324, 0.0)])
@example([(0.0, 0.0), (1.0, 5e-324)])
@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 100)), min_size=1, max_size=8))
def test_law_curves_stay_inside(points):
    seconds, values = zip(*sorted(points), strict=True)
    html = series_chart([series(seconds, values)], "score")
    for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', html):
        assert LEFT - 0.1 <= float(x) <= WIDTH - RIGHT + 0.1 and TOP - 0.1 <= float(y) <= HEIGHT - BOTTOM + 0.1
