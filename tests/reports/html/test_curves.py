import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.reports.html.curves import duration, framed, learning_curves, log_column, round_spacing, short, smooth

LOG = [
    {"step": 1, "seconds": 2.0, "loss": 2.0, "learning_rate": 0.001},
    {"step": 2, "seconds": 4.0, "loss": 1.0, "learning_rate": 0.002},
    {"step": 2, "seconds": 5.0, "score": 0.25, "metric": "mIoU"},
    {"step": 3, "event": "out of memory: <the batch> is now 4"},
    {"step": 4, "seconds": 9.0, "loss": float("nan"), "learning_rate": 0.0},
    {"step": 4, "seconds": 10.0, "score": 0.5, "metric": "mIoU"},
]


def test_by_hand(read_html):
    html = learning_curves(LOG)
    text = " ".join(read_html(html).text)
    assert "Training loss 1 at the end" in text  # windows of a short run hold one value, and NaN is left out
    assert "Validation mIoU, % best 50.0 at step 4" in text and "Learning rate up to 0.002" in text
    assert html.count("<svg") == 3 and html.count('class="point"') == 1 and html.count('class="best"') == 1
    assert html.count('class="event"') == 3 and "&lt;the batch&gt;" in html
    assert "<title>step 2: 25.0</title>" in html and "nan" not in html


def test_parts_that_were_not_logged_are_left_out():
    assert learning_curves([]) == "" and learning_curves([{"step": 3, "event": "nothing else"}]) == ""
    assert learning_curves([LOG[2]]).count("<svg") == 1
    assert learning_curves([{"step": 0, "loss": 0.0}]).count("<svg") == 1  # a flat line at zero has a range too


def test_column_and_numbers_by_hand():
    steps, values = log_column(LOG, "loss")
    assert steps.tolist() == [1, 2] and values.tolist() == [2, 1]
    assert log_column([{"step": 1, "loss": None}, {"step": 2, "loss": "x"}], "loss")[0].tolist() == []
    assert [duration(seconds) for seconds in (5, 89, 600, 9000)] == ["5 s", "89 s", "10 min", "2.5 h"]
    assert [short(value, 0.2) for value in (0, 0.2, 1.0)] == ["0", "0.2", "1.0"]
    assert [short(value, 0.0005) for value in (0.0015, 0.002, 0.001)] == ["1.5e-3", "2e-3", "1e-3"]
    assert short(40, 20) == "40" and short(20_000, 5000) == "20k" and short(0.0005, 0.0005) == "5e-4"


def test_smooth_equals_a_slow_twin():
    values = np.random.default_rng(0).normal(size=240)
    twin = [values[max(0, i - 4) : i + 5].mean() for i in range(240)]  # 240 / 60 = 4 on each side
    assert smooth(values) == pytest.approx(twin)


@given(st.floats(1e-9, 1e9), st.integers(1, 10))
def test_law_spacing_is_round_and_never_too_dense(span, count):
    spacing = round_spacing(span, count)
    assert f"{spacing:.0e}"[0] in "125" and span / spacing <= count * 1.01 and span / spacing > count / 2.6


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_law_values_stay_inside_the_drawing(low, high):
    frame = framed(10.0, min(low, high), max(low, high))
    assert frame.low <= min(low, high) + 1e-9 and frame.high >= max(low, high) * (1 - 1e-3)
    places = frame.y(np.array([-1e9, low, high, 1e9]))
    assert ((places >= 0) & (places <= 214)).all()


def test_long_logs_stay_small():
    log = [{"step": i, "seconds": i, "loss": 1 / (i + 1), "learning_rate": 1.0} for i in range(20_000)]
    assert len(learning_curves(log)) < 30_000
    assert len(re.findall(r"[\d.]+,[\d.]+", learning_curves(log))) <= 3 * 300
