"""The page of a run: how good the model is and how sure that is, where it errs, how it learned, what was done and why.

Axes: K classes, H, W.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.atomic_files import replace_file
from segwright.evaluation.error_analysis import Atlas
from segwright.evaluation.ranking import p_text
from segwright.evaluation.scores import Scores, interval_text, is_distance, score_text
from segwright.reports.atlas_page import atlas_sections, suspect_section
from segwright.reports.gallery import Example
from segwright.reports.heat_map import confusion_map, mistakes
from segwright.reports.html.curves import learning_curves
from segwright.reports.html.page import meter, page, section, small_percent, swatch, track
from segwright.reports.image_rows import image_rows

HEADLINES = {  # of all summaries, those that stand beside the main score
    *("mIoU", "pixel accuracy", "mean accuracy", "Dice", "PQ", "SQ", "RQ", "AP", "AP50", "AP75"),
    *("object accuracy", "object F1@0.5", "boundary F1", "boundary IoU", "HD95", "NSD"),
}
MOST_HEADLINES = 6
MOST_COLUMNS = 5  # of scores in the table of classes
MANY_CLASSES = 25  # rows of a table; of more, the rows move closer
CONFUSION_NOTE = (
    "A row shows what became of the pixels of one true class, in per cent of that class. Right is blue, wrong is orange; "
    "shades grow with the square root, so that rare errors are seen."
)
CLASS_NOTE = "Best first. The mark on a bar is its 95 % interval."
IMAGE_NOTE = "Hardest first. Click a picture, or reach it with the tab key, to see it large."
COMMENT = re.compile(r"""((?:[^"'#]|"(?:\\.|[^"\\])*"|'[^']*')*)#(.*)""")  # the first # outside quotes starts a comment


def write_report(
    path: Path | str,
    *,
    title: str,
    scores: Scores,
    log: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Example] = (),
    atlas: Atlas | None = None,
    plan_text: str = "",
    footer: Mapping[str, str] | None = None,
) -> None:
    """Write one HTML page that needs no other file and no network.

    `log` holds the records of log.jsonl, `examples` (sample, prediction, its scores) in any order, `atlas` where the model
    errs, `plan_text` the plan as TOML, `footer` lines of name and value on machine and versions. A part that is empty is left
    out of the page.

    Raises:
        OutputError: the path cannot be written.
    """
    sections = [
        f"<section>{_headline(scores)}</section>",
        section("Per class", CLASS_NOTE, _class_table(scores), side=True),
        section("Confusion", CONFUSION_NOTE, confusion_map(scores) + mistakes(scores) if scores.matrix else "", side=True),
        *(atlas_sections(atlas) if atlas else ()),
        section("Learning", "", learning_curves(log)),
        section("Images", IMAGE_NOTE, image_rows(scores, examples, with_objects=atlas is not None and atlas.has_objects)),
        suspect_section(atlas) if atlas else "",
        section("Plan", "All settings of the run, each choice with its reason.", plan_table(plan_text), side=True),
    ]
    lead = f"Measured on {scores.size} with {len(scores.classes)} classes. {_extremes(scores)}"
    replace_file(Path(path), page(title, "Segmentation report", lead, sections, footer or {}).encode())


def _titles(scores: Scores) -> list[str]:
    """The scores that were measured of each class, in their order, such as IoU and Dice."""
    return list(dict.fromkeys(name.partition("/")[0] for name in scores.values if "/" in name))


def _of_class(scores: Scores, title: str, name: str) -> float:
    """A score of a class, NaN where it was not measured."""
    return scores.values.get(f"{title}/{name}", np.nan)


def _extremes(scores: Scores) -> str:
    """A sentence on the best and the worst class; empty for fewer than two."""
    if not _titles(scores) or is_distance(_titles(scores)[0]):
        return ""
    title = _titles(scores)[0]
    values = [(_of_class(scores, title, name), name) for name in scores.classes.names]
    known = sorted(pair for pair in values if np.isfinite(pair[0]))
    if len(known) < 2:
        return ""
    (low, worst), (high, best) = known[0], known[-1]
    return f"Best at {best} ({title} {small_percent(high)}), weakest at {worst} ({small_percent(low)})."


def _headline(scores: Scores) -> str:
    """The main score in large figures, other summaries beside it, and below them how all were measured."""
    names = [name for name in scores.values if "/" not in name]
    if not names:
        return ""
    main = f'<div class="big">{_summary(names[0], scores)}</div>'
    beside = [name for name in names[1:] if name in HEADLINES][:MOST_HEADLINES]
    others = "".join(f"<div>{_summary(name, scores)}</div>" for name in beside)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in scores.notes)
    return (
        f'<div class="figures">{main}<div class="small">{others}</div></div>{_differences_table(scores)}{notes}'
        f"{_rest_table(scores, [name for name in names[1:] if name not in beside])}{_conventions(scores)}"
    )


def _differences_table(scores: Scores) -> str:
    """What scores were before training and are after it, with the interval of the difference and its p; empty without any."""
    rows = []
    for row in scores.differences:
        shown = partial(score_text, row.score, unit="")
        values = (shown(value) for value in (row.first, row.second, row.difference))
        cells = (*values, interval_text(row.interval, shown) or "–", p_text(row.p), p_text(row.p_holm))
        columns = "".join(f'<td class="num">{escape(cell)}</td>' for cell in cells)
        rows.append(f"<tr><td>{escape(row.score)}</td>{columns}</tr>")
    if not rows:
        return ""
    heads = "".join(f'<th class="num">{head}</th>' for head in ("Before", "After", "Change", "95 % interval", "p", "p (Holm)"))
    body = "".join(rows)
    return f'<table class="dense"><thead><tr><th>Score</th>{heads}</tr></thead><tbody>{body}</tbody></table>'


def _conventions(scores: Scores) -> str:
    """How each metric counts, a paragraph each."""
    parts = "".join(
        f'<p class="note"><b>{escape(name.replace("_", " ").capitalize())}</b> {escape(text)}</p>'
        for name, text in scores.conventions.items()
    )
    return f'<div class="conventions">{parts}</div>'


def _rest_table(scores: Scores, names: Sequence[str]) -> str:
    """The summary scores that do not stand in large figures, with their intervals, folded away; empty without any."""
    if not names:
        return ""
    rows = []
    for name in names:
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="num">{score_text(name, scores.values[name])}</td>'
            f'<td class="num muted">{_interval(name, scores) or "–"}</td></tr>'
        )
    return (
        f'<details><summary>{len(rows)} further scores</summary><table class="dense"><thead><tr><th>Score</th>'
        f'<th class="num">Value</th><th class="num">95 % interval</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        "</details>"
    )


def _interval(name: str, scores: Scores) -> str:
    """The interval of a score as it is shown; empty where there is none."""
    return interval_text(scores.intervals.get(name, (np.nan, np.nan)), lambda end: score_text(name, end, unit=""))


def _summary(name: str, scores: Scores) -> str:
    """One score as a figure with its interval."""
    value, interval = scores.values.get(name, np.nan), scores.intervals.get(name, (np.nan, np.nan))
    between = _interval(name, scores)
    text = f"95 % interval {between}" if between else "no interval"
    is_share = not is_distance(name)
    number = f'<div class="value">{score_text(name, value, unit="")}{"<small>%</small>" * is_share}</div>'
    label = escape(name[0].upper() + name[1:]) if name != "mIoU" else name
    bar = track(value, interval) if is_share else ""
    return f'<div class="label">{label}</div>{number}{bar}<div class="interval">{text}</div>'


def _class_table(scores: Scores) -> str:
    """A table of the classes, best first by the first score: its interval, further scores, and the share of the true pixels."""
    shown = _titles(scores)[:MOST_COLUMNS]
    if not shown:
        return ""
    pixels = scores.confusion().sum(axis=1) if len(scores.matrix) else None
    sign = 1 if is_distance(shown[0]) else -1
    order = [(sign * _of_class(scores, shown[0], name), k, name) for k, name in enumerate(scores.classes.names)]
    rows, left_out = [], 0
    for rank, k, name in sorted(order, key=lambda row: np.inf if np.isnan(row[0]) else row[0]):
        if np.isnan(rank) and len(order) > MANY_CLASSES:
            left_out += 1
            continue
        cells = []
        for title in shown:
            value = _of_class(scores, title, name)
            interval = scores.intervals.get(f"{title}/{name}") if title == shown[0] else None
            text = score_text(title, value, unit="")
            cells.append(f'<td class="num">{text}</td>' if is_distance(title) else f"<td>{meter(text, value, interval)}</td>")
        absent = ' class="muted" title="could not be measured here"' if np.isnan(rank) else ""
        share = "" if pixels is None else f'<td class="num muted">{small_percent(pixels[k] / max(pixels.sum(), 1))}</td>'
        rows.append(f"<tr><td{absent}>{swatch(scores.classes.colors[k])}{escape(name)}</td>{''.join(cells)}{share}</tr>")
    absent_note = f'<p class="note">{left_out} further classes could not be measured here.</p>' if left_out else ""
    heads = [f'<th class="main-column">{escape(shown[0])}{", %" * (sign < 0)}</th>']
    heads += [f"<th>{escape(title[0].upper() + title[1:])}</th>" for title in shown[1:]]
    heads += ['<th class="num">Pixels</th>'] * (pixels is not None)
    return (
        f'<div class="scroll"><table{" class=dense" if len(rows) > MANY_CLASSES else ""}>'
        f"<thead><tr><th>Class</th>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{absent_note}"
    )


def plan_table(text: str) -> str:
    """TOML text line by line, the reasons (comments) beside the settings."""
    lines = []
    for line in text.strip().splitlines():
        found = COMMENT.fullmatch(line)
        code, why = (found[1].rstrip(), found[2].strip()) if found else (line, "")
        style = ' class="table"' if code.lstrip().startswith("[") else ""
        lines.append(f'<div><code{style}>{escape(code)}</code><span class="why">{escape(why)}</span></div>')
    return f'<div class="toml">{"".join(lines)}</div>' if lines else ""
