"""The shell of a page that people read: one HTML file that needs nothing else, light and dark, wide and narrow."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from segwright.core import Classes

STYLE = Path(__file__).with_name("page.css")


def page(title: str, kind: str, lead: str, sections: Iterable[str], footer: Mapping[str, str]) -> str:
    """A whole HTML page. `title`, `kind` (the small line above it), `lead` and `footer` are plain text, `sections` are HTML."""
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        f'<header><p class="eyebrow">{escape(kind)}</p><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p></header>\n'
        f"<main>\n{body}\n</main>\n<footer>{facts(footer)}</footer>\n</body>\n</html>\n"
    )


def section(title: str, note: str, body: str, *, side: bool = False) -> str:
    """A section with a heading, a plain-text note and HTML below them, or beside them on a wide screen; empty without body."""
    if not body:
        return ""
    note = f'<p class="note">{escape(note)}</p>' if note else ""
    return (
        f'<section{" class=side" if side else ""}><div class="head"><h2>{escape(title)}</h2>{note}</div>'
        f"<div>{body}</div></section>"
    )


def facts(lines: Mapping[str, str]) -> str:
    """A list of names and values, both plain text."""
    if not lines:
        return ""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in lines.items()) + "</dl>"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage without its sign; a dash for NaN."""
    return f"{100 * share:.{digits}f}" if np.isfinite(share) else "–"


def small_percent(share: float) -> str:
    """A share as a percentage with its sign and two digits that say something, for shares that may be tiny."""
    value = 100 * share
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0\u00a0%"
    if value >= 0.1:
        return f"{value:.1f}\u00a0%" if value >= 1 else f"{value:.2f}\u00a0%"
    return f"{value:.2g}\u00a0%" if value >= 0.001 else "< 0.001\u00a0%"


def track(share: float, interval: tuple[float, float] | None = None) -> str:
    """A bar from 0 to 1, with the ends of an interval marked on it."""
    fill = f'<span class="fill" style="width:{100 * min(max(share, 0), 1):.2f}%"></span>' if np.isfinite(share) else ""
    if interval and not np.isnan(interval).all():  # an end that is not known is that of the bar
        low, high = np.clip(np.where(np.isnan(interval), (0, 1), interval), 0, 1)
        fill += f'<span class="range" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></span>'
    return f'<span class="track">{fill}</span>'


def meter(text: str, share: float, interval: tuple[float, float] | None = None) -> str:
    """A number with its bar beside it."""
    return f'<div class="meter"><span>{escape(text)}</span>{track(share, interval)}</div>'


def swatch(color: Sequence[int]) -> str:
    """A small square of an RGB colour."""
    red, green, blue = color
    return f'<span class="swatch" style="background:rgb({red} {green} {blue})"></span>'


def legend(classes: Classes, shown: Iterable[int], extra: str = "") -> str:
    """Names and colours of the classes shown; `extra` is HTML after them."""
    chips = "".join(f"<span>{swatch(classes.colors[k])}{escape(classes.names[k])}</span>" for k in shown)
    return f'<div class="chips">{chips}{extra}</div>'
