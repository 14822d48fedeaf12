import numpy as np
import pytest

from segwright.inspection.contact_sheet import GREY, PictureRow, contact_sheet, hatched

RED, GREEN = (255, 0, 0), (0, 200, 0)


def picture(height, width, color) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


def places_of(sheet, color) -> np.ndarray:
    return np.argwhere((sheet == color).all(axis=2))


def test_pictures_are_on_the_sheet_each_in_its_cell():
    rows = [PictureRow("a", [picture(40, 60, RED), picture(20, 30, GREEN)]), PictureRow("b", [picture(40, 60, GREEN)] * 2)]
    sheet = contact_sheet("Title", "Some words.", [], ["as it is", "draw 1"], rows)
    assert sheet.dtype == np.uint8 and sheet.ndim == 3
    red, green = places_of(sheet, RED), places_of(sheet, GREEN)
    assert len(red) == 40 * 60 and len(green) == 20 * 30 + 2 * 40 * 60
    middle = red.mean(axis=0)
    beside = green[green[:, 0] < red[:, 0].max() + 1]
    assert (
        beside.mean(axis=0)[0] == pytest.approx(middle[0], abs=1) and beside.mean(axis=0)[1] == middle[1] + 68
    )  # 60 and a gap


def test_colours_of_the_legend_are_shown_and_long_ones_are_broken_into_lines():
    def sheet(count):
        legend = [(f"class number {n}", (0, 0, n + 1)) for n in range(count)] + [("void", None)]
        return contact_sheet("Title", "words " * 100, legend, ["one"], [PictureRow("a", [picture(10, 10, RED)])])

    many, few = sheet(40), sheet(3)
    for n in range(0, 40, 13):
        assert len(places_of(many, (0, 0, n + 1))) > 50
    assert len(many) > len(few) + 80 and many.shape[1] == few.shape[1]


@pytest.mark.parametrize("name", ["x" * 500, "", "naïve – Ärzte 細胞"])
def test_any_name_fits(name):
    sheet = contact_sheet(name, name, [(name, GREEN)], [name], [PictureRow(name, [picture(10, 10, RED)])])
    assert (sheet[:, -10:] == 255).all() and len(places_of(sheet, RED)) == 100


def test_hatching_leaves_the_rest_as_it_is():
    where = np.zeros((32, 32), bool)
    where[:16] = True
    result = hatched(picture(32, 32, RED), where)
    grey = (result == GREY).all(axis=2)
    assert not grey[16:].any() and grey[:16].mean() == 0.25
    assert (result[~grey] == RED).all()
