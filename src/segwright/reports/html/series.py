"""Several curves in one chart as SVG text: a line per run, a colour per variant. Sizes are units of the drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from segwright.reports.html.curves import round_spacing, short

WIDTH, HEIGHT = 860, 320
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 12, 30  # room around the plot for the numbers
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#7f7f7f")  # apart for all eyes, mostly

UNITS = ((1.0, "s"), (60.0, "min"), (3600.0, "h"))  # of time, in seconds, with their names
MOST_UNITS = 300  # of one kind, beyond which the next one is taken
LEAST_SPAN = 1e-9  # of seconds and of values: what is less is rounding, and still has an axis


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: where its points lie, float64 (n,) each, and its colour; `name` is shown by pointing at it, as plain text."""

    name: str
    color: str
    seconds: np.ndarray
    values: np.ndarray


def color_of(number: int) -> str:
    """The colour of a variant by its number; they begin again after eight."""
    return COLORS[number % len(COLORS)]


def series_chart(series: Sequence[Series], label: str) -> str:
    """An SVG of all curves over time; empty without any."""
    series = [each for each in series if len(each.seconds)]
    if not series:
        return ""
    last = max(float(each.seconds.max()) for each in series)
    last = last if last > LEAST_SPAN else 1.0
    high = max(float(each.values.max()) for each in series)
    low = min(float(each.values.min()) for each in series)
    high = high if high - low > LEAST_SPAN else low + 1e-3
    spacing = round_spacing(high - low, 5)  # lines or so
    low, high = spacing * np.floor(low / spacing), spacing * np.ceil(high / spacing)

    def place(seconds: np.ndarray, values: np.ndarray) -> list[tuple[float, float]]:
        x = LEFT + np.asarray(seconds) / last * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (np.asarray(values) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return list(zip(np.atleast_1d(x).tolist(), np.atleast_1d(y).tolist(), strict=True))

    parts = []
    for value in np.arange(low, high + spacing / 2, spacing):
        ((_, y),) = place(np.array([0.0]), np.array([value]))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"></line>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(float(value), spacing)}</text>')
    unit, name = next(each for each in UNITS if last < MOST_UNITS * each[0] or each is UNITS[-1])
    step = unit * round_spacing(last / unit, 6)
    for seconds in np.arange(step, last * 1.0001, step):
        ((x, _),) = place(np.array([seconds]), np.array([low]))
        text = f"{seconds / unit:g} {name}"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{text}</text>')
    for each in series:
        points = place(each.seconds, each.values)
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(
            f'<polyline points="{corners}" fill="none" stroke="{each.color}" stroke-width="1.6" stroke-linejoin="round" '
            f'opacity=".8"><title>{escape(each.name)}</title></polyline>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{each.color}"></circle>' for x, y in points]
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
