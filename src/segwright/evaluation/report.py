"""The page of a run: how good the model is and how sure that is, where it errs, how it learned, what was done and why.

Axes: K classes, H, W.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core import VOID
from segwright.core.files import replace_file
from segwright.core.picture import as_rgb, overlay
from segwright.evaluation.curves import learning_curves
from segwright.evaluation.gallery import Example
from segwright.evaluation.heat_map import confusion_map, mistakes
from segwright.evaluation.page import legend, meter, page, percent, section, small_percent, swatch, track
from segwright.evaluation.pictures import NOT_SCORED, WRONG, disagreement, drawable, figure
from segwright.evaluation.scores import Scores

HEADLINES = ("pixel accuracy", "mean accuracy", "Dice")
STRENGTH = 0.6  # of class colours over the image: classes are told apart, and what they cover is still seen
MANY_CLASSES = 25  # rows of a table; of more, the rows move closer
MAX_LEGEND = 40  # names in a legend; of more classes, only those in the pictures are named
CONFUSION_NOTE = (
    "A row shows what became of the pixels of one true class, in per cent of that class. Right is blue, wrong is orange; "
    "shades grow with the square root, so that rare errors are seen."
)
COMMENT = re.compile(r"""((?:[^"'#]|"(?:\\.|[^"\\])*"|'[^']*')*)#(.*)""")  # the first # outside quotes starts a comment


def write_report(
    path: Path | str,
    *,
    title: str,
    scores: Scores,
    log: Sequence[Mapping[str, Any]] = (),
    examples: Sequence[Example] = (),
    plan_text: str = "",
    footer: Mapping[str, str] | None = None,
) -> None:
    """Write one HTML page that needs no other file and no network.

    `log` holds the records of log.jsonl, `examples` (sample, prediction, its scores) in any order, `plan_text` the plan as
    TOML, `footer` lines of name and value on machine and versions. A part that is empty is left out of the page.

    Raises:
        OutputError: the path cannot be written.
    """
    images = f"{scores.count} image{'s' if scores.count != 1 else ''}"
    sections = [
        f"<section>{headline(scores)}</section>",
        section("Per class", "Sorted by IoU. The mark on a bar is its 95 % interval.", class_table(scores), side=True),
        section("Confusion", CONFUSION_NOTE, confusion_map(scores) + mistakes(scores), side=True),
        section("Learning", "", learning_curves(log)),
        section(
            "Images",
            "Hardest first. Click a picture, or reach it with the tab key, to see it large.",
            pictures(scores, examples),
        ),
        section("Plan", "All settings of the run, each choice with its reason.", plan_table(plan_text), side=True),
    ]
    lead = f"Measured on {images} with {len(scores.classes)} classes. {extremes(scores)}"
    replace_file(Path(path), page(title, "Segmentation report", lead, sections, footer or {}).encode())


def extremes(scores: Scores) -> str:
    """A sentence on the best and the worst class; empty for fewer than two."""
    ious = [(scores.values.get(f"IoU/{name}", np.nan), name) for name in scores.classes.names]
    known = sorted(pair for pair in ious if np.isfinite(pair[0]))
    if len(known) < 2:
        return ""
    (low, worst), (high, best) = known[0], known[-1]
    return f"Best at {best} (IoU {small_percent(high)}), weakest at {worst} ({small_percent(low)})."


def headline(scores: Scores) -> str:
    """The mIoU in large figures, the other summaries beside it, and the convention below them."""
    main = f'<div class="big">{summary("mIoU", scores)}</div>'
    others = "".join(f"<div>{summary(name, scores)}</div>" for name in HEADLINES if name in scores.values)
    return f'<div class="figures">{main}<div class="small">{others}</div></div><p class="note">{escape(scores.convention)}</p>'


def summary(name: str, scores: Scores) -> str:
    """One score as a figure with its interval."""
    value, interval = scores.values.get(name, np.nan), scores.intervals.get(name, (np.nan, np.nan))
    known = bool(np.isfinite(interval).all())
    text = f"95 % interval {percent(interval[0])} to {percent(interval[1])}" if known else "no interval"
    number = f'<div class="value">{percent(value)}<small>%</small></div>'
    label = escape(name[0].upper() + name[1:]) if name != "mIoU" else name
    return f'<div class="label">{label}</div>{number}{track(value, interval)}<div class="interval">{text}</div>'


def class_table(scores: Scores) -> str:
    """A table of the classes, best first: IoU with its interval, Dice, precision, recall and share of the true pixels."""
    shares = scores.confusion().sum(axis=1) / max(scores.confusion().sum(), 1)
    table = [(scores.values.get(f"IoU/{name}", np.nan), k, name) for k, name in enumerate(scores.classes.names)]
    rows = []
    for iou, k, name in sorted(table, key=lambda row: np.inf if np.isnan(row[0]) else -row[0]):
        others = [scores.values.get(f"{title}/{name}", np.nan) for title in ("Dice", "precision", "recall")]
        meters = [
            meter(percent(iou), iou, scores.intervals.get(f"IoU/{name}")),
            *(meter(percent(value), value) for value in others),
        ]
        absent = ' class="muted" title="neither in these images nor predicted"' if np.isnan(iou) else ""
        rows.append(
            f"<tr><td{absent}>{swatch(scores.classes.colors[k])}{escape(name)}</td>"
            + "".join(f"<td>{cell}</td>" for cell in meters)
            + f'<td class="num muted">{small_percent(shares[k])}</td></tr>'
        )
    return (
        f'<div class="scroll"><table{" class=dense" if len(rows) > MANY_CLASSES else ""}>'
        '<thead><tr><th>Class</th><th class="main-column">IoU, %</th><th>Dice</th><th>Precision</th>'
        f'<th>Recall</th><th class="num">Pixels</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def pictures(scores: Scores, examples: Sequence[Example]) -> str:
    """The examples, hardest first: image, truth, prediction and where they disagree, with the rank of each image."""
    if not examples:
        return ""
    classes = scores.classes
    order = sorted(examples, key=lambda example: np.nan_to_num(example[2].get("mIoU", np.nan), nan=2.0))  # 2: after all others
    values = np.array([image.get("mIoU", np.nan) for image in scores.per_image.values()])
    shown: set[int] = set()
    rows = []
    for sample, prediction, own in order:
        drawn = sample.truth.class_map() if sample.truth is not None else np.full(sample.grid.shape, VOID)
        image, truth, guess = drawable(sample.image, drawn, prediction.class_map())
        shown |= set(np.unique(truth).tolist()) | set(np.unique(guess).tolist())
        rank = 1 + int((values > own.get("mIoU", np.nan)).sum())
        note = f"mIoU {percent(own.get('mIoU', np.nan))} %, pixel accuracy {percent(own.get('pixel accuracy', np.nan))} %"
        place = f"rank {rank} of {len(values)}"
        rows.append(
            f'<article class="example"><h3>{escape(sample.key)}<span>{note}</span><span>{place}</span></h3>'
            '<div class="row">'
            + figure(as_rgb(image), "Image")
            + figure(overlay(image, truth, classes.palette, STRENGTH), "Truth")
            + figure(overlay(image, guess, classes.palette, STRENGTH), "Prediction")
            + figure(disagreement(image, truth, guess), "Disagreement")
            + "</div></article>"
        )
    named = range(len(classes)) if len(classes) <= MAX_LEGEND else sorted(shown - {VOID})
    extra = f"<span>{swatch(WRONG)}wrong</span><span>{swatch(NOT_SCORED)}void, not scored</span>"
    return legend(classes, named, extra) + "".join(rows)


def plan_table(text: str) -> str:
    """TOML text line by line, the reasons (comments) beside the settings."""
    lines = []
    for line in text.strip().splitlines():
        found = COMMENT.fullmatch(line)
        code, why = (found[1].rstrip(), found[2].strip()) if found else (line, "")
        style = ' class="table"' if code.lstrip().startswith("[") else ""
        lines.append(f'<div><code{style}>{escape(code)}</code><span class="why">{escape(why)}</span></div>')
    return f'<div class="toml">{"".join(lines)}</div>' if lines else ""
