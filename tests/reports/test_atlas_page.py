import re

import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.evaluation.error_analysis import Atlas
from segwright.reports.atlas_page import atlas_sections, band_names, place_text, suspect_section

THINGS = Classes.of(["cell", "dot"], is_thing=[True, True])
STUFF = Classes.of(["sky", "road"])
EVIL = Classes.of(["<script>", 'a" onload="x'], is_thing=[True, True])


def row_of(*spans, classes=THINGS, scores=None):
    masks = np.zeros((len(spans), 1, 60), bool)
    for mask, span in zip(masks, spans, strict=True):
        mask[0, span[0] : span[1]] = True
    kinds = [span[2] if len(span) > 2 else 0 for span in spans]
    return Segmentation.instances(masks, kinds, scores=scores, classes=classes)


def text_of(html, read_html):
    return " ".join("\n".join(read_html(html).text).replace("\u00a0", " ").split())


def test_causes_say_what_costs_most(read_html):
    atlas = Atlas.of("a", row_of((0, 10), (40, 44)), row_of((0, 10), (20, 30), (40, 50)))
    text = text_of("".join(atlas_sections(atlas)), read_html)
    assert "AP at IoU 0.5 is 0.337 and lacks 0.663. Most is lost to " in text
    assert re.search(r"matched 1 1 .*mask quality right class, but the IoU is only 0.1 to 0.5 0.\d+ 1 1", text)
    assert "missed a true object that no prediction is about" in text and "duplicate the true" not in text


def test_equal_scores_are_told(read_html):
    told = "All predictions have the same score"
    for scores, expected in ((None, True), ([0.5, 0.6], False)):
        atlas = Atlas.of("a", row_of((0, 10), (40, 44), scores=scores), row_of((0, 10)))
        assert (told in text_of(atlas_sections(atlas)[0], read_html)) is expected


def test_quality_is_split_exactly(read_html):
    atlas = Atlas.of("a", row_of((0, 8), (40, 44)), row_of((0, 10), (20, 30)))
    html = "".join(atlas_sections(atlas))
    text = text_of(html, read_html)
    assert "PQ is 40.0 % on average over 1 class." in text  # IoU 0.8 of one match, one false, one missed: 0.8 / 2
    assert (
        "42 % is lost by segments missed, 42 % is lost by segments found in vain, 17 % is lost by masks that fit badly" in text
    )
    widths = [float(width) for width in re.findall(r'y="0" width="([\d.]+)" height="10"', html)]
    assert widths == [40, 10, 25, 25] and "80.0 50.0" in text


def test_borders_by_hand(read_html):
    truth = np.repeat([[0, 1]], 30, axis=1)
    guess = truth.copy()
    guess[0, [28, 29, 59]] = [1, 1, 0]
    atlas = Atlas.of("a", Segmentation.semantic(guess, STUFF), Segmentation.semantic(truth, STUFF))
    sections = atlas_sections(atlas)
    assert sections[0] == sections[1] == ""  # no objects
    text = text_of(sections[2], read_html)
    assert "66.7 % of all wrong pixels lie within 4 px of a border, as do 13.3 % of all pixels." in text
    assert "Farther inside, 1.9 % of the pixels are wrong." in text
    assert "sky 66.7 100.0 50.0 0.0 road 33.3 0.0 0.0 3.8" in text
    assert "No pixel is wrong" in "".join(atlas_sections(Atlas.of("a", *[Segmentation.semantic(truth, STUFF)] * 2)))


def test_perfect_objects_lack_nothing(read_html):
    truth = row_of((0, 10), (20, 30))
    text = text_of("".join(atlas_sections(Atlas.of("a", truth, truth))), read_html)
    assert "AP at IoU 0.5 is 1.000." in text and "PQ is 100.0 %" in text and "Most is lost" not in text


def test_nothing_to_say():
    void = Segmentation.semantic(np.full((4, 4), -1), STUFF)
    atlas = Atlas.of("a", void, void)
    assert atlas_sections(atlas) == ["", "", ""] and suspect_section(atlas) == ""


def squares(*places, classes=THINGS, kinds=None):
    masks = np.zeros((len(places), 64, 64), bool)
    for mask, (row, column) in zip(masks, places, strict=True):
        mask[row : row + 8, column : column + 8] = True
    return Segmentation.instances(masks, kinds or [0] * len(places), classes=classes)


def test_suspects_have_picture_reason_and_place(read_html):
    atlas = Atlas.of("some__key", squares((0, 0), (0, 20), (40, 40)), squares((0, 0), (0, 20)), np.zeros((3, 64, 64)))
    html = suspect_section(atlas)
    tags = read_html(html)
    assert tags.seen.count("img") == 1
    text = text_of(html, read_html)
    assert "Missing label predicted cell, score 1.00 some__key, rows 40–47, columns 40–47" in text
    assert "img" not in suspect_section(Atlas.of("k", squares((0, 0), (40, 40)), squares((0, 0))))


@pytest.mark.parametrize("box", [((3, 4), (0, 9), (2, 8))])
def test_places_in_words(box):
    assert place_text(box) == "slice 3, rows 0–8, columns 2–7" and place_text(box[1:]) == "rows 0–8, columns 2–7"
    assert band_names() == ["1", "2", "3–4", "5–8", "9–16", "> 16"]


def test_law_words_from_outside_stay_words(read_html):
    truth = squares((0, 0), (0, 20), (40, 0), classes=EVIL)
    atlas = Atlas.of("<img>", squares((0, 0), (0, 20), (40, 0), classes=EVIL, kinds=[0, 1, 0]), truth, np.zeros((1, 64, 64)))
    html = "".join(atlas_sections(atlas)) + suspect_section(atlas)
    text = text_of(html, read_html)
    assert "<script>" in text and "<img>" in text and 'a" onload="x' in text


def test_many_classes_stay_light(read_html):
    classes = Classes.of([f"class {k}" for k in range(150)])
    rng = np.random.default_rng(0)
    truth, guess = (Segmentation.semantic(rng.integers(0, 150, (90, 90)), classes) for _ in range(2))
    html = "".join(atlas_sections(Atlas.of("a", guess, truth)))
    read_html(html)
    assert len(html) < 200_000
