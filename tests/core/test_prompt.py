"""What a person says about one object."""

import numpy as np
import pytest

from segwright.core import Prompt
from segwright.core.errors import ShapeError


def test_a_click_on_a_pixel():
    prompt = Prompt(points_xy=np.array([[3.5, 5.5]], np.float32), is_foreground=np.array([True]))
    assert prompt.object_id == 1
    assert prompt.frame == 0


@pytest.mark.parametrize(
    "given",
    [{"box_xyxy": np.array([1, 2, 3, 4], np.float32)}, {"mask": np.ones((3, 3), bool)}, {"text": "the dog"}],
)
def test_one_kind_is_enough(given):
    assert Prompt(**given).points_xy is None


def test_nothing_said():
    with pytest.raises(ShapeError, match="a prompt is empty; give points, a box, a mask or a text"):
        Prompt()


@pytest.mark.parametrize("shape", [(2,), (1, 3), (1, 1, 2)])
def test_points_of_another_shape(shape):
    with pytest.raises(ShapeError, match=r"\(P, 2\) is needed: one row \(x, y\) per point"):
        Prompt(points_xy=np.zeros(shape), is_foreground=np.ones(shape[0], bool))


@pytest.mark.parametrize("is_foreground", [None, np.array([True, False])])
def test_a_flag_for_each_point(is_foreground):
    with pytest.raises(ShapeError, match="1 points need 1 foreground flags; give is_foreground"):
        Prompt(points_xy=np.zeros((1, 2)), is_foreground=is_foreground)
    Prompt(points_xy=np.zeros((1, 2)), is_foreground=np.array([False]))


def test_a_box_of_another_shape():
    with pytest.raises(ShapeError, match=r"a box is \(2, 2\), \(4,\) is needed"):
        Prompt(box_xyxy=np.zeros((2, 2)))
    Prompt(box_xyxy=np.zeros(4))
