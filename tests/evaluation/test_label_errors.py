import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.evaluation.borders import border_distance, labels_of_both
from segwright.evaluation.label_errors import (
    KINDS,
    MAX_SHOWN,
    PER_IMAGE,
    LabelError,
    label_errors,
    segment_box,
    shortlist,
    strongest,
)
from segwright.evaluation.tide_errors import match_outcomes

CLASSES = Classes.of(["cell", "dot"], is_thing=[True, True])
STUFF = Classes.of(["sky", "road", "tree"])


def squares(*places, classes=None, scores=None, side=8):
    """Square objects in an image 64 x 64 from their first row and column."""
    masks = np.zeros((len(places), 64, 64), bool)
    for mask, (row, column) in zip(masks, places, strict=True):
        mask[row : row + side, column : column + side] = True
    return Segmentation.instances(masks, classes or [0] * len(places), scores=scores, classes=CLASSES)


def found(prediction, truth, image=None, key="a"):
    guess, actual = labels_of_both(prediction, truth)
    maps = (guess, actual, border_distance(actual))
    return list(label_errors(key, prediction, truth, match_outcomes(prediction, truth), maps, image))


def test_missing_label_by_hand():
    truth = squares((0, 0), (0, 20))
    (one,) = found(squares((0, 0), (0, 20), (40, 40), scores=[0.9, 0.9, 0.8]), truth)
    assert one.kind == "missing label" and one.box == ((40, 48), (40, 48)) and one.score == pytest.approx(0.8)
    assert one.doubt == pytest.approx(0.2) and one.reason == "predicted cell, score 0.80" and one.picture == b""


def test_a_part_of_a_true_object_and_what_lies_in_void_are_no_missing_labels():
    truth = squares((0, 0), side=40)
    assert [one.kind for one in found(squares((0, 0), (4, 4)), truth)] == []  # 8 x 8 in 40 x 40
    plane = np.zeros((64, 64), int)
    plane[:30], plane[50:, 50:] = -1, 1
    truth = Segmentation.panoptic(plane, [0], [1], classes=CLASSES)
    assert found(squares((24, 0)), truth) == []  # three quarters of it, and small beside the true one
    (one,) = found(squares((40, 0), side=14), truth)
    assert one.doubt == pytest.approx(0)


def test_nothing_there_by_hand():
    truth = squares((0, 0), (0, 20), (0, 40), (40, 40))
    (one,) = found(squares((0, 0), (0, 20), (0, 40)), truth)
    assert one.kind == "nothing there" and one.box == ((40, 48), (40, 48)) and one.doubt == pytest.approx(0)
    assert one.reason == "cell that no prediction comes near; 3 of 3 other objects here are found"
    assert found(squares((0, 0)), truth) == []  # the model finds little here


def test_nothing_there_is_said_only_of_what_is_no_smaller_than_something_found():
    masks = np.zeros((3, 64, 64), bool)
    masks[0, :8, :8] = masks[1, :8, 20:28] = masks[2, 40:46, 40:46] = True
    truth = Segmentation.instances(masks, [0, 0, 0], classes=CLASSES)
    assert found(Segmentation.instances(masks[:2], [0, 0], classes=CLASSES), truth) == []


def test_wrong_class_by_hand():
    (one,) = found(squares((0, 0), (0, 20), classes=[0, 1], scores=[1, 0.9]), squares((0, 0), (0, 20)))
    assert one.kind == "wrong class" and one.doubt == pytest.approx(0.1) and one.box == ((0, 8), (20, 28))
    assert one.reason == "labelled cell, predicted dot, score 0.90; the outlines agree, IoU 1.00"


def test_wrong_region_by_hand():
    truth = np.zeros((60, 60), int)
    truth[40:] = 1
    guess = truth.copy()
    guess[10:22, 10:22] = 2  # far from the border: perhaps a tree was not drawn
    guess[38:40] = 1  # a border two pixels off
    (one,) = found(Segmentation.semantic(guess, STUFF), Segmentation.semantic(truth, STUFF))
    assert one.kind == "wrong region" and one.box == ((10, 22), (10, 22))
    assert one.reason == "144 pixels labelled sky, predicted tree; 97 % of the other pixels are right"
    assert one.doubt == pytest.approx(1 - (1 - 120 / (3600 - 144)))


def test_a_narrow_patch_and_one_in_an_image_that_is_wrong_everywhere_are_none():
    truth = np.zeros((60, 60), int)
    narrow, all_wrong = truth.copy(), truth + 1
    narrow[:3, :40] = 2
    all_wrong[10:22, 10:22] = 2
    for guess in (narrow, all_wrong):
        assert found(Segmentation.semantic(guess, STUFF), Segmentation.semantic(truth, STUFF)) == []


def test_volumes_get_a_box_of_three_axes():
    truth = np.zeros((12, 40, 40), int)
    guess = truth.copy()
    guess[3:7, 10:22, 10:22] = 2
    (one,) = found(Segmentation.semantic(guess, STUFF), Segmentation.semantic(truth, STUFF), np.zeros((1, 12, 40, 40)))
    assert one.box == ((3, 7), (10, 22), (10, 22)) and one.picture[:2] == b"\xff\xd8"  # a JPEG


def test_law_truth_against_truth_is_never_doubted():
    rng = np.random.default_rng(0)
    for _ in range(5):
        truth = squares(*rng.integers(0, 56, (6, 2)), classes=rng.integers(0, 2, 6).tolist())
        assert found(truth, truth) == []
        stuff = Segmentation.semantic(rng.integers(-1, 3, (64, 64)), STUFF)
        assert found(stuff, stuff) == []


def test_one_image_gives_a_few_only():
    places = [(row, column) for row in (20, 40) for column in (0, 20, 40)]
    assert len(found(squares((0, 0), *places), squares((0, 0)))) == PER_IMAGE


def suspect(kind, doubt, key="a", score=1.0):
    return LabelError(doubt, key, kind, ((0, 1), (0, 1)), "reason", score)


def test_law_the_strongest_are_the_same_in_any_order():
    rng = np.random.default_rng(3)
    many = [suspect(KINDS[rng.integers(4)], float(doubt), f"k{index}") for index, doubt in enumerate(rng.random(200))]
    expected = strongest(many)
    assert len(expected) == 4 * MAX_SHOWN
    for _ in range(5):
        rng.shuffle(many)
        halves = strongest([*strongest(many[:70]), *strongest(many[70:])])
        assert halves == expected


def test_shortlist_by_hand():
    many = [suspect("missing label", doubt, str(doubt)) for doubt in (0.1, 0.2, 0.3)]
    many += [suspect("wrong region", 0.9), suspect("wrong class", 0.0, score=0.4)]
    shown = shortlist(many, 0.5)
    assert [one.doubt for one in shown] == [0.1, 0.9, 0.2, 0.3]  # kinds in turn; 0.4 is not certain
    assert len(shortlist([suspect("missing label", index / 100) for index in range(50)], 0)) == MAX_SHOWN


def test_box_by_hand():
    assert segment_box(squares((3, 5)), 0) == ((3, 11), (5, 13))
    assert segment_box(squares((3, 5), (3, 5)), 0) == ((3, 11), (5, 13))  # they overlap in two planes
