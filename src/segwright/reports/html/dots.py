"""Scores on one axis as SVG text: a row per variant, a dot per run, their mean and its interval. Axes: V rows, S dots."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from segwright.reports.html.curves import round_spacing, short

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 860, 34, 230, 22, 10, 30  # units of the drawing, which fills its column
LETTERS = 32  # of a name that fit on the left
MARGIN = 0.06  # of the range, on both sides


@dataclass(frozen=True, kw_only=True)
class DotRow:
    """A name, the value of each run (S,), their mean, and the ends of its interval, NaN where one is not known."""

    name: str
    color: str
    values: Sequence[float]
    mean: float
    interval: tuple[float, float]


def dot_chart(rows: Sequence[DotRow], label: str) -> str:
    """An SVG of all rows on one axis, which `label` names; numbers that are not finite are left out. Names are plain text."""
    numbers = np.array([number for row in rows for number in (*row.values, row.mean, *row.interval)])
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return ""
    low, high = float(numbers.min()), float(numbers.max())
    reach = max(high - low, 1e-3 * max(abs(high), 1.0)) * MARGIN  # 1e-3: values that are all alike still have an axis
    low, high = low - reach, high + reach
    bottom = TOP + ROW * len(rows)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    spacing = round_spacing(high - low, 6)  # lines or so
    parts = []
    for value in np.arange(np.ceil(low / spacing), np.floor(high / spacing) + 1) * spacing:
        parts.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP}" y2="{bottom}"></line>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 16}" text-anchor="middle">{short(float(value), spacing)}</text>')
    for number, row in enumerate(rows):
        parts.append(_row(row, TOP + (number + 0.5) * ROW, x, (low, high)))
    parts.append(f'<text x="{LEFT - 12}" y="{bottom + 16}" text-anchor="end">{escape(label)}</text>')
    return f'<svg viewBox="0 0 {WIDTH} {bottom + BOTTOM}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _row(row: DotRow, y: float, x, limits: tuple[float, float]) -> str:
    """The name, the interval, the mean and the dots of a row whose middle is at y; `x` gives the place of a value."""
    name = row.name if len(row.name) <= LETTERS else f"{row.name[: LETTERS - 1]}…"
    parts = [f'<text class="ink" x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>']
    if not np.isnan(row.interval).all():
        low, high = (end if np.isfinite(end) else limit for end, limit in zip(row.interval, limits, strict=True))
        parts.append(
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{row.color}" stroke-width="6" '
            'stroke-linecap="round" opacity=".28"></line>'
        )
    for value in row.values:
        if np.isfinite(value):
            parts.append(
                f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4" fill="{row.color}" opacity=".75"><title>{value:.4g}</title>'
                "</circle>"
            )
    if np.isfinite(row.mean):
        parts.append(
            f'<line x1="{x(row.mean):.1f}" x2="{x(row.mean):.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}" stroke="{row.color}" '
            f'stroke-width="2.5"><title>mean {row.mean:.4g}</title></line>'
        )
    return "".join(parts)
