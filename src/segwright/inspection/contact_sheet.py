"""Rows of pictures on one sheet, under a title and a legend. Pictures are RGB uint8 (H, W, 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN = 8, 24  # pixels between pictures, and around all
TITLE_PX, TEXT_PX, LINE = 22, 14, 21  # heights of letters, and of a line of text
CHIP = 13  # pixels: a side of a colour in the legend
NARROWEST = 640  # pixels of a sheet: less is too narrow to read a sentence on
PAPER, INK, GREY = (255, 255, 255), (24, 27, 32), (104, 110, 118)
STRIPE, STRIPE_WIDTH = 8, 2  # pixels: the period of hatching, and how much of it is line

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int]
_Chip = tuple[str, Color | None]
_Part = TypeVar("_Part")


@dataclass(frozen=True, eq=False)
class PictureRow:
    """Pictures beside each other, under a name."""

    name: str
    pictures: Sequence[np.ndarray]


def contact_sheet(
    title: str, text: str, legend: Sequence[tuple[str, Color | None]], columns: Sequence[str], rows: Sequence[PictureRow]
) -> np.ndarray:
    """A picture of title, text, legend and rows, each picture in the middle of its cell.

    The legend is names and their colours, None for what is hatched. There is one name for each column.
    """
    cell = np.max([picture.shape[:2] for row in rows for picture in row.pictures], axis=0)
    font = ImageFont.load_default(TEXT_PX)
    width = max(NARROWEST, 2 * MARGIN + len(columns) * (int(cell[1]) + GAP) - GAP)
    inside = width - 2 * MARGIN
    words = [_cut(word, font, inside) for word in text.split()]
    chips = [(_cut(name, font, inside - 3 * CHIP), color) for name, color in legend]
    word_lines = _lines(words, [font.getlength(f"{word} ") for word in words], inside)
    chip_lines = _lines(chips, [font.getlength(name) + 3 * CHIP for name, _ in chips], inside)
    top = MARGIN + 2 * TITLE_PX + LINE * (len(word_lines) + len(chip_lines) + 1)
    row_height = int(cell[0]) + LINE + 2 * GAP
    sheet = Image.new("RGB", (width, top + LINE + GAP + len(rows) * row_height + MARGIN - 2 * GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), _cut(title, ImageFont.load_default(TITLE_PX), inside), INK, ImageFont.load_default(TITLE_PX))
    y = MARGIN + 2 * TITLE_PX - TITLE_PX // 2
    for word_line in word_lines:
        draw.text((MARGIN, y), " ".join(word_line), GREY, font)
        y += LINE
    y += LINE // 2
    for chip_line in chip_lines:
        _draw_chips(sheet, draw, chip_line, y, font)
        y += LINE
    for place, column in enumerate(columns):
        draw.text((MARGIN + place * (cell[1] + GAP), top), _cut(column, font, float(cell[1])), GREY, font)
    for number, row in enumerate(rows):
        y = top + LINE + GAP + number * row_height
        draw.text((MARGIN, y), _cut(row.name, font, inside), INK, font)
        for place, picture in enumerate(row.pictures):
            above, left = (cell - picture.shape[:2]) // 2
            sheet.paste(Image.fromarray(picture), (int(MARGIN + place * (cell[1] + GAP) + left), int(y + LINE + above)))
    return np.asarray(sheet)


def hatched(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A picture with grey lines over the pixels of a mask bool (H, W)."""
    rows, columns = (np.arange(side) for side in where.shape)
    is_line = np.add.outer(rows, columns) % STRIPE < STRIPE_WIDTH
    return np.where((where & is_line)[..., None], np.array(GREY, np.uint8), picture)


def _draw_chips(sheet: Image.Image, draw: ImageDraw.ImageDraw, chips: Sequence[_Chip], y: int, font: _Font) -> None:
    """A line of the legend."""
    x = MARGIN
    for name, color in chips:
        swatch = np.full((CHIP, CHIP, 3), PAPER if color is None else color, np.uint8)
        if color is None:
            swatch = hatched(swatch, np.ones((CHIP, CHIP), bool))
        sheet.paste(Image.fromarray(swatch), (x, y + 2))
        draw.rectangle((x, y + 2, x + CHIP - 1, y + 1 + CHIP), outline=GREY)
        draw.text((x + CHIP + CHIP // 2, y), name, INK, font)
        x += round(font.getlength(name)) + 3 * CHIP


def _lines(parts: Sequence[_Part], lengths: Sequence[float], width: float) -> list[list[_Part]]:
    """Parts of some lengths, as many in a line as fit the width, at least one."""
    lines: list[list[_Part]] = []
    filled = 0.0
    for part, length in zip(parts, lengths, strict=True):
        if not lines or filled + length > width:
            lines.append([])
            filled = 0.0
        lines[-1].append(part)
        filled += length
    return lines


def _cut(text: str, font: _Font, width: float) -> str:
    """A text, without its beginning where it is longer than the width: what tells keys and paths apart is their end."""
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(f"...{text}") > width:
        text = text[1:]
    return f"...{text}"
