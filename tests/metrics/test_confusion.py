import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import ShapeError, UsageError
from segwright.metrics.confusion import Confusion, class_sums, confusion_matrix

ABC = Classes.of(["a", "b", "c"])
TRUTH = np.array([[0, 0, 1], [0, 1, 1], [-1, -1, 0]])
PREDICTION = np.array([[0, 0, 1], [1, 1, 1], [2, 0, -1]])


def maps(seed, shape=(13, 17), classes=3):
    generator = np.random.default_rng(seed)
    return (generator.integers(VOID, classes, shape) for _ in range(2))


def twin(prediction, truth, classes):
    """The matrix by a loop over the pixels."""
    matrix = np.zeros((classes, classes + 1), int)
    for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
        if 0 <= t < classes:
            matrix[t, p if 0 <= p < classes else classes] += 1
    return matrix


# By hand


def test_three_by_three():
    metric = Confusion(ABC)
    prediction, truth = Segmentation.semantic(PREDICTION, ABC), Segmentation.semantic(TRUTH, ABC)
    assert_array_equal(metric.matrix(prediction, truth), [[2, 1, 0, 1], [0, 3, 0, 0], [0, 0, 0, 0]])
    state = metric.count(prediction, truth)
    assert_array_equal(state.values, [[2, 3, 0], [4, 3, 0], [2, 4, 0]])
    scores = metric.score(state)
    expected = {
        "pixel accuracy": 5 / 7,
        "mean accuracy": (2 / 4 + 3 / 3) / 2,
        "mIoU": (2 / 4 + 3 / 4) / 2,  # c was predicted on a void pixel only, which does not count
        "frequency-weighted IoU": (4 * 2 / 4 + 3 * 3 / 4) / 7,
        "Dice": (4 / 6 + 6 / 7) / 2,
        "IoU/a": 2 / 4,
        "IoU/b": 3 / 4,
        "Dice/a": 4 / 6,
        "Dice/b": 6 / 7,
        "precision/a": 2 / 2,
        "precision/b": 3 / 4,
        "recall/a": 2 / 4,
        "recall/b": 3 / 3,
    }
    absent = {f"{name}/c" for name in ("IoU", "Dice", "precision", "recall")}
    assert set(scores) == set(expected) | absent
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert all(np.isnan(scores[name]) for name in absent)


def test_a_class_that_is_only_predicted_counts_as_zero():
    scores = Confusion(ABC).score(class_sums(confusion_matrix(np.array([[0, 1]]), np.array([[0, 0]]), 3)))
    assert (scores["IoU/b"], scores["mIoU"], scores["mean accuracy"]) == (0, 0.25, 0.5)
    assert scores["precision/b"] == 0 and np.isnan(scores["recall/b"])


def test_nothing_but_void_is_nan():
    nothing = Segmentation.semantic(np.full((3, 3), VOID), ABC)
    assert all(np.isnan(value) for value in Confusion(ABC).score(Confusion(ABC).count(nothing, nothing)).values())


def test_instances_that_overlap_are_read_by_class():
    masks = np.zeros((2, 1, 3), bool)
    masks[0, 0, :2] = masks[1, 0, 1:] = True
    objects = Segmentation.instances(masks, [0, 2], classes=ABC)  # a a-and-c c; the later one covers
    assert len(objects.planes) == 2
    matrix = Confusion(ABC).matrix(objects, Segmentation.semantic(np.array([[0, 2, 1]]), ABC))
    assert_array_equal(matrix, [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]])


def test_segments_of_one_class_are_added():
    objects = Segmentation.panoptic(np.array([[1, 2, 0, 3]]), [1, 1, 0], [1, 2, 0], classes=ABC)
    matrix = Confusion(ABC).matrix(objects, Segmentation.semantic(np.array([[1, 1, 1, 1]]), ABC))
    assert_array_equal(matrix[1], [1, 2, 0, 1])


def test_the_convention_is_one_sentence():
    assert Confusion.convention.endswith(".") and ". " not in Confusion.convention


# By a slow twin


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(1, 12),
    shape=st.sampled_from([(1, 1), (7, 9), (3, 4, 5)]),
    dtypes=st.tuples(*[st.sampled_from([np.uint8, np.int8, np.uint16, np.int32, np.int64])] * 2),
)
def test_equals_a_loop_over_the_pixels(seed, classes, shape, dtypes):
    """With labels of no class below and above the range; -1 becomes the largest value of an unsigned type."""
    generator = np.random.default_rng(seed)
    prediction, truth = (generator.integers(VOID, classes + 2, shape).astype(dtype) for dtype in dtypes)
    matrix = confusion_matrix(prediction, truth, classes)
    assert matrix.dtype == np.int64
    assert_array_equal(matrix, twin(prediction, truth, classes))


@pytest.mark.parametrize("seed", range(4))
def test_segmentations_count_as_their_class_maps(seed):
    prediction, truth = maps(seed)
    matrix = Confusion(ABC).matrix(Segmentation.semantic(prediction, ABC), Segmentation.semantic(truth, ABC))
    assert_array_equal(matrix, twin(prediction, truth, 3))


def test_any_memory_layout_gives_the_same():
    prediction, truth = maps(0)
    assert_array_equal(confusion_matrix(prediction.T, truth.T, 3), confusion_matrix(prediction, truth, 3))


# By a law


@given(seed=st.integers(0, 10**6), cut=st.integers(0, 13))
@settings(deadline=None, max_examples=30)
def test_parts_add_up_to_the_whole(seed, cut):
    prediction, truth = maps(seed)
    parts = [class_sums(confusion_matrix(prediction[part], truth[part], 3)) for part in (slice(cut), slice(cut, None))]
    assert_array_equal((parts[1] + parts[0]).values, class_sums(confusion_matrix(prediction, truth, 3)).values)


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_names_of_classes_do_not_matter(seed):
    prediction, truth = maps(seed)
    order = np.array([2, 0, 1, VOID])  # index -1 is the last
    one = Confusion(ABC).score(class_sums(confusion_matrix(prediction, truth, 3)))
    other = Confusion(ABC).score(class_sums(confusion_matrix(order[prediction], order[truth], 3)))
    for name in ("mIoU", "pixel accuracy", "mean accuracy", "frequency-weighted IoU", "Dice"):
        assert other[name] == pytest.approx(one[name])
    assert other["IoU/c"] == one["IoU/a"]


def test_dice_and_iou_say_the_same():
    prediction, truth = maps(1)
    scores = Confusion(ABC).score(class_sums(confusion_matrix(prediction, truth, 3)))
    for name in ABC.names:
        assert scores[f"Dice/{name}"] == pytest.approx(2 * scores[f"IoU/{name}"] / (1 + scores[f"IoU/{name}"]))


# By its messages


def test_sizes_that_differ_are_refused():
    with pytest.raises(ShapeError, match=r"\(2, 2\) and the truth \(3, 3\); predict at the size of the original"):
        Confusion(ABC).count(Segmentation.semantic(PREDICTION[:2, :2], ABC), Segmentation.semantic(TRUTH, ABC))


def test_unknown_classes_are_refused():
    with pytest.raises(UsageError, match=r"the truth holds class 1 \(b\), the metric knows 1 classes; give both the same"):
        Confusion(Classes.of(["a"])).count(Segmentation.semantic(np.zeros((3, 3), int), ABC), Segmentation.semantic(TRUTH, ABC))
