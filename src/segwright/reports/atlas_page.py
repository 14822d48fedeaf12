"""The error atlas as parts of a page: sentences that say what was found, charts, tables, cut-outs. Axes: K classes, B bands."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from segwright.core.classes import BACKGROUND, plain
from segwright.evaluation.borders import BANDS, NEAR
from segwright.evaluation.error_analysis import Atlas
from segwright.evaluation.label_errors import LabelError
from segwright.evaluation.tide_errors import BOTH, CLASS, DUPLICATE, FALSE, MASK, MATCHED, MERGED, MISSED, OUTCOMES, SPLIT
from segwright.metrics.panoptic_quality import qualities
from segwright.reports.html.bars import bar_chart, stack
from segwright.reports.html.cutout import BOTH_COLOR, PREDICTED_COLOR, TRUE_COLOR
from segwright.reports.html.page import meter, percent, section, small_percent, swatch
from segwright.reports.html.pictures import embedded

FATE_COLORS = {  # told apart by colour-blind eyes, on photographs and on paper
    MATCHED: (24, 158, 140), MISSED: (226, 74, 22), FALSE: (214, 39, 126), MERGED: (122, 74, 214), SPLIT: (37, 110, 232),
    MASK: (84, 190, 240), CLASS: (150, 96, 40), BOTH: (196, 160, 110), DUPLICATE: (240, 190, 40),
}  # fmt: skip
MEANINGS = {
    MISSED: "a true object that no prediction is about",
    FALSE: "a prediction of something that is not there",
    MERGED: "one prediction covers half or more of several true objects of its class",
    SPLIT: "several predictions share one true object of their class, and cover half of it or more",
    MASK: "right class, but the IoU is only 0.1 to 0.5",
    CLASS: "the IoU is 0.5 or more, with an object of another class",
    BOTH: "the IoU is 0.1 to 0.5, with an object of another class only",
    DUPLICATE: "the true object was found by a prediction with a higher score already",
}
MANY_ROWS = 25  # of a table: about a screen
QUALITY_COLORS = {"lost by masks": MASK, "lost by missed": MISSED, "lost by false": FALSE}
CAUSE_NOTE = (
    "Predictions are matched to true objects as COCO does, at IoU 0.5. What is left over has the first cause that holds: "
    "merged, split, mask quality, class, duplicate, class and mask, false. A bar is the AP that would be gained if this cause "
    "alone were mended (the method of TIDE, Bolya et al. 2020, with merged and split added), so bars need not add up to what "
    "is lacking. All predictions count, where COCO's AP looks at the best 100 of a class in an image."
)
QUALITY_NOTE = (
    "PQ = SQ × RQ: how well matched segments fit (SQ, their mean IoU) times how many are matched (RQ). A bar is full at PQ 1; "
    "what is lacking is lost exactly by masks that fit badly, by segments missed, and by segments found in vain. Background is "
    "left out."
)
BORDER_NOTE = (
    "Distances are in pixels from the nearest border between two true classes; pixels at a border have distance 1. Void is "
    "left out."
)
SUSPECT_NOTE = (
    "Places where a sure prediction contradicts the truth. Most are errors of the model; the better the model, the more of "
    "them are errors of the labels. Left the image, right the outlines of truth and prediction."
)


def atlas_sections(atlas: Atlas) -> list[str]:
    """The sections of a page, each empty where there is nothing to say."""
    return [
        section("Objects by cause", CAUSE_NOTE, _cause_part(atlas), side=True),
        section("Panoptic quality", QUALITY_NOTE, _quality_part(atlas), side=True),
        section("Borders and interiors", BORDER_NOTE, _border_part(atlas), side=True),
    ]


def _label_names(atlas: Atlas) -> tuple[str, ...]:
    """Names of the labels of borders.py: the classes, and what lies around objects."""
    return (*atlas.classes.names, "background")


def _border_part(atlas: Atlas) -> str:
    """Charts and a table of wrong pixels by distance from a border; empty without pixels."""
    pixels, wrong = atlas.borders.values  # (K + 1, B) each
    if not pixels.any():
        return ""
    near = BANDS.index(NEAR) + 1
    if not wrong.any():
        return '<p class="finding">No pixel is wrong.</p>'
    share, room = wrong[:, :near].sum() / wrong.sum(), pixels[:, :near].sum() / pixels.sum()
    inner = _ratio(wrong[:, near:].sum(), pixels[:, near:].sum())
    text = (
        f"{small_percent(share)} of all wrong pixels lie within {NEAR} px of a border, as do {small_percent(room)} of all "
        f"pixels. Farther inside, {small_percent(inner)} of the pixels are wrong."
    )
    names = band_names()
    where = wrong.sum(axis=0) / wrong.sum()
    rate = [_ratio(part, whole) for part, whole in zip(wrong.sum(axis=0), pixels.sum(axis=0), strict=True)]
    charts = bar_chart("Where wrong pixels lie", "of all wrong pixels", names, where, "pixels from a border")
    charts += bar_chart("How often a pixel is wrong", "of the pixels there", names, rate, "pixels from a border")
    return f'<p class="finding">{escape(text)}</p><div class="charts two">{charts}</div>{_border_table(atlas)}'


def _border_table(atlas: Atlas) -> str:
    """A table of the labels by their wrong pixels: how many of them lie near a border, and how often pixels are wrong there."""
    pixels, wrong = atlas.borders.values
    near, rows = BANDS.index(NEAR) + 1, []
    colors = (*atlas.classes.colors, (128, 128, 128))
    for k in np.argsort(-wrong.sum(axis=1), kind="stable"):
        if wrong[k].any():
            shares = (
                _ratio(wrong[k].sum(), wrong.sum()),
                _ratio(wrong[k, :near].sum(), wrong[k].sum()),
                _ratio(wrong[k, :near].sum(), pixels[k, :near].sum()),
                _ratio(wrong[k, near:].sum(), pixels[k, near:].sum()),
            )
            cells = "".join(f"<td>{meter(percent(each), each)}</td>" for each in shares)
            rows.append(f"<tr><td>{swatch(colors[k])}{escape(_label_names(atlas)[k])}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table{_dense(rows)}><thead><tr><th>True class</th><th>Of all wrong, %</th>'
        f"<th>Of them within {NEAR} px</th><th>Wrong within {NEAR} px</th><th>Wrong farther in</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def band_names() -> list[str]:
    """The bands of distance as they are written below a bar."""
    lows = [0, *BANDS]
    names = [str(high) if high - low == 1 else f"{low + 1}–{high}" for low, high in zip(lows[:-1], lows[1:], strict=True)]
    return [*names, f"> {BANDS[-1]}"]


def _cause_part(atlas: Atlas) -> str:
    """What AP is lost to, as a sentence and a table with bars; empty without objects."""
    if not atlas.has_objects:
        return ""
    ap, costs = atlas.objects.mean_ap(), atlas.objects.costs()
    dearest, gain = next(iter(costs.items()))
    text = f"AP at IoU 0.5 is {ap:.3f}"
    if gain > 0:
        text += f" and lacks {1 - ap:.3f}. Most is lost to {SPOKEN[dearest]}: {gain:.3f} of the {1 - ap:.3f}."
    elif ap < 1:
        text += ". Mending one cause alone would not raise it."
    else:
        text += "."
    scores = atlas.objects.scores
    if len(scores) > 1 and scores.min() == scores.max():
        text += " All predictions have the same score, so AP depends on their order; PQ does not."
    predicted, true = atlas.objects.predicted(), atlas.objects.true.sum(axis=0)
    longest = max(*costs.values(), 1e-9)  # 1e-9: nothing is lost at all
    rows = [_cause_row(MATCHED, "", predicted, true)]
    rows += [
        _cause_row(cause, meter(f"{gain:.3f}", max(gain, 0) / longest), predicted, true)
        for name, gain in costs.items()
        if predicted[cause := OUTCOMES.index(name)] + true[cause]
    ]
    return (
        f'<p class="finding">{escape(text)}</p><div class="scroll"><table class="causes"><thead><tr><th>Cause</th>'
        '<th class="main-column">AP lost</th><th class="num">Predictions</th><th class="num">True objects</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


SPOKEN = {
    "missed": "missed objects", "false": "false predictions", "merged": "merged objects", "split": "split objects",
    "mask quality": "masks that fit badly", "class": "wrong classes", "class and mask": "predictions wrong in class and mask",
    "duplicate": "duplicates",
}  # fmt: skip


def _cause_row(cause: int, bar: str, predicted: np.ndarray, true: np.ndarray) -> str:
    """A row of the table of causes: name and meaning, what it costs, predictions and true objects of that fate."""
    meaning = f"<div class=muted>{escape(MEANINGS[cause])}</div>" if cause in MEANINGS else ""
    numbers = "".join(f'<td class="num">{int(count[cause]) or "–"}</td>' for count in (predicted, true))
    return f"<tr><td>{swatch(FATE_COLORS[cause])}{OUTCOMES[cause]}{meaning}</td><td>{bar}</td>{numbers}</tr>"


def _quality_part(atlas: Atlas) -> str:
    """PQ of each class as a bar of what is reached and what is lost by what; empty without objects."""
    sums = atlas.quality.values  # (K, 4): IoU of matches, matches, false, missed
    size = sums[:, 1] + 0.5 * sums[:, 2] + 0.5 * sums[:, 3]
    if not atlas.has_objects:
        return ""
    known = (size > 0) & np.array([plain(name) != BACKGROUND for name in atlas.classes.names])
    if not known.any():
        return ""
    lost = np.stack([sums[:, 1] - sums[:, 0], 0.5 * sums[:, 3], 0.5 * sums[:, 2]], axis=1)[known] / size[known, None]
    scores = {title: values[known] for title, values in qualities(sums).items()}
    ids = np.flatnonzero(known)
    mean = lost.mean(axis=0)
    text = f"PQ is {percent(scores['PQ'].mean())} % on average over {len(ids)} class{'es' if len(ids) > 1 else ''}. "
    if mean.sum() > 0:
        how = ("masks that fit badly", "segments missed", "segments found in vain")
        order = np.argsort(-mean, kind="stable")
        text += f"Of what is lacking, {', '.join(f'{100 * mean[i] / mean.sum():.0f} % is lost by {how[i]}' for i in order)}."
    rows = []
    for place in np.argsort(-scores["PQ"], kind="stable"):
        k, parts = ids[place], [(float(scores["PQ"][place]), FATE_COLORS[MATCHED], "PQ")]
        parts += [
            (float(part), FATE_COLORS[color], name)
            for part, (name, color) in zip(lost[place], QUALITY_COLORS.items(), strict=True)
        ]
        numbers = "".join(f'<td class="num">{percent(scores[title][place])}</td>' for title in ("PQ", "SQ", "RQ"))
        rows.append(
            f"<tr><td>{swatch(atlas.classes.colors[k])}{escape(atlas.classes.names[k])}</td><td>{stack(parts)}</td>{numbers}</tr>"
        )
    chips = "".join(
        f"<span>{swatch(FATE_COLORS[color])}{name}</span>" for name, color in {"PQ": MATCHED, **QUALITY_COLORS}.items()
    )
    return (
        f'<p class="finding">{escape(text)}</p><div class="chips">{chips}</div><div class="scroll">'
        f"<table{_dense(rows)}><thead><tr><th>Class</th>"
        '<th class="main-column">Of a PQ of 1</th><th class="num">PQ, %</th><th class="num">SQ</th>'
        f'<th class="num">RQ</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def suspect_section(atlas: Atlas) -> str:
    """Cut-outs of the labels that are worth a look, the most doubtful of each kind in turn."""
    found = atlas.doubtful()
    if not found:
        return ""
    colors = {"truth": TRUE_COLOR, "prediction": PREDICTED_COLOR, "both": BOTH_COLOR}
    chips = "".join(f"<span>{swatch(color)}{name}</span>" for name, color in colors.items())
    cards = "".join(map(_suspect_card, found))
    return section("Labels to look at", SUSPECT_NOTE, f'<div class="chips">{chips}</div><div class="suspects">{cards}</div>')


def _suspect_card(suspect: LabelError) -> str:
    """One suspect: its picture, kind, reason and place."""
    picture = embedded(suspect.picture, escape(suspect.kind)) if suspect.picture else ""
    return (
        f'<figure class="suspect">{picture}<figcaption><b>{suspect.kind.capitalize()}</b><span>{escape(suspect.reason)}</span>'
        f"<span class=muted>{escape(suspect.key)}, {place_text(suspect.box)}</span></figcaption></figure>"
    )


def place_text(box: Sequence[tuple[int, int]]) -> str:
    """A box in words: columns and rows, and the slices of a volume."""
    names = ("slice", "row", "column")[-len(box) :]
    parts = [
        f"{name}s {low}–{high - 1}" if high - low > 1 else f"{name} {low}" for name, (low, high) in zip(names, box, strict=True)
    ]
    return ", ".join(parts)


def _dense(rows: Sequence[str]) -> str:
    """The attribute of a table whose rows are so many that they move closer."""
    return " class=dense" if len(rows) > MANY_ROWS else ""


def _ratio(part: float, whole: float) -> float:
    """part / whole, NaN where the whole is 0."""
    return float(part / whole) if whole else float("nan")


def fate_chips(shown: Iterable[int]) -> str:
    """Names and colours of the fates that are shown."""
    return "".join(f"<span>{swatch(FATE_COLORS[fate])}{OUTCOMES[fate]}</span>" for fate in sorted(shown))
