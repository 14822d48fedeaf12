from io import BytesIO

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segwright.core import Classes, Segmentation
from segwright.reports.html.cutout import BOTH_COLOR, PREDICTED_COLOR, SIDE, SMALLEST, TRUE_COLOR, cutout, outline, square

CLASSES = Classes.of(["cell"], is_thing=[True])


def opened(data):
    return np.asarray(Image.open(BytesIO(data)), int)


def has_color(picture, color):
    return bool((np.abs(picture - color).sum(axis=2) < 60).any())  # 60: what JPEG may change at a thin line


def one_square(first, end, shape=(100, 120)):
    mask = np.zeros((1, *shape), bool)
    mask[(0, *(slice(first, end),) * len(shape))] = True
    return Segmentation.instances(mask, [0], classes=CLASSES)


def test_left_bare_right_with_both_outlines():
    image = np.full((3, 100, 120), 130, np.uint8)
    picture = opened(cutout(image, one_square(40, 60), one_square(44, 64), ((40, 60), (40, 60))))
    assert picture.shape == (SIDE, 2 * SIDE + 4, 3)
    left, right = picture[:, :SIDE], picture[:, SIDE + 4 :]
    assert np.abs(left - 130).max() < 30
    assert has_color(right, TRUE_COLOR) and has_color(right, PREDICTED_COLOR)
    same = opened(cutout(image, one_square(40, 60), one_square(40, 60), ((40, 60), (40, 60))))[:, SIDE + 4 :]
    assert has_color(same, BOTH_COLOR) and not has_color(same, TRUE_COLOR)


def test_volumes_show_the_middle_slice_of_the_box():
    image = np.zeros((1, 9, 100, 120), np.uint8)
    image[:, 5] = 200
    truth = one_square(4, 7, (9, 100, 120))
    picture = opened(cutout(image, truth, truth, ((4, 7), (4, 7), (4, 7))))
    assert picture[150:, :100].mean() > 180


def test_images_that_are_not_square_keep_their_shape():
    picture = opened(cutout(np.zeros((1, 20, 300), np.uint8), *[one_square(2, 5, (20, 300))] * 2, ((0, 20), (0, 300))))
    assert picture.shape[1] == 2 * SIDE + 4 and picture.shape[0] < SIDE / 5


def test_outline_by_hand():
    plane = np.zeros((5, 5), int)
    plane[1:4, 1:4] = 1
    plane[1:4, 3] = 2
    assert outline(plane).astype(int)[1:4, 1:4].tolist() == [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    plane = np.ones((5, 5), int)
    assert not outline(plane).any()  # the edge of the image is no border


@given(st.integers(0, 90), st.integers(1, 80), st.integers(10, 100))
def test_law_the_window_holds_the_box_and_stays_inside(first, length, side):
    end = min(first + length, side)
    first = min(first, end - 1)
    (low, high), (left, right) = square(((first, end), (first, end)), (side, side))
    assert 0 <= low <= first and end <= high <= side and (left, right) == (low, high)
    assert high - low >= min(SMALLEST, side)
