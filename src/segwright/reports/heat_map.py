"""The confusion matrix as a picture (SVG) and as a list of the largest mistakes. Axes: K classes."""

from html import escape

import numpy as np

from segwright.evaluation.scores import Scores
from segwright.reports.html.page import percent, small_percent

WIDTH = 860  # units of the drawing: the column of the page at full size
MAX_CELL, MAX_FONT = 46, 12.5
MAX_CLASSES = 200  # beyond, a cell would be less than four pixels wide; the list of mistakes says more
NUMBER_CELL = 27  # a cell of this size holds a number of two digits
LONGEST_NAME = 22  # letters of a name beside the matrix; pointing at a cell shows it whole
MAX_MISTAKES = 12
VOID_NAME = "nothing"  # what a pixel without a predicted class is called


def confusion_map(scores: Scores) -> str:
    """An SVG heat map of the shares of each true class (rows) over the predicted classes (columns); empty without pixels.

    Classes that are neither in the truth nor predicted are left out.
    """
    names, columns, matrix = _occurring(scores)
    if not matrix.any() or len(matrix) > MAX_CLASSES:
        return ""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    labels = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in columns]
    room = 7.0 * max(len(label) for label in labels) + 14  # 7: width of a letter at the largest font
    cell = min(MAX_CELL, (WIDTH - 1.7 * room) / len(columns))  # 1.7: names stand left of the rows and lean over the right edge
    font = min(MAX_FONT, 0.92 * cell)
    room = max(room * font / MAX_FONT, 20)
    top = 0.74 * room + 8  # names above the columns lean by 45 degrees
    width, height = room + cell * len(columns) + 0.74 * room, top + cell * len(matrix) + 2
    parts = []
    for k, label in enumerate(labels):
        x = room + (k + 0.5) * cell
        parts.append(
            f'<text class="name" style="font-size:{font:.1f}px" transform="translate({x + 0.2 * font:.1f} {top - 6:.1f}) '
            f'rotate(-45)">{escape(label)}</text>'
        )
    for k, row in enumerate(shares):
        y = top + k * cell
        parts.append(
            f'<text class="name" style="font-size:{font:.1f}px" x="{room - 9:.1f}" y="{y + 0.5 * cell + 0.35 * font:.1f}" '
            f'text-anchor="end">{escape(labels[k])}</text>'
            f'<rect class="empty" x="{room:.1f}" y="{y + 0.5:.2f}" width="{cell * len(columns):.1f}" '
            f'height="{cell - 1:.2f}"></rect>'
        )
        parts += [
            _heat_cell(
                room + j * cell, y, cell, float(row[j]), j == k, f"{names[k]} taken for {columns[j]}" if j != k else names[k]
            )
            for j in np.flatnonzero((row >= 0.001) | (np.arange(len(row)) == k) & (row > 0))  # 0.001: less cannot be seen
        ]
    size = f"width:100%;max-width:{width:.0f}px;min-width:{min(width, 620):.0f}px"  # 620: narrower, a phone scrolls sideways
    return (
        f'<div class="matrix scroll"><svg viewBox="0 0 {width:.0f} {height:.0f}" style="{size}" role="img" '
        f'aria-label="Confusion matrix">{"".join(parts)}</svg></div>'
    )


def _heat_cell(x: float, y: float, cell: float, share: float, is_right: bool, title: str) -> str:
    """One square of the map, with its number where there is room."""
    strength = share**0.5
    style = f'class="{"right" if is_right else "wrong"}" fill-opacity="{strength:.2f}"'
    place = f'x="{x + 0.5:.2f}" y="{y + 0.5:.2f}" width="{cell - 1:.2f}" height="{cell - 1:.2f}"'
    square = f"<rect {style} {place}><title>{escape(title)}: {small_percent(share)}</title></rect>"
    if cell < NUMBER_CELL or share < 0.005:  # 0.005: below, the number would be 0
        return square
    shade = "on" if strength > 0.62 else "off"  # from there on, the paper's colour reads better than ink
    number = (
        f'<text class="{shade}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}" text-anchor="middle" pointer-events="none">'
    )
    return f"{square}{number}{percent(share, 0)}</text>"


def mistakes(scores: Scores) -> str:
    """A list of the mistakes that cost the most pixels, as shares of all true pixels and of the true class."""
    names, columns, matrix = _occurring(scores)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    largest = np.argsort(wrong, axis=None, kind="stable")[::-1][:MAX_MISTAKES]
    items = []
    for truth, guess in zip(*np.unravel_index(largest, wrong.shape), strict=True):
        if wrong[truth, guess]:
            of_all, of_class = wrong[truth, guess] / matrix.sum(), wrong[truth, guess] / matrix[truth].sum()
            right, taken = escape(names[truth]), escape(columns[guess])
            items.append(
                f"<li><b>{small_percent(of_all)}</b><span>{right} taken for {taken} "
                f'<span class="muted">{small_percent(of_class)} of {right}</span></span></li>'
            )
    title = '<h3 style="margin:26px 0 -12px">Largest mistakes, of all pixels</h3>'
    return f'{title}<ul class="mistakes">{"".join(items)}</ul>' if items else ""


def _occurring(scores: Scores) -> tuple[list[str], list[str], np.ndarray]:
    """Names of the rows and of the columns, and the matrix of the classes that occur.

    Columns are one more than rows where some pixels have no predicted class.
    """
    matrix = scores.confusion()
    there = np.flatnonzero(matrix.sum(axis=1) + matrix[:, : len(matrix)].sum(axis=0))
    names = [scores.classes.names[k] for k in there]
    columns = [*there, len(matrix)] if matrix[:, -1].any() else list(there)
    return names, names + [VOID_NAME] * (len(columns) - len(there)), matrix[np.ix_(there, columns)]
