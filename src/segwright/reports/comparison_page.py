"""The page of a comparison: what the numbers support, each run as a dot, how each learned, each class, each pair."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.atomic_files import replace_file
from segwright.evaluation.ranking import Pairing, Ranking, p_text
from segwright.evaluation.scores import interval_text, is_distance, score_text
from segwright.reports.html.curves import log_column
from segwright.reports.html.dots import DotRow, dot_chart
from segwright.reports.html.page import page, section
from segwright.reports.html.series import Series, color_of, series_chart

DOT_NOTE = "A dot is a run, the upright line their mean, and the bar its 95 % interval, over images and seeds."
CURVE_NOTE = "The score of the averaged weights at the moments of validation; a line is a run."
PAIR_NOTE = (
    "How far the variant of the row is before that of the column, and p after Holm's correction for all pairs; bold where a "
    "difference can be claimed."
)
CLASS_NOTE = "Means over seeds, with 95 % intervals. Classes are no further tests: what is bold is only the highest."

Logs = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]


def write_comparison(
    path: Path | str,
    *,
    title: str,
    ranking: Ranking,
    lead: str = "",
    notes: Sequence[str] = (),
    convention: str = "",
    efforts: Mapping[str, tuple[float, float]] | None = None,
    logs: Logs | None = None,
    footer: Mapping[str, str] | None = None,
) -> None:
    """Write one HTML page that needs no other file and no network.

    `efforts` are the steps and the images seen of each variant, on average over seeds, `logs` the records of log.jsonl for each
    of its runs. Both may hold variants that are not in the ranking. What is empty is left out of the page.

    Raises:
        OutputError: the path cannot be written.
    """
    colors = {name: color_of(number) for number, name in enumerate(logs or [each.name for each in ranking.standings])}
    sections = [
        section("What can be said", "", _findings(ranking, notes), side=True),
        section("Scores", DOT_NOTE, _dots(ranking, colors)),
        section("", "", _table(ranking, efforts or {})),
        section("Learning", CURVE_NOTE, _curves(logs or {}, colors)),
        section("Pairs", PAIR_NOTE, _pairs(ranking) if len(ranking.standings) > 2 else ""),
        section("Classes", CLASS_NOTE, _classes(ranking)),
        section("How it was measured", "", f'<p class="note">{escape(convention)}</p>' if convention else "", side=True),
    ]
    replace_file(Path(path), page(title, "Comparison", lead, sections, footer or {}).encode())


def _findings(ranking: Ranking, notes: Sequence[str]) -> str:
    """The sentences, those that claim something in a warm colour."""
    claims = [f"<li>{escape(text)}</li>" for text in ranking.sentences() if not text.startswith("No difference")]
    others = [text for text in ranking.sentences() if text.startswith("No difference")]
    calm = [f'<li class="calm">{escape(text)}</li>' for text in (*others, *notes)]
    return f'<ul class="findings">{"".join(claims + calm)}</ul>' if claims or calm else ""


def _dots(ranking: Ranking, colors: Mapping[str, str]) -> str:
    """The chart of all runs by their score, in per cent where it is a share."""
    score, rows = ranking.score, []
    factor, unit = (1, "") if is_distance(score) else (100, ", %")
    for each in ranking.standings:
        low, high = each.intervals.get(score, (nan, nan))
        rows.append(
            DotRow(
                name=each.name,
                color=colors.get(each.name, color_of(0)),
                values=[factor * value for value in each.by_seed[score]],
                mean=factor * each.values[score],
                interval=(factor * low, factor * high),
            )
        )
    return f'<div class="chart">{dot_chart(rows, score + unit)}</div>' if rows else ""


def _table(ranking: Ranking, efforts: Mapping[str, tuple[float, float]]) -> str:
    """A row per variant, the best first, then those without a score."""
    score, others = ranking.score, ranking.against_best
    names = [each.name for each in ranking.standings] + [
        name for name in efforts if name not in {each.name for each in ranking.standings}
    ]
    standings = {each.name: each for each in ranking.standings}
    rows = []
    for name in names:
        cells = ["–"] * 5
        if name in standings:
            each = standings[name]
            by_seed = each.by_seed[score]
            cells[0] = score_text(score, each.values[score], unit="")
            cells[1] = _between(score, each.intervals.get(score, (nan, nan)))
            cells[2] = f"{score_text(score, min(by_seed), unit='')} to {score_text(score, max(by_seed), unit='')}"
        if name in others:
            row = others[name].differences[0]
            cells[3], cells[4] = score_text(score, -row.difference, unit=""), p_text(row.p_holm)
        steps, images = efforts.get(name, (nan, nan))
        cells += [f"{number:,.0f}".replace(",", "\u202f") if np.isfinite(number) else "–" for number in (steps, images)]
        columns = "".join(f'<td class="num">{escape(cell)}</td>' for cell in cells)
        rows.append(f"<tr><td>{escape(name)}</td>{columns}</tr>")
    titles = (f"{score}, %", "95 % interval", "Seeds", "To the best", "p (Holm)", "Steps", "Images seen")
    heads = "".join(f'<th class="num">{escape(title)}</th>' for title in titles)
    table = f"<table><thead><tr><th>Variant</th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll">{table}</div>' if rows else ""


def _curves(logs: Logs, colors: Mapping[str, str]) -> str:
    """The validation scores of all runs over time."""
    series, shown = [], []
    for name, runs in logs.items():
        for seed, log in enumerate(runs):
            validations = [record for record in log if "score" in record]
            seconds, values = log_column([{**record, "step": record.get("seconds", 0.0)} for record in validations], "score")
            if len(values):
                text = f"{name}, seed {seed}"
                series.append(Series(name=text, color=colors[name], seconds=seconds, values=100 * values))
                shown.append(name)
    chips = "".join(
        f'<span><span class="swatch" style="background:{colors[name]}"></span>{escape(name)}</span>'
        for name in dict.fromkeys(shown)
    )
    chart = series_chart(series, "score over time, %")
    return f'<div class="chips">{chips}</div><div class="chart">{chart}</div>' if chart else ""


def _pairs(ranking: Ranking) -> str:
    """A table of all pairs."""
    names = [each.name for each in ranking.standings]
    known: dict[tuple[str, str], Pairing] = {}
    for pairing in ranking.pairings:
        known[pairing.second, pairing.first] = pairing
        known[pairing.first, pairing.second] = pairing.turned()
    rows = []
    for row in names:
        cells = []
        for column in names:
            found = known.get((row, column))
            if found is None:
                cells.append('<td class="num muted">–</td>')
                continue
            own = found.differences[0]
            text = f"{100 * own.difference:+.1f}"
            shown = f"<b>{text}</b>" if found.is_claimed else text
            cells.append(f'<td class="num">{shown} <span class="muted">p {escape(p_text(own.p_holm))}</span></td>')
        rows.append(f"<tr><td>{escape(row)}</td>{''.join(cells)}</tr>")
    heads = "".join(f'<th class="num">{escape(name)}</th>' for name in names)
    return (
        f'<div class="scroll"><table class="dense"><thead><tr><th></th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _classes(ranking: Ranking) -> str:
    """A row per class and a column per variant; empty where the score has no classes."""
    rows = list(_class_rows(ranking))
    heads = "".join(f'<th class="num">{escape(each.name)}</th>' for each in ranking.standings)
    return (
        f'<div class="scroll"><table class="dense"><thead><tr><th>Class</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
        if rows
        else ""
    )


def _class_rows(ranking: Ranking) -> Iterator[str]:
    """The rows of the table of classes, as HTML."""
    for name in ranking.class_scores:
        values = [each.values.get(name, nan) for each in ranking.standings]
        if not np.isfinite(values).any():
            continue
        best = np.nanmax(values)
        cells = []
        for each, value in zip(ranking.standings, values, strict=True):
            text = score_text(name, value, unit="")
            between = _between(name, each.intervals.get(name, (nan, nan)))
            shown = f"<b>{text}</b>" if value == best else text
            cells.append(f'<td class="num">{shown} <span class="muted">{escape(between)}</span></td>')
        yield f"<tr><td>{escape(name.partition('/')[2])}</td>{''.join(cells)}</tr>"


def _between(score: str, interval: tuple[float, float]) -> str:
    """An interval as it is shown; a dash where there is none."""
    return interval_text(interval, lambda end: score_text(score, end, unit="")) or "–"
