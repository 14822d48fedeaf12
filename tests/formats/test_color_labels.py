from pathlib import Path

import numpy as np
import pytest

from segwright.core import VOID
from segwright.core.errors import FormatError
from segwright.core.visualise import paint
from segwright.formats.color_labels import ColorCode

HERE = Path("mask.png")
STREETS = ColorCode(np.array([[128, 64, 128], [0, 0, 142]], np.uint8), np.array([0, 1]), ("road", "car"))


def picture(*colors):
    return np.array([colors]).transpose(2, 0, 1)


# By hand


def test_colors_become_classes_and_black_is_void():
    class_map = STREETS.class_map(picture((0, 0, 142), (128, 64, 128), (0, 0, 0)), HERE, "classes.json")
    assert class_map.tolist() == [[1, 0, VOID]] and class_map.dtype == np.int32


def test_black_may_be_a_class_and_a_class_void():
    code = ColorCode(np.array([[0, 0, 0], [9, 9, 9]], np.uint8), np.array([5, VOID]), ("ground", "rest"))
    assert code.class_map(picture((0, 0, 0), (9, 9, 9)), HERE, "x").tolist() == [[5, VOID]]


def test_volumes():
    assert STREETS.class_map(np.zeros((3, 2, 3, 4), np.uint8), HERE, "x").shape == (2, 3, 4)


def test_others_count_as_the_nearest():
    colors = picture((120, 70, 120), (2, 3, 60), (2, 3, 80), (128, 64, 128))
    assert STREETS.class_map(colors, HERE, "x", is_nearest=True).tolist() == [[0, VOID, 1, 0]]  # black is as near as others


def test_colors_that_are_known():
    assert STREETS.knows(np.array([[0, 0, 142], [0, 0, 0]])) and not STREETS.knows(np.array([[0, 0, 142], [1, 0, 0]]))
    assert not STREETS.knows(np.array([[0, 0, 0]]))  # black alone says nothing


# By a law


def test_painted_maps_come_back():
    generator = np.random.default_rng(0)
    palette = np.unique(generator.integers(1, 256, (200, 3), dtype=np.uint8), axis=0)
    generator.shuffle(palette)
    code = ColorCode(palette, np.arange(len(palette)), tuple(map(str, range(len(palette)))))
    class_map = generator.integers(VOID, len(palette), (40, 50))
    back = code.class_map(np.moveaxis(paint(class_map, palette), -1, 0), HERE, "x")
    assert np.array_equal(back, class_map)


# By its messages


def test_an_unknown_color_is_named_with_the_nearest():
    wrong = picture((0, 0, 140), (0, 0, 140), (128, 64, 128), (1, 2, 3))
    with pytest.raises(
        FormatError,
        match=r"mask.png holds the colour \(0, 0, 140\) at 2 of 4 pixels, which no class in classes.json has; "
        r"the nearest is \(0, 0, 142\) of 'car'; add the colour there, or correct the mask",
    ):
        STREETS.class_map(wrong, HERE, "classes.json")
    nearest = STREETS.class_map(wrong, HERE, "classes.json", is_nearest=True)  # as the message proposes
    assert nearest.tolist() == [[1, 1, 0, VOID]]


def test_pictures_that_are_no_masks():
    with pytest.raises(FormatError, match="has 4 channels of values 0..0; a mask of colours has three of 0..255"):
        STREETS.class_map(np.zeros((4, 2, 2), np.uint8), HERE, "x")
    with pytest.raises(FormatError, match="has 3 channels of values 0..300"):
        STREETS.class_map(picture((0, 0, 300)), HERE, "x")
    twins = ColorCode(np.array([[1, 2, 3], [4, 5, 6], [1, 2, 3]], np.uint8), np.arange(3), ("a", "b", "c"))
    with pytest.raises(FormatError, match=r"x gives \(1, 2, 3\) to 'a' and to 'c'; make the colours differ there"):
        twins.class_map(picture((1, 2, 3)), HERE, "x")
