"""Pictures of segments: lines and numbers by hand, and what stays as without objects."""

import numpy as np
import pytest

from segwright.core import VOID, Classes, Segmentation
from segwright.core.segment_overlay import flat, innermost, overlay_segments
from segwright.core.visualise import overlay

CLASSES = Classes.of(["road", "car"], colors=[(90, 90, 90), (0, 0, 200)], is_thing=[False, True])
GREY = np.full((3, 40, 80), 100, np.uint8)


def two_cars(first=7, second=12):
    """Two cars side by side, 40 x 40 pixels each."""
    return Segmentation.panoptic(np.repeat([[1] * 40 + [2] * 40], 40, axis=0), [1, 1], [first, second], classes=CLASSES)


def is_ink(picture):
    return (picture > 240).all(axis=-1)


# By hand


def test_a_line_parts_neighbours_of_one_class():
    picture = overlay_segments(GREY, two_cars(0, 0))
    assert tuple(picture[20, 39]) == tuple(picture[20, 41]) == (50, 50, 150)  # half of the image, half of the colour
    assert tuple(picture[20, 40]) == (173, 173, 213)  # 0.4 of that and 0.6 of white


def test_each_object_bears_its_number_in_its_middle():
    picture = overlay_segments(GREY, two_cars())
    changed = (picture != overlay_segments(GREY, two_cars(0, 0))).any(axis=-1)
    rows, columns = np.nonzero(changed)
    for half, middle in ((columns < 40, 20), (columns >= 40, 60)):
        assert abs(columns[half].min() + columns[half].max() - 2 * middle) <= 4
        assert abs(rows[half].min() + rows[half].max() - 2 * 20) <= 4
        assert rows[half].max() - rows[half].min() >= 8  # it can be read
        assert columns[half].min() > middle - 20 and columns[half].max() < middle + 19  # and stays inside
    assert is_ink(picture).any()


def test_numbers_differ_as_those_of_the_objects_do():
    pictures = [overlay_segments(GREY, two_cars(number)) for number in (1, 2, 1)]
    assert (pictures[0] != pictures[1]).any() and (pictures[0] == pictures[2]).all()


def test_small_objects_stuff_and_crowds_bear_none():
    segments = np.zeros((40, 80), int)
    segments[:, :30], segments[:, 30:60], segments[5:11, 70:76] = 1, 2, 3
    shown = Segmentation.panoptic(segments, [0, 1, 1], [0, 0, 5], classes=CLASSES)
    assert not is_ink(overlay_segments(GREY, shown)).any()


def test_the_number_lies_inside_of_a_ring():
    rows, columns = np.indices((80, 80)) - 40
    radius = np.hypot(rows, columns)
    ring = ((radius < 39) & (radius > 15)).astype(int)
    image = np.full((3, 80, 80), 100, np.uint8)
    shown, bare = (overlay_segments(image, Segmentation.panoptic(ring, [1], [n], classes=CLASSES)) for n in (3, 0))
    changed = (shown != bare).any(axis=-1)
    assert changed.any() and (ring[changed] == 1).all()


@pytest.mark.parametrize("radius", [4, 9, 20])
def test_a_disc_in_a_corner_is_found_with_its_radius(radius):
    rows, columns = np.indices((50, 70))
    disc = np.hypot(rows - radius, columns - 2 * radius) < radius
    row, column, found = innermost(disc)
    assert abs(row - radius) <= 1 and abs(column - 2 * radius) <= 1 and 0.85 * radius <= found <= 1.1 * radius + 0.5


def test_later_planes_cover_and_void_stays():
    planes = np.array([[[1, 1, VOID, 0]], [[0, 2, 0, 0]]], np.int32)
    assert flat(planes).tolist() == [[0, 1, VOID, VOID]]
    shown = Segmentation(planes, *np.array([[1, 0], [0, 0]], np.int32), np.ones(2, np.float32), CLASSES)
    picture = overlay_segments(GREY[:, :1, :4], shown, 1.0)
    assert tuple(picture[0, 0]) == (0, 0, 200) and tuple(picture[0, 3]) == (100, 100, 100)


# By laws


@pytest.mark.parametrize("seed", range(3))
def test_a_class_map_looks_as_ever(seed):
    generator = np.random.default_rng(seed)
    image, class_map = generator.integers(0, 256, (3, 9, 11), np.uint8), generator.integers(-1, 2, (9, 11))
    expected = overlay(image, class_map, CLASSES.palette)
    np.testing.assert_array_equal(overlay_segments(image, Segmentation.semantic(class_map, CLASSES)), expected)


def test_a_volume_shows_its_middle_slice():
    segments = np.random.default_rng(0).integers(-1, 3, (3, 30, 30))
    image = np.random.default_rng(1).integers(0, 256, (1, 3, 30, 30), np.uint8)
    volume, middle = (Segmentation.panoptic(each, [0, 1], [0, 4], classes=CLASSES) for each in (segments, segments[1]))
    np.testing.assert_array_equal(overlay_segments(image, volume), overlay_segments(image[:, 1], middle))


def test_nothing_at_all_shows_the_image():
    shown = Segmentation.panoptic(np.zeros((40, 80), int), [], classes=CLASSES)
    np.testing.assert_array_equal(overlay_segments(GREY, shown), np.moveaxis(GREY, 0, -1))


def test_arguments_stay_as_they_were():
    shown, image = two_cars(), GREY.copy()
    overlay_segments(image, shown)
    assert (image == GREY).all() and shown.planes.min() == 1
