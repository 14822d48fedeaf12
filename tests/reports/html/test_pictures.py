import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from segwright.reports.html.pictures import NOT_SCORED, WRONG, disagreement, drawable, figure, lightened


def inside(html):
    return Image.open(BytesIO(b64decode(re.search(r"base64,([^\"]+)", html)[1])))


def test_disagreement_by_hand():
    image = np.full((1, 3, 3), 100, np.uint8)
    truth = np.array([[-1, 0, 0], [0, 0, 1], [1, 1, 1]])
    guess = np.array([[1, 0, 1], [0, -1, 1], [1, 1, 0]])
    picture = disagreement(image, truth, guess)
    wrong = (picture == WRONG).all(axis=2)
    assert wrong.tolist() == [[False, False, True], [False, True, False], [False, False, True]]
    assert tuple(picture[0, 0]) == NOT_SCORED and tuple(picture[1, 0]) == (173, 173, 173)


@pytest.mark.parametrize(("shape", "size"), [((300, 600), (480, 240)), ((20, 30), (30, 20)), ((1, 5000), (480, 1))])
def test_figure_is_never_wider_than_480(read_html, shape, size):
    html = figure(np.zeros((*shape, 3), np.uint8), "a <b> & c")
    tags = read_html(html)
    assert inside(html).size == size and tags.text == ["a <b> & c"] and ("alt", "a <b> & c") in tags.attributes


def test_figure_keeps_colours():
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, 20:] = (200, 30, 90)
    assert np.abs(np.asarray(inside(figure(picture, "")), int) - picture).max() <= 8  # what JPEG may change


def test_drawable_takes_the_middle_of_a_volume_and_thins_what_is_large():
    volume = np.arange(2 * 5 * 4 * 3).reshape(2, 5, 4, 3)
    image, class_map = drawable(volume, volume[0])
    assert (image == volume[:, 2]).all() and (class_map == volume[0, 2]).all()
    image, class_map = drawable(np.zeros((3, 100, 2900), np.uint8), np.zeros((100, 2900), int))
    assert image.shape == (3, 34, 967) and class_map.shape == (34, 967)


def test_dark_pictures_are_lightened_and_others_left_alone():
    dark, bright = np.full((4, 4, 3), 20, np.uint8), np.full((4, 4, 3), 130, np.uint8)
    assert (lightened(dark) == 120).all()  # at most 6 times
    assert (lightened(np.full((4, 4, 3), 50, np.uint8)) == 200).all()
    assert lightened(bright) is bright and (lightened(np.zeros((2, 2, 3), np.uint8)) == 0).all()
    dark[0, 0] = 255
    assert (lightened(np.tile(dark, (10, 10, 1)))[0, 0] == 255).all()
