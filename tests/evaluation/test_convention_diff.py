import numpy as np
import pytest

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import ShapeError, UnknownNameError, UsageError
from segwright.evaluation.convention_diff import MAIN, explain
from segwright.metrics.confusion import Confusion
from segwright.metrics.conventions import CONVENTIONS, convention_named

CLASSES = Classes.of(["background", "road", "car"])


def semantic(class_map):
    return Segmentation.semantic(np.asarray(class_map), CLASSES)


def pairs(count=4, seed=0):
    generator = np.random.default_rng(seed)
    for index in range(count):
        truth = generator.integers(VOID, 2 + index % 2, (6 + index, 8))
        prediction = np.where(generator.random(truth.shape) < 0.7, np.maximum(truth, 0), generator.integers(0, 3, truth.shape))
        yield f"image_{index}", semantic(prediction), semantic(truth)


def score_of(rules, data):
    """mIoU by a convention, the plain way."""
    metric = Confusion(CLASSES, rules=rules)
    states = [metric.count(prediction, truth) for _, prediction, truth in data]
    return float(metric.score(sum(states[1:], states[0]))[MAIN])


# By hand


def test_an_absent_class_by_hand():
    """Two of three classes are there, both right; smp counts the third as 1, torchmetrics 1.7.0 as 0."""
    data = [("one", semantic([[0, 1]]), semantic([[0, 1]])), ("two", semantic([[0, 1]]), semantic([[1, 1]]))]
    found = explain(data, CLASSES, "segwright", "smp")
    assert found.scores[MAIN] == pytest.approx(((1 / 2 + 2 / 3) / 2, (1 / 2 + 2 / 3 + 1) / 3))
    assert found.words == {"absent_score": ("an absent class is NaN and left out of means", "an absent class counts 1")}
    assert found.moves["absent_score"][MAIN] == pytest.approx(found.difference)
    assert next(iter(found.classes)) == "car" and found.classes["car"] == 0  # without it, they agree
    assert found.images["two"] == 0  # the other image is perfect by both
    assert next(iter(found.images)) == "two"


def test_the_sentences_say_it():
    data = [("one", semantic([[0, 1]]), semantic([[0, 1]])), ("two", semantic([[0, 1]]), semantic([[1, 1]]))]
    said = explain(data, CLASSES, "segwright", "smp").sentences()
    assert said[2] == "segwright and smp differ in 1 of 5 choices. mIoU is 0.5833 by segwright and 0.7222 by smp: +0.1389."
    assert said[3] == (
        "absent score: by segwright, an absent class is NaN and left out of means; by smp, an absent class counts 1. "
        "This alone moves mIoU by +0.1389."
    )
    assert said[4] == "The difference of +0.1389 in mIoU would be +0.0000 without image two, +0.2500 without image one."
    assert said[5].startswith("The difference of +0.1389 in mIoU would be +0.0000 without class car, ")
    assert len(said) == 6


def test_the_table_has_a_row_for_each_score_and_a_column_for_each_field():
    rows = explain(pairs(), CLASSES, "segwright", "monai").rows()
    assert rows[0] == ("", "segwright", "monai", "difference", "images", "absent_from", "void")
    assert [row[0] for row in rows[1:]] == list(Confusion.SCORES)
    assert all(len(row) == 7 for row in rows)


def test_conventions_that_agree_say_so():
    found = explain(pairs(), CLASSES, "segwright", "cityscapes")
    assert found.moves == {} and found.difference == 0
    assert (
        found.sentences()[-1]
        == "segwright and cityscapes agree in all that they choose, so their scores are the same on any data."
    )


def test_a_choice_that_changes_nothing_says_so():
    data = [("one", semantic([[0, 1, 2]]), semantic([[0, 1, 2]]))]
    assert any(
        "this alone changes nothing" in sentence for sentence in explain(data, CLASSES, "segwright", "monai").sentences()
    )


def test_one_image_of_nothing_but_void_is_unknown():
    data = [("one", semantic([[VOID]]), semantic([[VOID]]))]
    found = explain(data, CLASSES, "segwright", "nnunet")
    assert np.isnan(found.difference) and found.rows()[1][1] == "unknown"
    assert all(isinstance(sentence, str) for sentence in found.sentences())


# By a slow twin


@pytest.mark.parametrize(("a", "b"), [("segwright", "torchmetrics"), ("nnunet", "mmsegmentation_zero_label"), ("monai", "smp")])
def test_equals_counting_again_without_each_image_and_with_each_field(a, b):
    data = list(pairs())
    first, second = convention_named(a), convention_named(b)
    found = explain(iter(data), CLASSES, a, b)
    assert found.scores[MAIN] == pytest.approx((score_of(first, data), score_of(second, data)))
    for index, (key, _, _) in enumerate(data):
        rest = data[:index] + data[index + 1 :]
        assert found.images[key] == pytest.approx(score_of(second, rest) - score_of(first, rest), abs=1e-12)
    for field in first.differences(second):
        changed = type(first)(**{**vars(first), field: getattr(second, field)})
        assert found.moves[field][MAIN] == pytest.approx(score_of(changed, data) - score_of(first, data), abs=1e-12)


# By a law


@pytest.mark.parametrize("name", CONVENTIONS)
def test_there_and_back_is_the_same_difference(name):
    there, back = (explain(pairs(), CLASSES, *order) for order in (("segwright", name), (name, "segwright")))
    assert there.difference == -back.difference and set(there.moves) == set(back.moves)
    assert list(there.images.values()) == pytest.approx([-back.images[key] for key in there.images])


# By its messages


def test_an_unknown_convention_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="no convention 'nnUnet', did you mean 'nnunet'"):
        explain(pairs(), CLASSES, "segwright", "nnUnet")


def test_no_images_are_refused():
    with pytest.raises(UsageError, match="no images to explain a difference on; give predictions and truths"):
        explain([], CLASSES, "segwright", "smp")


def test_an_image_of_another_size_is_named():
    with pytest.raises(ShapeError, match="sample .one.: the prediction is 1 x 1 and"):
        explain([("one", semantic([[0]]), semantic([[0, 1]]))], CLASSES, "segwright", "smp")
