"""Pictures of masks for people."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segwright.core import VOID, Classes
from segwright.core.visualise import as_rgb, html_picture, overlay, paint

PALETTE = np.array([[255, 0, 0], [0, 255, 0]], np.uint8)

# By hand


def test_paint():
    picture = paint(np.array([[0, 1, VOID]]), PALETTE)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, [[[255, 0, 0], [0, 255, 0], [0, 0, 0]]])


def test_bytes_stay_as_they_are():
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    np.testing.assert_array_equal(as_rgb(image), image.transpose(1, 2, 0))


def test_one_channel_is_grey_and_a_fourth_is_left_out():
    image = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
    np.testing.assert_array_equal(as_rgb(image), image[:3].transpose(1, 2, 0))
    for channels in (1, 2):
        np.testing.assert_array_equal(as_rgb(image[:channels]), np.repeat(image[0][..., None], 3, axis=-1))


def test_a_volume_shows_its_middle_slice():
    image = np.arange(3, dtype=np.uint8)[None, :, None, None] * np.ones((1, 3, 4, 5), np.uint8)
    assert (as_rgb(image) == 1).all()
    assert as_rgb(image).shape == (4, 5, 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64, bool])
def test_other_types_are_stretched(dtype):
    image = np.zeros((1, 2, 2), dtype)
    image[0, 1] = 1
    np.testing.assert_array_equal(as_rgb(image)[..., 0], [[0, 0], [255, 255]])


def test_rare_extremes_do_not_darken_the_rest():
    image = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(1, 100, 100)
    image[0, 0, 0] = 1e6
    assert 120 < np.median(as_rgb(image)) < 135


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([np.nan, np.nan], [0, 0]),
        ([7.0, 7.0], [0, 0]),
        ([0.0, 1.0, np.nan, np.inf, -np.inf], [0, 255, 0, 255, 0]),
    ],
)
def test_odd_values_are_shown_without_a_warning(row, expected):
    np.testing.assert_array_equal(as_rgb(np.array([[row]]))[0, :, 0], expected)


def test_overlay_mixes_colours_draws_borders_and_leaves_void_alone():
    image = np.full((3, 1, 4), 100, np.uint8)
    class_map = np.array([[0, 0, VOID, VOID]])
    picture = overlay(image, class_map, PALETTE, strength=0.5)
    np.testing.assert_array_equal(picture[0, [0, 1]], [[177, 50, 50]] * 2)  # half of the image, half of red
    np.testing.assert_array_equal(picture[0, 2], [193] * 3)  # the border: 0.4 of the image and 0.6 of white
    np.testing.assert_array_equal(picture[0, 3], [100] * 3)


def test_overlay_of_a_volume_is_that_of_its_middle_slice():
    rng = np.random.default_rng(0)
    image, class_map = rng.integers(0, 255, (1, 3, 4, 5), np.uint8), rng.integers(-1, 2, (3, 4, 5))
    np.testing.assert_array_equal(overlay(image, class_map, PALETTE), overlay(image[:, 1], class_map[1], PALETTE))


# By a slow twin


@given(arrays(np.int32, (3, 4), elements=st.integers(-1, 1)))
def test_paint_equals_a_loop(class_map):
    expected = [[PALETTE[k] if k >= 0 else (0, 0, 0) for k in row] for row in class_map]
    np.testing.assert_array_equal(paint(class_map, PALETTE), expected)


# By a law


@given(arrays(np.uint8, (3, 4, 5)), arrays(np.int32, (4, 5), elements=st.integers(-1, 1)))
def test_overlay_leaves_its_arguments_as_they_were(image, class_map):
    image_before, map_before = image.copy(), class_map.copy()
    overlay(image, class_map, PALETTE)
    np.testing.assert_array_equal(image, image_before)
    np.testing.assert_array_equal(class_map, map_before)


@pytest.mark.parametrize(("strength", "expected"), [(0.0, [100, 100, 100]), (1.0, [0, 255, 0])])
def test_strength_goes_from_the_image_to_the_colour(strength, expected):
    picture = overlay(np.full((3, 2, 2), 100, np.uint8), np.ones((2, 2), int), PALETTE, strength=strength)
    assert (picture == expected).all()


@given(arrays(np.float32, (1, 3, 3), elements=st.floats(-1e6, 1e6, width=32)))
def test_brighter_stays_brighter(image):
    order = np.argsort(image.ravel())
    assert (np.diff(as_rgb(image)[..., 0].ravel()[order].astype(int)) >= 0).all()


def test_html_holds_the_picture_and_names_the_classes_shown():
    classes = Classes.of(["hidden", '<script>"&'], colors=[[1, 2, 3], [4, 5, 6]])
    picture = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    html = html_picture(picture, classes, [1])
    data = re.search(r"base64,([^\"]+)\"", html).group(1)
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(b64decode(data)))), picture)
    assert "&lt;script&gt;&quot;&amp;" in html
    assert "<script>" not in html
    assert "rgb(4, 5, 6)" in html
    assert "hidden" not in html
