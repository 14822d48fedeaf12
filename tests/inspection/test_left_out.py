import numpy as np
import pytest

from segwright.formats.drawn_shapes import ABOUT_IMAGE, BOX_ALONE, NO_IMAGE, NO_PIXEL, OUTSIDE, SWAPPED, of_category
from segwright.inspection.left_out import about_left_out
from segwright.inspection.sample_scan import SampleScan


def look(key, left_out=None, segments=0, drawn=None, shape=(60, 80)):
    return SampleScan(
        key=key, part="train", shape=shape, channels=1, dtype="uint8", scale=1.0, step=None, thumb=np.zeros((32, 32)),
        digest=key.encode(), borders=None, segments=segments, left_out=left_out or {},
        drawn_xyxy=None if drawn is None else np.array(drawn, float),
    )  # fmt: skip


def found(*looks, elsewhere=None):
    return {finding.name: finding for finding in about_left_out(looks, elsewhere or {})}


# By hand


def test_nothing_is_left_out():
    inside = [[0, 0, 80, 60], [-1.5, 3, 9, 61.5]]  # a hand that was not steady
    assert found() == found(look("a", segments=2, drawn=inside), look("b")) == {}


def test_shapes_of_larger_images():
    drawn = [[10, 10, 50, 40], [110, 90, 150, 120], [140, 30, 180, 60]]
    finding = found(look("a", {OUTSIDE: 2}, 1, drawn), look("b", segments=3))["objects-outside"]
    assert finding.evidence == (
        "2 of 6 annotations lie outside of their image (a); shapes reach x = 180 and y = 120, the image is 80 wide and 60 "
        "high, 0.44 of that."
    )
    assert finding.numbers == {"outside": 2, "cut": 0, "of": 6, "times": 2.25} and finding.keys == ("a",)
    assert finding.level == "warning" and finding.remedy.startswith("Were the images made smaller, to 0.44 of")


@pytest.mark.parametrize(("outside", "kept", "level"), [(1, 1, "error"), (5, 0, "error"), (1, 50, "warning"), (1, 200, "note")])
def test_the_share_makes_the_level(outside, kept, level):
    drawn = [[-9, -9, -1, -1]] * outside
    assert found(look("a", {OUTSIDE: outside}, kept, drawn))["objects-outside"].level == level
    assert found(look("a", {NO_PIXEL: outside}, kept))["left-out"].level == level


def test_shapes_that_are_cut():
    cut, whole = [70, 10, 120, 30], [1, 1, 9, 9]
    finding = found(look("a", segments=4, drawn=[cut, *[whole] * 3]))["objects-outside"]
    assert finding.level == "warning" and finding.evidence.startswith(
        "1 of 4 annotations are cut by the border of their image (a); shapes"
    )
    assert found(look("a", segments=20, drawn=[cut, *[whole] * 19])) == {}  # as where people draw beyond the border
    both = found(look("a", {OUTSIDE: 1}, 1, [cut, [90, 0, 99, 9]]))["objects-outside"]
    assert both.evidence.startswith("1 of 2 annotations lie outside of their image, and 1 more are cut by its border (a)")


def test_places_on_a_map_and_swapped_ones():
    finding = found(look("a", {OUTSIDE: 1}, 0, [[1.5e6, 6.8e6, 1.6e6, 6.9e6]]))["objects-outside"]
    assert "look like places on a map that the image does not lie on" in finding.remedy and finding.evidence.endswith(
        "80 wide and 60 high."
    )
    finding = found(look("a", {SWAPPED: 3}))["objects-outside"]
    assert finding.evidence == "3 of 3 annotations lie outside of their image (a); 3 would lie inside with x and y swapped."
    assert finding.remedy == "Exchange x and y: longitude or easting comes first."
    before = found(look("a", {OUTSIDE: 1}, 0, [[-30, 5, -10, 9]]))["objects-outside"]
    assert before.evidence.endswith("shapes begin at x = -30 and y = 5, the image is 80 wide and 60 high.")


def test_annotations_of_no_sample():
    finding = found(look("a", segments=2), elsewhere={NO_IMAGE: 2})["left-out"]
    assert finding.evidence == "2 of 4 annotations became no segment: 2 of images that are not there."
    assert finding.level == "error" and finding.remedy.startswith("Add these images, under the names") and finding.keys == ()


def test_each_reason_has_its_remedy():
    finding = found(look("a", {BOX_ALONE: 2}, 1), look("b", {of_category(7): 1, "of the kind 'cuboid'": 1}))["left-out"]
    assert finding.evidence == (
        "4 of 5 annotations became no segment: 2 given as a box without a mask, 1 of the category 7, which is not listed, "
        "1 of the kind 'cuboid' (a and b)."
    )
    assert finding.numbers["reasons"][BOX_ALONE] == 2 and finding.keys == ("a", "b")
    for sentence in ("Draw masks for them", "Add what is missing to the list of classes", "kinds without a region"):
        assert sentence in finding.remedy


def test_what_is_said_of_an_image_is_no_object():
    assert found(look("a", {ABOUT_IMAGE: 5}, 1)) == found(look("a", {ABOUT_IMAGE: 5})) == {}


def test_shares_and_degrees_are_smaller_than_a_pixel():
    finding = found(look("a", {NO_PIXEL: 1}, drawn=[[0.1, 0.2, 0.4, 0.9]]))["left-out"]
    assert finding.remedy.startswith("All shapes are smaller than a pixel: are these shares of the image, or degrees?")
    finding = found(look("a", {OUTSIDE: 1}, drawn=[[14.06, 62.47, 14.07, 62.48]]))["objects-outside"]
    assert finding.remedy.startswith("All shapes are smaller than a pixel")
