import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.reports.html.bars import HEIGHT, TOP, bar_chart, stack


def test_by_hand(read_html):
    html = bar_chart("Where <b>", "of all", ["1", "2", "> 3"], [0.25, 0.5, float("nan")], "px & more")
    tags = read_html(html)
    assert "".join(tags.text).replace("\u00a0", " ").startswith("Where <b>of all1") and "px & more" in tags.text
    heights = [float(height) for height in re.findall(r' height="([\d.]+)"', html)]
    assert heights == [pytest.approx(heights[1] / 2), heights[1]] and html.count("<rect") == 2


def test_nothing_is_drawn_where_nothing_is(read_html):
    assert "<rect" not in read_html(bar_chart("t", "n", [], [], "a")).seen
    assert 'height="0.0"' in bar_chart("t", "n", ["a"], [0.0], "a")


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_law_bars_stay_inside(shares):
    html = bar_chart("t", "n", ["x"] * len(shares), shares, "a")
    for y, height in zip(re.findall(r' y="([\d.]+)" width', html), re.findall(r' height="([\d.]+)"', html), strict=True):
        assert float(y) >= TOP - 0.1 and float(y) + float(height) <= HEIGHT


def test_stack_by_hand(read_html):
    html = stack([(0.5, (1, 2, 3), "PQ"), (0.0, (4, 5, 6), "absent"), (0.25, (7, 8, 9), "lost <")])
    read_html(html)
    assert re.findall(r'x="([\d.]+)" y="0" width="([\d.]+)"', html) == [("0.00", "50.00"), ("50.00", "25.00")]
    assert "absent" not in html and "lost &lt;: 25.0" in html
