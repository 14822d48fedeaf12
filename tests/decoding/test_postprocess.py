"""Stray pieces become background, holes are filled."""

import numpy as np
import pytest
from scipy import ndimage

from segwright.core import Classes, Segmentation
from segwright.core.errors import SettingError
from segwright.decoding.postprocess import Postprocess

CLASSES = Classes.of(["background", "a", "b"])
MAP = np.array(
    [
        [1, 1, 1, 0, 0, 2, 2],
        [1, 0, 1, 0, 0, 2, -1],
        [1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [2, 0, 0, 0, 0, 0, 0],
    ]
)


def after(rule, labels=MAP, classes=CLASSES):
    return rule(Segmentation.semantic(labels, classes)).class_map()


def changed(*places, to):
    expected = MAP.copy()
    for place in places:
        expected[place] = to
    return expected


def test_no_rule_leaves_the_segmentation_itself():
    found = Segmentation.semantic(MAP, CLASSES)
    assert Postprocess()(found) is found


def test_the_largest_piece_of_a_class_stays_which_corners_hold_together():
    assert (after(Postprocess(largest=(1,))) == changed((4, 5), to=0)).all()
    assert (after(Postprocess(largest=(2,))) == changed((5, 0), to=0)).all()


def test_the_largest_piece_of_all_classes_together_stays():
    assert (after(Postprocess(together=True)) == changed((0, 5), (0, 6), (1, 5), (4, 5), (5, 0), to=0)).all()


def test_small_pieces_go():
    assert (after(Postprocess(min_pixels=(0, 2, 0))) == changed((4, 5), to=0)).all()
    assert (after(Postprocess(min_pixels=(0, 0, 4))) == changed((0, 5), (0, 6), (1, 5), (5, 0), to=0)).all()
    assert (after(Postprocess(min_pixels=(0, 1, 3))) == changed((5, 0), to=0)).all()


def test_background_in_holes_is_filled_and_nothing_else():
    assert (after(Postprocess(filled=(1,))) == changed((1, 1), to=1)).all()
    other = changed((1, 1), to=2)
    assert (after(Postprocess(filled=(1,)), other) == other).all()


def test_rules_of_all_kinds_at_once_and_again():
    rule = Postprocess(largest=(2,), min_pixels=(0, 2, 0), filled=(1,))
    expected = changed((4, 5), (5, 0), to=0)
    expected[1, 1] = 1
    assert (after(rule) == expected).all()
    assert (after(rule, after(rule)) == expected).all()  # done twice it does no more


@pytest.mark.parametrize("shape", [(40, 50), (8, 20, 20)])
def test_equals_ten_lines_of_scipy(shape):
    rng = np.random.default_rng(0)
    labels = (ndimage.gaussian_filter(rng.normal(size=shape), 1.5) > 0.05).astype(np.int64)
    pieces, count = ndimage.label(labels, np.ones((3,) * len(shape)))
    sizes = np.bincount(pieces.ravel())[1:]
    two = Classes.of(["Background", "a"])
    assert count > 2
    assert (after(Postprocess(largest=(1,)), labels, two) == (pieces == 1 + sizes.argmax())).all()
    assert (after(Postprocess(min_pixels=(0, 20)), labels, two) == np.isin(pieces, 1 + np.flatnonzero(sizes >= 20))).all()
    assert (after(Postprocess(filled=(1,)), labels, two) == ndimage.binary_fill_holes(labels)).all()


def test_what_has_no_background_or_holds_objects_is_refused():
    with pytest.raises(SettingError, match="no class here is the background; set it to nothing with --set inference.post"):
        after(Postprocess(largest=(1,)), np.zeros((2, 2), np.int64), Classes.of(["sky", "road"]))
    objects = Segmentation.panoptic(np.ones((2, 2), np.int32), [1], [1], classes=CLASSES)
    with pytest.raises(SettingError, match="objects are told apart here"):
        Postprocess(largest=(1,))(objects)


@pytest.mark.parametrize(
    "rule",
    [Postprocess(largest=(3,)), Postprocess(filled=(0,)), Postprocess(min_pixels=(0, 2)), Postprocess(min_pixels=(5, 0, 0))],
)
def test_numbers_that_are_no_classes_are_told(rule):
    with pytest.raises(SettingError, match="give numbers of the 3 classes but that of the background, 0, and one of min_pix"):
        after(rule)
