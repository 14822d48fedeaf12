"""What the numbers mean."""

import colorsys
from dataclasses import FrozenInstanceError
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.core import Classes
from segwright.core.classes import MAX_CLASSES, distinct_colors, spellings
from segwright.core.errors import SettingError

# By hand


def test_spellings_of_one_name():
    assert spellings(["a", "B", "b ", "a", "_b_"]) == {"a": ["a"], "b": ["B", "b ", "_b_"]}


def test_names_alone_are_enough():
    classes = Classes.of(["road", "car"])
    assert len(classes) == 2
    assert classes.names == ("road", "car")
    assert classes.is_thing == (False, False)
    assert classes.palette.shape == (2, 3)
    assert classes.palette.dtype == np.uint8


def test_colours_and_things_are_kept():
    classes = Classes.of(["road", "car"], colors=[[128, 64, 128], [64, 0, 128]], is_thing=[False, True])
    assert classes.colors == ((128, 64, 128), (64, 0, 128))
    assert classes.is_thing == (False, True)


def test_colours_may_be_an_array():
    palette = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
    classes = Classes.of(["a", "b"], colors=palette)
    assert classes.colors == ((1, 2, 3), (4, 5, 6))
    assert type(classes.colors[0][0]) is int  # not a numpy number: it is written to JSON and HTML
    np.testing.assert_array_equal(classes.palette, palette)


def test_classes_are_values():
    assert Classes.of(["a", "b"]) == Classes.of(["a", "b"])
    assert hash(Classes.of(["a"])) == hash(Classes.of(["a"]))
    with pytest.raises(FrozenInstanceError):
        Classes.of(["a"]).names = ("b",)


def test_as_many_as_a_16_bit_png_can_hold_are_quick():
    start = perf_counter()
    classes = Classes.of([f"class_{k}" for k in range(MAX_CLASSES)])
    assert perf_counter() - start < 2.0  # about 0.15 s; a comparison of all pairs would take minutes
    assert len(classes) == 65_535


def test_regions_are_the_numbers_inside_each_class():
    classes = Classes.of(["whole", "core"], regions=[[1, 2], [2]])
    assert classes.regions == ((1, 2), (2,)) and Classes.of(["whole", "core"]).regions == ()


@pytest.mark.parametrize(
    ("names", "regions"),
    [(["a", "b"], [[1]]), (["a", "b"], [[1], []]), (["a", "b"], [[0, 1], [1]]), (["a"], [[65_535]]), (["Background"], [[1]])],
)
def test_regions_that_files_cannot_hold_are_told(names, regions):
    with pytest.raises(SettingError, match="give for each the numbers from 1 to 65534 that lie in it, and leave out the back"):
        Classes.of(names, regions=regions)


def test_regions_that_write_the_same_number_are_told():
    with pytest.raises(SettingError, match="2 regions have 1 as their first number.*begin the numbers of each region with an"):
        Classes.of(["a", "b", "c"], regions=[[1, 2], [1], [3]])


# By a slow twin


def test_colours_equal_the_standard_library():
    for index, color in enumerate(distinct_colors(50)):
        hue = (0.61 + 0.381966 * index) % 1
        expected = colorsys.hsv_to_rgb(hue, 0.75, 0.70 if index % 2 else 0.95)
        assert np.abs(np.array(color) - 255 * np.array(expected)).max() <= 0.5 + 1e-6


# By a law


@given(st.integers(1, 300), st.integers(0, 300))
def test_a_colour_depends_on_its_index_only(count, more):
    assert distinct_colors(count + more)[:count] == distinct_colors(count)


def test_colours_are_distinct():
    assert len(set(distinct_colors(600))) == 600
    first = np.array(distinct_colors(20), dtype=float)
    distance = np.linalg.norm(first[:, None] - first, axis=-1) + 1000 * np.eye(20)
    assert distance.min() > 20  # of 441: two colours that far apart can be told apart side by side
    assert first.max(axis=1).min() > 100  # none is near the black of void


# By its messages


def test_no_class_at_all():
    with pytest.raises(SettingError, match="0 classes were given; between 1 and 65535 are possible"):
        Classes.of([])


def test_too_many_classes():
    names = [str(k) for k in range(MAX_CLASSES + 1)]
    with pytest.raises(SettingError, match="65536 classes were given; .*merge some"):
        Classes.of(names)
    Classes.of(names[:-1])


def test_a_name_twice_is_found_quickly_among_many():
    names = [str(k) for k in range(MAX_CLASSES - 1)] + ["17"]
    start = perf_counter()
    with pytest.raises(SettingError, match="class name '17' appears 2 times; name each class once"):
        Classes.of(names)
    assert perf_counter() - start < 2.0


@pytest.mark.parametrize(("colors", "is_thing"), [([(0, 0, 0)], None), (None, [True]), ([], None)])
def test_one_colour_and_one_flag_per_class(colors, is_thing):
    with pytest.raises(SettingError, match="2 names, .* give one of each per class"):
        Classes.of(["a", "b"], colors=colors, is_thing=is_thing)


@pytest.mark.parametrize("color", [(256, 0, 0), (0, -1, 0)])
def test_colours_fit_a_byte(color):
    with pytest.raises(SettingError, match="colour .* was given; red, green and blue from 0 to 255 are needed"):
        Classes.of(["a"], colors=[color])
