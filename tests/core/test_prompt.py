"""What a person says about one object."""

import numpy as np
import pytest

from segwright.core import Prompt
from segwright.core.errors import ShapeError, UsageError
from segwright.core.prompt import check_prompts, check_within


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


def clicks(*points, on=None, **more):
    flags = np.ones(len(points), bool) if on is None else np.array(on)
    return Prompt(points_xy=np.array(points, np.float32).reshape(-1, 2), is_foreground=flags, **more)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points_xy": [[1, 2]], "is_foreground": [True]}, r"points of a prompt: a list was given; give np.array\("),
        ({"box_xyxy": [1, 2, 3, 4]}, r"a box of a prompt: a list was given; give np.array\(\.\.\., np.float32\) \(4,\)"),
        ({"box_xyxy": np.array(["a"] * 4)}, "a box of a prompt: an array of <U1 was given"),
        ({"box_xyxy": np.array([1j] * 4)}, "a box of a prompt: an array of complex128 was given"),
        ({"box_xyxy": np.array([1, np.nan, 3, 4])}, "holds what is no number; give finite numbers, in pixels"),
        ({"mask": [[True]]}, "the mask of a prompt is a list; give a bool array, such as logits > 0"),
        ({"mask": np.full((3, 3), np.nan)}, "the mask of a prompt is an array of float64; give a bool array"),
        (
            {"points_xy": np.zeros((2, 2)), "is_foreground": np.ones((2, 1), bool)},
            "2 points need 2 foreground flags; give is_foreground",
        ),
    ],
)
def test_parts_are_arrays_of_numbers(given, message):
    with pytest.raises(ShapeError, match=message):
        Prompt(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points_xy": np.zeros((0, 2)), "is_foreground": np.zeros(0, bool)}, "give one at least, or leave points_xy out"),
        (
            {"points_xy": np.zeros((1, 2)), "is_foreground": np.array([-1])},
            r"is_foreground is \[-1\]; give True for a point on",
        ),
        ({"points_xy": np.zeros((1, 2)), "is_foreground": np.array([np.nan])}, r"is_foreground is \[nan\]"),
        ({"mask": np.zeros((3, 3), bool)}, "the mask of a prompt has no pixel, .* add a point or a box"),
        ({"text": " "}, "the text of a prompt is blank; name what to find"),
        ({"text": "cat", "object_id": 0}, "object_id of a prompt is 0; give a whole number from 1 on"),
        ({"text": "cat", "object_id": "a"}, "object_id of a prompt is 'a'; give a whole number"),
        ({"text": "cat", "object_id": 2**31}, "give a whole number up to 2147483647"),
        ({"text": "cat", "frame": -1}, "frame of a prompt is -1; give a whole number from 0 on"),
        ({"text": "cat", "frame": 1.5}, "frame of a prompt is 1.5; give a whole number"),
    ],
)
def test_what_says_nothing_is_told(given, message):
    with pytest.raises(UsageError, match=message):
        Prompt(**given)


def test_one_pixel_is_not_on_the_object_and_beside_it():
    for other in ([5, 5], [5.9, 5.2]):
        with pytest.raises(
            UsageError, match="the pixel in column 5, row 5 is said to be on the object and beside it; leave out"
        ):
            clicks([5.1, 5.5], [9, 9], other, on=[True, True, False])
    clicks([5.1, 5.5], [6.1, 5.5], [5.1, 5.5], on=[1, 0, 1])
    Prompt(mask=np.zeros((3, 3), bool), box_xyxy=np.array([0, 0, 1, 1]))  # an earlier answer that was empty


def test_each_object_has_one_prompt():
    check_prompts([])
    check_prompts([clicks([1, 1]), clicks([1, 1], object_id=2), clicks([1, 1], frame=3)])
    with pytest.raises(UsageError, match="2 prompts are about object 1; put all that is said of an object into one prompt, or"):
        check_prompts([clicks([1, 1]), clicks([2, 2])])
    with pytest.raises(UsageError, match="2 prompts are about object 3 in frame 4; .* object_id=2 and so on"):
        check_prompts([clicks([1, 1], object_id=3, frame=4), clicks([2, 2], object_id=3, frame=4)])
    with pytest.raises(UsageError, match=r"a list was given for a prompt; give each by itself, such as segment\(\*prompts\)"):
        check_prompts([[clicks([1, 1])]])


def test_places_lie_in_the_image():
    check_within(clicks([0, 0], [60, 30]), (30, 60))
    for wrong, message in (
        (
            clicks([60.5, 3]),
            r"points \[\[60.5, 3.0\]\] of object 1 lie outside the image, which is 60 wide and 30 high; give x",
        ),
        (clicks([3, -1]), "give x from 0 to 60 and y from 0 to 30, in its own pixels"),
        (Prompt(box_xyxy=np.array([0, 0, 9, 31])), "the box .* lies outside the image"),
        (Prompt(box_xyxy=np.array([9, 9, 3, 3])), r"the box \[9, 9, 3, 3\] is empty; give x1, y1, x2, y2 with x1 < x2"),
        (Prompt(mask=np.ones((3, 3), bool)), r"the mask is \(3, 3\) and the image \(30, 60\); give a mask of its shape"),
    ):
        with pytest.raises(ShapeError, match=message):
            check_within(wrong, (30, 60))
