import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.codecs import rle
from segwright.core import Segmentation
from segwright.core.errors import FormatError
from segwright.formats.drawn_shapes import (
    ABOUT_IMAGE,
    FEW_CORNERS,
    LINE_OR_POINTS,
    NO_PIXEL,
    OUTSIDE,
    Drawing,
    is_polygon,
    lost,
    of_category,
    of_kind,
    told,
)

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9))
SQUARE = [(0, 0), (3, 0), (3, 3), (0, 3)]


def pixels(counts, shape):
    return rle.decode(counts, shape).astype(int).tolist()


# By hand


def test_each_annotation_is_counted_once_by_its_reason():
    drawing = Drawing((4, 5))
    assert pixels(drawing.polygon([(1, 1), (3, 1), (3, 2), (1, 2)], "here"), (4, 5))[1] == [0, 1, 1, 0, 0]
    assert drawing.polygon([(6, 1), (9, 1), (9, 2)], "here") is None  # to the right
    assert drawing.box((-3, -3, 0, 0), "here") is None  # touches the corner
    assert drawing.box((1.1, 1.1, 1.3, 3), "here") is None  # between two centres of pixels
    assert drawing.polygon([(1, 1), (3, 3)], "here") is None and drawing.areas([], "here") is None
    assert drawing.runs(np.array([20], np.uint32)) is None and drawing.mask(np.ones((2, 2), bool), (9, 9)) is None
    assert drawing.ellipse((-9, 2), (3, 3), "here") is None
    drawing.leave_out(of_kind("Polyline"))
    drawing.leave_out(of_category(7), 2)
    sample = drawing.sample("a", np.zeros((1, 4, 5)), Segmentation.semantic(np.zeros((4, 5), int)))
    assert sample.left_out == {
        OUTSIDE: 4,
        NO_PIXEL: 2,
        FEW_CORNERS: 2,
        LINE_OR_POINTS: 1,
        "of the category 7, which is not listed": 2,
    }
    assert sample.drawn_xyxy.tolist()[:3] == [[1, 1, 3, 2], [6, 1, 9, 2], [-3, -3, 0, 0]]


def test_rings_that_enclose_nothing_are_passed_over_beside_others():
    drawing = Drawing((3, 3))
    whole = [[1, 1, 1]] * 3
    assert pixels(drawing.areas([[[(1, 1), (2, 2)]], [SQUARE]], "here"), (3, 3)) == whole
    assert pixels(drawing.areas([[SQUARE, [(1, 1), (2, 2)]]], "here"), (3, 3)) == whole  # a hole of two corners
    assert drawing.areas([[[(0, 0), (1, 1)], SQUARE]], "here") is None  # no ring around that hole
    assert drawing.left_out == {FEW_CORNERS: 1}


def test_a_polygon_with_a_hole():
    hole = [(1, 1), (2, 1), (2, 2), (1, 2)]
    assert pixels(Drawing((3, 3)).areas([[SQUARE, hole]], "here"), (3, 3)) == [[1, 1, 1], [1, 0, 1], [1, 1, 1]]


def test_a_circle_and_a_turned_ellipse():
    def drawn(center, radii, shape, degrees=0.0):
        counts = Drawing(shape).ellipse(center, radii, "here", degrees)
        return np.zeros(shape, int).tolist() if counts is None else pixels(counts, shape)

    assert drawn((1.5, 1.5), (1.1, 1.1), (3, 4)) == [[0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0]]
    wide = [[0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert drawn((1.5, 1.5), (2, 0.4), (3, 3)) == drawn((1.5, 1.5), (0.4, 2), (3, 3), 90) == wide
    assert not np.any(drawn((1.5, 1.5), (0, 2), (3, 3))) and not np.any(drawn((1e300, 0), (1e-300, 1), (3, 3)))


def test_which_kinds_are_polygons():
    assert is_polygon("rotation", 4) and is_polygon("quadrilateral", 3) and not is_polygon("rotation", 2)
    assert not any(is_polygon(kind, 9) for kind in ("linestrip", "Points", "skeleton", "cuboid", "tag"))
    assert of_kind("skeleton") == LINE_OR_POINTS and of_kind("cuboid") == "of the kind 'cuboid'"
    assert of_kind("tag") == ABOUT_IMAGE and lost({ABOUT_IMAGE: 3, OUTSIDE: 2}) == 2
    assert told({of_category(k): 9 - k for k in range(8)}).endswith(", 4 of the category 5, which is not listed, 5 of others")
    assert told({NO_PIXEL: 1, OUTSIDE: 1200}) == "1,200 outside the image, 1 without a pixel"


# By a slow twin


@given(MASKS, st.integers(-10, 10), st.integers(-10, 10), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=200)
def test_a_mask_lies_where_it_is_placed(mask, x, y, height, width):
    whole = np.zeros((height + 40, width + 40), bool)
    whole[y + 20 : y + 20 + mask.shape[0], x + 20 : x + 20 + mask.shape[1]] = mask
    expected = whole[20 : 20 + height, 20 : 20 + width]
    drawing = Drawing((height, width))
    counts = drawing.mask(mask, (x, y))
    assert (counts is None and not expected.any()) or np.array_equal(counts, rle.encode(expected))
    is_outside = x >= width or y >= height or x + mask.shape[1] <= 0 or y + mask.shape[0] <= 0
    assert drawing.left_out == ({} if expected.any() else {OUTSIDE if is_outside else NO_PIXEL: 1})


@given(st.floats(-5, 15), st.floats(-5, 15), st.floats(0.3, 9), st.floats(0.3, 9), st.floats(-360, 360), st.booleans())
@settings(max_examples=200)
def test_ellipses_and_boxes_hold_the_centres_of_their_pixels(center_x, center_y, a, b, degrees, is_box):
    y, x = np.mgrid[0:9, 0:11] + 0.5
    angle = np.radians(degrees)
    along = (x - center_x) * np.cos(angle) + (y - center_y) * np.sin(angle)
    across = (y - center_y) * np.cos(angle) - (x - center_x) * np.sin(angle)
    drawing = Drawing((9, 11))
    if is_box:
        counts = drawing.box((center_x - a, center_y - b, center_x + a, center_y + b), "here", degrees)
        beyond, doubtful = np.maximum(abs(along) - a, abs(across) - b), 0.3  # corners are rounded to a fifth of a pixel
    else:
        counts = drawing.ellipse((center_x, center_y), (a, b), "here", degrees)
        beyond, doubtful = (along / a) ** 2 + (across / b) ** 2 - 1, 1e-9
    drawn = np.zeros((9, 11), bool) if counts is None else rle.decode(counts, (9, 11))
    assert not (drawn != (beyond <= 0))[abs(beyond) > doubtful].any()
    if counts is not None:
        left, top, right, bottom = drawing.boxes[0]
        rows, columns = np.nonzero(drawn)
        assert left <= columns.min() + 0.7 and columns.max() + 0.3 <= right
        assert top <= rows.min() + 0.7 and rows.max() + 0.3 <= bottom


def test_a_box_turned_around_its_left_upper_corner():
    upright = Drawing((6, 6)).box((3, 1, 5, 2), "here", 90, pivot_xy=(3, 1))  # as a clock's hand from 3 to 6
    assert pixels(upright, (6, 6)) == [[0] * 6, *[[0, 0, 1, 0, 0, 0]] * 2, *[[0] * 6] * 3]


# By its messages


def test_what_is_refused():
    drawing = Drawing((3, 3))
    with pytest.raises(FormatError, match="^here: a polygon has a corner that is not a finite number"):
        drawing.polygon([(0, 0), (1, 1), (np.nan, 1)], "here")
    with pytest.raises(FormatError, match="^here: a number is not finite .*; correct or remove it"):
        drawing.ellipse((0, np.inf), (1, 1), "here")
    with pytest.raises(FormatError, match="^here: a number is not finite"):
        drawing.box((0, 0, 1, 1), "here", np.inf)
    assert not drawing.left_out
