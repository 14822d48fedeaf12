import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.core.grid import Grid
from segwright.evaluation.pairs import NO_MASK, NOTHING, OTHER_PLACE, UNKNOWN, UNTOLD, class_numbers, pair

CLASSES = Classes.of(["road", "car"], is_thing=[False, True])


def dataset(keys, classes=CLASSES, source="there", value=0):
    truth = Segmentation.semantic(np.full((2, 3), value), classes)
    return Dataset(source, classes, tuple(keys), lambda key: Sample.of(key, np.zeros((0, 2, 3), np.uint8), truth))


def test_equal_keys_belong_together():
    pairs = pair(dataset(["b", "a"], source="guesses", value=1), dataset(["a", "b"]))
    assert pairs.keys == ("a", "b") and not pairs.missing and not pairs.notes
    both = pairs.load("a")
    assert both.prediction.class_map()[0, 0] == 1 and both.truth.class_map()[0, 0] == 0


def test_the_part_may_be_left_out_on_either_side():
    assert pair(dataset(["a"]), dataset(["val__a"])).key_of == {"val__a": "a"}
    assert pair(dataset(["val__a"]), dataset(["a"])).key_of == {"a": "val__a"}
    both = pair(dataset(["train__a", "val__a"]), dataset(["train__a", "val__a"]))
    assert both.key_of == {"train__a": "train__a", "val__a": "val__a"}


def test_endings_that_say_what_a_mask_is_count_only_where_names_are_equal():
    assert pair(dataset(["a_pred", "b_pred"]), dataset(["a_mask", "b"])).key_of == {"a_mask": "a_pred", "b": "b_pred"}
    assert pair(dataset(["a", "b_l"]), dataset(["a", "b"])).key_of == {"a": "a"}  # may be the left one


def test_parts_that_nobody_predicted_are_left_out():
    pairs = pair(dataset(["c", "d"]), dataset(["train__a", "train__b", "val__c", "val__d", "val__e"]))
    assert pairs.keys == ("val__c", "val__d", "val__e") and pairs.missing == ("val__e",)
    assert pairs.notes == (
        "2 images of other parts than val are left out.",
        "1 of 3 images have no prediction and count as missed: 'val__e'.",
    )
    missed = pairs.load("val__e")
    assert len(missed.prediction) == 0 and missed.prediction.shape == missed.truth.shape


def test_predictions_for_no_image_are_named():
    pairs = pair(dataset(["a", "z"]), dataset(["a"]))
    assert pairs.keys == ("a",) and pairs.notes == ("1 prediction is for no image of the truth and left out: 'z'.",)


def test_two_predictions_for_one_image_are_refused():
    with pytest.raises(UsageError, match="there: 'train__a' and 'val__a' are both predictions for 'a'; remove or rename one"):
        pair(dataset(["train__a", "val__a"]), dataset(["a"]))


def test_a_key_that_fits_two_truths_fits_none():
    pairs = pair(dataset(["a", "val__b"]), dataset(["train__a", "val__a", "val__b"]))
    assert pairs.key_of == {"val__b": "val__b"} and "for no image of the truth and left out: 'a'" in pairs.notes[-1]


def test_nothing_in_common_is_refused():
    with pytest.raises(UsageError, match="keys such as 'x' and 'a', 'b' have nothing in common; name each prediction as its"):
        pair(dataset(["x"]), dataset(["a", "b"]))


def test_classes_match_by_name_in_any_order():
    assert class_numbers(Classes.of(["car", "Road"]), CLASSES) == (1, 0)
    assert class_numbers(Classes.of(["class_0", "class_1", "class_2"]), CLASSES) == (0, 1, UNKNOWN)
    assert class_numbers(Classes.of(["x", "y"]), Classes.of(["class_0"])) == (0, UNKNOWN)
    assert class_numbers(Classes.of(["_background_", "tree"]), CLASSES) == (NOTHING, UNKNOWN)


def test_background_becomes_nothing_where_the_truth_has_none():
    classes = Classes.of(["background", "car", "road"])
    guess = Segmentation.panoptic(np.array([[1, 2, 3], [-1, 3, 0]]), [0, 1, 2], scores=[0.1, 0.2, 0.3], classes=classes)
    guesses = Dataset("guesses", classes, ("a",), lambda key: Sample.of(key, np.zeros((0, 2, 3), np.uint8), guess))
    own = pair(guesses, dataset(["a"])).load("a").prediction
    assert own.planes[0].tolist() == [[0, 1, 2], [-1, 2, 0]] and own.class_ids.tolist() == [1, 0]
    assert own.scores.tolist() == pytest.approx([0.2, 0.3]) and own.classes == CLASSES


def test_an_unknown_class_is_named_when_it_is_used():
    with pytest.raises(
        UsageError, match=r"sample 'a': the prediction has the class 'cars', which there does not know, did you"
    ):
        pair(dataset(["a"], Classes.of(["cars", "x"]), "guesses"), dataset(["a"])).load("a")


def test_a_score_that_is_no_number_is_refused():
    guess = Segmentation.panoptic(np.ones((2, 3), int), [1], [1], scores=[np.nan], classes=CLASSES)
    guesses = Dataset("guesses", CLASSES, ("a",), lambda key: Sample.of(key, np.zeros((0, 2, 3), np.uint8), guess))
    with pytest.raises(UsageError, match="guesses: sample 'a': a segment has a score that is not a number; predict again"):
        pair(guesses, dataset(["a"])).load("a")


def test_an_image_without_truth_is_refused():
    nobody = Dataset("there", CLASSES, ("a",), lambda key: Sample.of(key, np.zeros((1, 2, 3), np.uint8)))
    with pytest.raises(UsageError, match="there is no truth to compare with; add its mask, or drop it in"):
        _ = pair(dataset(["a"]), nobody).load("a").truth


def test_a_guessed_name_is_that_of_the_only_class():
    cells, guess = Classes.of(["Background", "cell"]), Classes.of(["background", "foreground"])
    assert class_numbers(guess, cells) == (0, 1) and class_numbers(cells, guess) == (0, 1)
    assert class_numbers(guess, Classes.of(["cell"], is_thing=[True])) == (NOTHING, 0)
    assert class_numbers(Classes.of(["background", "nucleus"]), cells) == (0, UNKNOWN)
    notes = pair(dataset(["a"], guess), dataset(["a"], cells)).notes
    assert notes == ("Of the predicted classes, 'foreground' is taken for 'cell'.",)


def test_a_background_that_the_truth_lacks_is_told():
    notes = pair(dataset(["a"], Classes.of(["background", "road"])), dataset(["a"], CLASSES)).notes
    assert notes == ("The truth has no class 'background': pixels predicted so count as given no class.",)


def test_remarks_tell_of_other_grids_absent_masks_and_objects_not_told_apart():
    def volume(key, spacing, origin=0.0, class_id=0, masked=True):
        affine = np.diag([*spacing, 1.0])
        affine[:3, 3] = origin
        truth = Segmentation.semantic(np.full((1, 2, 3), class_id), CLASSES) if masked else None
        return Sample(key, np.zeros((1, 1, 2, 3), np.uint8), Grid((1, 2, 3), spacing, affine), truth)

    def remarks(guess):
        there = Dataset("guesses", CLASSES, ("a",), lambda key: guess)
        here = Dataset("here", CLASSES, ("a",), lambda key: volume("a", (2.0, 1.0, 1.0)))
        return pair(there, here).load("a").remarks

    assert remarks(volume("a", (2.0, 1.0, 1.0), 0.1)) == ()
    assert remarks(volume("a", (2.0, 1.0, 3.0))) == remarks(volume("a", (2.0, 1.0, 1.0), 5.0)) == (OTHER_PLACE,)
    assert remarks(volume("a", (2.0, 1.0, 1.0), class_id=1)) == (UNTOLD,)
    assert remarks(volume("a", (2.0, 1.0, 1.0), masked=False)) == (NO_MASK,)
