import re

from hypothesis import given
from hypothesis import strategies as st

from segwright.reports.html.dots import LEFT, RIGHT, WIDTH, DotRow, dot_chart

NAN = float("nan")


def row(name="a", values=(0.4, 0.6), mean=0.5, interval=(0.3, 0.7)):
    return DotRow(name=name, color="#0072b2", values=values, mean=mean, interval=interval)


def test_by_hand(read_html):
    html = dot_chart([row(), row("b <", (0.8,), 0.8, (NAN, NAN))], "mIoU")
    tags = read_html(html)
    assert tags.seen.count("circle") == 3 and "mIoU" in tags.text and "b <" in tags.text
    places = [float(x) for x in re.findall(r'cx="([\d.]+)"', html)]
    assert places == sorted(places)
    ends = [float(x) for x in re.findall(r'x[12]="([\d.]+)"[^>]*stroke-width="6"', html)]
    assert len(ends) == 1 and html.count('stroke-width="6"') == 1 and html.count('stroke-width="2.5"') == 2


def test_nothing_where_nothing_is_known():
    assert dot_chart([], "mIoU") == "" and dot_chart([row(values=(NAN,), mean=NAN, interval=(NAN, NAN))], "mIoU") == ""


def test_one_value_has_an_axis_and_a_long_name_is_cut(read_html):
    html = dot_chart([row("n" * 80, (0.5,), 0.5, (0.5, NAN))], "mIoU")
    assert "n" * 31 + "…" in "".join(read_html(html).text) and "nan" not in html.lower()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_law_marks_stay_inside(values, low, high):
    html = dot_chart([row(values=values, mean=values[0], interval=(min(low, high), max(low, high)))], "mIoU")
    for x in re.findall(r' (?:cx|x1|x2)="([\d.]+)"', html):
        assert LEFT - 0.1 <= float(x) <= WIDTH - RIGHT + 0.1
