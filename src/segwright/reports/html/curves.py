"""Charts as SVG text: learning curves. Sizes are in the units of the drawing, which the page scales to its column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10
from typing import Any

import numpy as np

WIDTH, HEIGHT = 360, 214  # one column of three at full width, the whole width of a phone
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 12, 42  # room around the plot for the numbers
MAX_POINTS = 300  # about one per unit of the drawing; more would only make the page heavy
WINDOWS = 30  # the trend averages over 1/30 of the run: the noise of single batches goes, the shape stays
Journal = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The plot's range: steps from 0 to `steps`, values from `low` to `high` with a grid line every `spacing`."""

    steps: float
    low: float
    high: float
    spacing: float

    def x(self, steps: Any) -> Any:
        """Where steps lie in the drawing."""
        return LEFT + np.asarray(steps) / self.steps * (WIDTH - LEFT - RIGHT)

    def y(self, values: Any) -> Any:
        """Where values lie in the drawing; those outside the range are put on its edge."""
        share = (np.clip(values, self.low, self.high) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def learning_curves(log: Journal) -> str:
    """Charts (HTML) of loss, validation score and learning rate over the steps of a log, with the time below the steps.

    Records hold "step" and, where they apply, "seconds", "loss", "learning_rate", "score" with its name as "metric".
    Values that are missing or not finite are left out; a chart without values too, and without any the answer is empty.
    """
    last = max((float(record["step"]) for record in log), default=0.0) or 1.0
    charts = []
    steps, losses = log_column(log, "loss")
    if len(steps):
        trend = smooth(losses)
        frame = framed(last, min(0.0, float(trend.min())), float(max(trend.max(), np.percentile(losses, 98))))  # 98: no spikes
        shapes = _line(frame, steps, losses, "faint") + _line(frame, steps, trend, "line")
        charts.append(_chart("Training loss", f"{trend[-1]:.3g} at the end", frame, shapes, log))
    steps, scores = log_column(log, "score")
    if len(steps):
        best = int(scores.argmax())
        name = next(record["metric"] for record in log if "score" in record)
        frame = framed(last, 0.0, 100 * float(scores.max()))
        shapes = _line(frame, steps, 100 * scores, "line") + _points(frame, steps, 100 * scores, best)
        charts.append(
            _chart(
                f"Validation {escape(name)}, %", f"best {100 * scores[best]:.1f} at step {steps[best]:.0f}", frame, shapes, log
            )
        )
    steps, rates = log_column(log, "learning_rate")
    if len(steps):
        frame = framed(last, 0.0, float(rates.max()))
        charts.append(_chart("Learning rate", f"up to {rates.max():.2g}", frame, _line(frame, steps, rates, "line"), log))
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def log_column(log: Journal, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, float64 (n,) each, of the records that hold a finite number under a name."""
    found = [(record["step"], record[name]) for record in log if isinstance(record.get(name), int | float)]
    table = np.array(found, dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table[:, 1])]
    return table[:, 0], table[:, 1]


def smooth(values: np.ndarray) -> np.ndarray:
    """Centred moving mean of values (n,), over fewer of them near both ends."""
    reach = len(values) // (2 * WINDOWS)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - reach, 0)
    last = np.minimum(np.arange(len(values)) + reach + 1, len(values))
    return (sums[last] - sums[first]) / (last - first)


def framed(steps: float, low: float, high: float) -> Frame:
    """A frame whose value axis ends on a grid line."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):  # 1e-9: flat but for rounding; it still has an axis
        high = low + 1.0
    spacing = round_spacing(high - low, 4)  # 4 grid lines or so: enough to read a value, too few to distract
    return Frame(steps=steps, low=spacing * np.floor(low / spacing), high=spacing * np.ceil(high / spacing), spacing=spacing)


def round_spacing(span: float, count: int) -> float:
    """The distance 1, 2 or 5 times a power of ten that cuts a span into about `count` pieces, never into more."""
    power = 10.0 ** floor(log10(span / count))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * count >= span * 0.999)  # 0.999: rounding


def _chart(title: str, now: str, frame: Frame, shapes: str, log: Journal) -> str:
    """A titled SVG with axes, grid and events around the shapes; `now` says the number that matters."""
    parts = []
    for value in np.arange(frame.low, frame.high + frame.spacing / 2, frame.spacing):
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"></line>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(float(value), frame.spacing)}</text>')
    steps, seconds = log_column(log, "seconds")
    spacing = round_spacing(frame.steps, 4)
    for index, step in enumerate(np.arange(0, frame.steps * 1.0001, spacing)):
        x, anchor = frame.x(step), "middle" if index else "start"
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="{anchor}">{short(float(step), spacing)}</text>'
        )
        if len(steps) and index:
            time = duration(float(np.interp(step, steps, seconds)))
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 32}" text-anchor="middle" opacity=".75">{time}</text>')
    parts.append(f'<text x="{LEFT - 8}" y="{HEIGHT - BOTTOM + 17}" text-anchor="end">step</text>')
    for record in log:
        if record.get("event"):
            x = frame.x(record["step"])
            mark = f'<line class="event" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}">'
            parts.append(f"{mark}<title>{escape(str(record['event']))}</title></line>")
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: {escape(now)}">'
    heading = f'<h3>{escape(title)}<span class="now">{escape(now)}</span></h3>'
    return f'<div class="chart">{heading}{drawing}{"".join(parts)}{shapes}</svg></div>'


def _line(frame: Frame, steps: np.ndarray, values: np.ndarray, style: str) -> str:
    """A line through the points (n,), thinned to MAX_POINTS."""
    kept = np.unique(np.linspace(0, len(steps) - 1, MAX_POINTS).round().astype(int))
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(frame.x(steps[kept]), frame.y(values[kept]), strict=True))
    return f'<polyline class="{style}" points="{corners}"></polyline>'


def _points(frame: Frame, steps: np.ndarray, values: np.ndarray, best: int) -> str:
    """A ring at each point (n,), a disc at the best one; pointing at it shows its numbers."""
    return "".join(
        f'<circle class="{"best" if index == best else "point"}" cx="{frame.x(step):.1f}" cy="{frame.y(value):.1f}" r="3.5">'
        f"<title>step {step:.0f}: {value:.1f}</title></circle>"
        for index, (step, value) in enumerate(zip(steps, values, strict=True))
    )


def short(value: float, spacing: float) -> str:
    """A number beside an axis, with the digits that its grid needs; thousands as k, small numbers in powers of ten."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000 or (spacing >= 1000 and abs(value) >= 1000):
        return f"{value / 1000:g}k"
    if spacing < 0.001:
        power = floor(log10(abs(value)) + 1e-9)  # 1e-9: rounding
        return f"{value / 10.0**power:.1f}".removesuffix(".0") + f"e{power}"
    return f"{value:.{max(0, -floor(log10(spacing) + 1e-9))}f}"


def duration(seconds: float) -> str:
    """A time in the unit that reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
