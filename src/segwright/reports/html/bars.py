"""Bars as SVG text. Sizes are in the units of the drawing, which the page scales to its column. Axes: N bars."""

from collections.abc import Sequence
from html import escape

import numpy as np

from segwright.reports.html.page import small_percent

WIDTH, HEIGHT = 360, 214  # as curves.py: charts stand side by side
TOP, BOTTOM = 20, 42  # room for the numbers above the bars and the names below them
GAP = 0.22  # of the step from bar to bar


def bar_chart(title: str, note: str, names: Sequence[str], shares: Sequence[float] | np.ndarray, axis: str) -> str:
    """A titled SVG of upright bars (N,) for shares from 0 to 1, the highest as high as the chart; NaN has no bar.

    `note` says of what they are shares, `axis` what the names below the bars are. All of them are plain text.
    """
    shares = np.asarray(shares, np.float64)
    highest = float(np.nan_to_num(shares).max(initial=0)) or 1.0
    step, floor = WIDTH / max(len(shares), 1), HEIGHT - BOTTOM
    parts = [f'<line class="grid" x1="0" x2="{WIDTH}" y1="{floor}" y2="{floor}"></line>']
    for n, (name, share) in enumerate(zip(names, shares, strict=True)):
        middle = (n + 0.5) * step
        parts.append(f'<text x="{middle:.1f}" y="{floor + 17}" text-anchor="middle">{escape(name)}</text>')
        if np.isfinite(share):
            height = (floor - TOP) * share / highest
            parts.append(
                f'<rect class="bar" x="{(n + GAP / 2) * step:.1f}" y="{floor - height:.1f}" width="{(1 - GAP) * step:.1f}" '
                f'height="{height:.1f}" rx="2"><title>{escape(name)}: {small_percent(share)}</title></rect>'
                f'<text class="ink" x="{middle:.1f}" y="{floor - height - 6:.1f}" text-anchor="middle">'
                f"{small_percent(share)}</text>"
            )
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(axis)}</text>')
    heading = f'<h3>{escape(title)}<span class="now">{escape(note)}</span></h3>'
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    return f'<div class="chart">{heading}{drawing}</div>'


def stack(parts: Sequence[tuple[float, Sequence[int], str]]) -> str:
    """A lying SVG bar from 0 to 1 of parts laid end to end: share, RGB colour, and the name that pointing at it shows."""
    left, shapes = 0.0, []
    for share, (red, green, blue), name in parts:
        if share > 0:
            shapes.append(
                f'<rect x="{100 * left:.2f}" y="0" width="{100 * share:.2f}" height="10" fill="rgb({red} {green} {blue})">'
                f"<title>{escape(name)}: {small_percent(share)}</title></rect>"
            )
            left += share
    return f'<svg class="stack" viewBox="0 0 100 10" preserveAspectRatio="none" role="img">{"".join(shapes)}</svg>'
