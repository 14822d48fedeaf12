import numpy as np
import pytest

from segwright.inspection.label_colors import about_colors, about_palettes
from segwright.inspection.sample_scan import MaskLook, SampleScan

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


def scan(key, mask, problem=""):
    return SampleScan(
        key=key, part="", shape=(8, 8), channels=1, dtype="uint8", scale=1.0, step=None, thumb=np.zeros((32, 32)), digest=b"",
        borders=None, mask=mask, problem=problem,
    )  # fmt: skip


def picture(counts, inside=None, is_lossy=False):
    """A look at colours with their pixels, and how many of these lie inside areas: all, where nothing else is said."""
    colors, pixels = np.array([*counts], np.uint8), np.array([*counts.values()])
    areas = pixels if inside is None else np.array([inside.get(color, 0) for color in counts])
    mask = MaskLook((8, 8), np.arange(len(colors)), pixels, 0 * pixels, colors, 1, areas, 0 * pixels, is_lossy=is_lossy)
    return scan("a", mask)


def palette(key, colors, values=None, problem="", is_reordered=False):
    values = np.arange(len(colors)) if values is None else np.array(values)
    ones = np.ones_like(values)
    mask = MaskLook((8, 8), values, ones, ones, None, 1, ones, ones, np.array(colors, np.uint8), is_reordered=is_reordered)
    return scan(key, mask, problem)


def test_colors_without_a_palette():
    (finding,) = about_colors([picture({(1, 2, 3): 5, BLACK: 9})], 3, None)
    assert (finding.name, finding.level) == ("rgb-masks", "error") and finding.evidence.startswith(
        "1 of 3 masks hold 2 colours"
    )
    masks = {"classes": ["color_0_0_0", "color_1_2_3"], "palette": [[0, 0, 0], [1, 2, 3]], "masks": "colors"}
    assert finding.fix.masks == masks and finding.numbers["colors"] == [[0, 0, 0, 9], [1, 2, 3, 5]]


def test_colors_that_the_palette_names_are_well():
    known = {"classes": ["a"], "palette": [[1, 2, 3]]}
    assert about_colors([picture({(1, 2, 3): 5, BLACK: 9})], 1, known) == []
    (finding,) = about_colors([picture({(1, 2, 3): 5, (9, 9, 9): 9})], 1, known)
    assert finding.fix.masks == {"classes": ["a", "color_9_9_9"], "palette": [[1, 2, 3], [9, 9, 9]], "masks": "colors"}


def test_blends_of_colors_are_no_classes():
    blurred = {RED: 50, BLUE: 50, BLACK: 90, (128, 0, 0): 4, (70, 0, 0): 4, (0, 0, 99): 4, (100, 0, 155): 4}
    areas = {RED: 40, BLUE: 40, BLACK: 80}
    (finding,) = about_colors([picture(blurred, areas)], 1, None)
    assert finding.fix.masks["classes"] == ["color_0_0_0", "color_0_0_255", "color_255_0_0"] and finding.fix.masks["nearest"]
    given = {"classes": ["r", "b"], "palette": [[*RED], [*BLUE]]}
    (finding,) = about_colors([picture(blurred, areas)], 1, given)
    assert (finding.name, finding.level, finding.fix.masks) == ("smoothed-masks", "error", given | {"nearest": True})
    assert about_colors([picture(blurred, areas)], 1, given | {"nearest": True}) == []
    thin = {RED: 50, BLUE: 50, (0, 200, 0): 4}  # a colour of its own, drawn thin, is a class
    (finding,) = about_colors([picture(thin, {RED: 40, BLUE: 40})], 1, None)
    assert len(finding.fix.masks["classes"]) == 3 and "nearest" not in finding.fix.masks


def test_of_a_jpeg_each_color_is_the_nearest():
    noisy = {(254, 0, 1): 40, (230, 5, 3): 9, BLACK: 90, (120, 0, 0): 9}
    (finding,) = about_colors([picture(noisy, {(254, 0, 1): 30, BLACK: 80, (230, 5, 3): 5}, is_lossy=True)], 1, None)
    assert finding.fix.masks["palette"] == [[0, 0, 0], [254, 0, 1]] and finding.fix.masks["nearest"]
    given = {"classes": ["x", "r"], "palette": [[0, 0, 0], [*RED]]}
    (finding,) = about_colors([picture(noisy, {}, is_lossy=True)], 1, given)
    assert finding.level == "note" and finding.fix.masks == given | {"nearest": True}


@pytest.mark.parametrize("is_lossy", [False, True])
def test_photographs_have_no_remedy(is_lossy):
    many = {(red, green, 0): 1 for red in range(20) for green in range(20)}
    (finding,) = about_colors([picture(many, {}, is_lossy)], 1, None)
    assert finding.fix is None and "Export them again as PNG" in finding.remedy


def test_palettes_that_differ():
    same = [palette("a", [BLACK, RED]), palette("b", [BLACK, RED]), palette("c", [RED], [1])]
    assert about_palettes(same, None) == []
    (finding,) = about_palettes([palette("a", [BLACK, RED]), palette("b", [BLACK, BLUE])], None)
    assert finding.name == "mixed-palettes" and "the index 1 as (255, 0, 0) and as (0, 0, 255)" in finding.evidence
    assert finding.fix.masks["palette"] == [[0, 0, 0], [0, 0, 255], [255, 0, 0]] and finding.fix.masks["masks"] == "colors"
    mixed = [palette("a", [BLACK, RED]), palette("b", [BLACK, BLUE], problem="differ")]
    assert about_palettes(mixed, {"classes": ["x", "y"]})[0].fix is None  # nobody knows which colour is which class
    known = {"classes": ["x", "y", "z"], "palette": [[*BLACK], [*RED], [*BLUE]]}
    assert about_palettes(mixed[:1], known) == [] and about_palettes(mixed, known) != []


def test_a_palette_of_black_on_red():
    (finding,) = about_palettes([palette("a", [RED, BLACK])], None)
    assert finding.name == "mixed-palettes" and "1 as black" in finding.evidence


def test_greys_in_another_order():
    (finding,) = about_palettes([palette("a", [BLACK], is_reordered=True)], None)
    assert (finding.name, finding.level, finding.fix) == ("palette-order", "note", None)
