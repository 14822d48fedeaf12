import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import ShapeError, UsageError
from segwright.metrics.confusion import Confusion, class_sums, confusion_matrix, dice_of_iou, iou_of_dice

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
    assert_array_equal(state.values, [[2, 3, 0, 0, 0], [4, 3, 0, 0, 0], [2, 4, 0, 1, 0]])
    scores = metric.score(state)
    expected = {
        "pixel accuracy": 5 / 7,
        "mean accuracy": (2 / 4 + 3 / 3) / 2,
        "mIoU": (2 / 4 + 3 / 4) / 2,  # c was predicted on a void pixel only, which does not count
        "frequency-weighted IoU": (4 * 2 / 4 + 3 * 3 / 4) / 7,
        "Dice": (4 / 6 + 6 / 7) / 2,
        "precision": (2 / 2 + 3 / 4) / 2,
        "recall": (2 / 4 + 3 / 3) / 2,
        "kappa": (5 / 7 - (4 * 2 + 3 * 4) / 49) / (1 - (4 * 2 + 3 * 4) / 49),
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


def tumour(*regions):
    """A 1 x 4 picture from rows of 0 and 1, one for each region of the classes a, b, c."""
    planes = np.array([np.where(region, k + 1, 0) for k, region in enumerate(regions)], np.int32)[:, None]
    count = len(regions)
    return Segmentation(planes, np.arange(count, dtype=np.int32), np.zeros(count, np.int32), np.ones(count, np.float32), ABC)


def test_overlapping_regions_are_counted_class_by_class():
    truth = tumour([1, 1, 1, 0], [0, 1, 1, 0])
    prediction = tumour([1, 1, 0, 1], [0, 1, 0, 0])
    state = Confusion(ABC).count(prediction, truth)
    assert_array_equal(state.values, [[2, 1, 0, 0, 0], [3, 2, 0, 1, 2], [3, 1, 0, 1, 1]])
    scores = Confusion(ABC).score(state)
    assert scores["IoU/a"] == 2 / 4 and scores["IoU/b"] == 1 / 2 and np.isnan(scores["IoU/c"])
    assert np.isnan(scores["pixel accuracy"]) and np.isnan(scores["kappa"])


def test_regions_that_do_not_overlap_have_an_accuracy():
    truth, prediction = tumour([1, 1, 0, 0], [0, 0, 1, 0]), tumour([1, 0, 0, 0], [0, 0, 1, 1])
    scores = Confusion(ABC).score(Confusion(ABC).count(prediction, truth))
    assert scores["pixel accuracy"] == 2 / 4


def test_one_image_of_regions_leaves_the_accuracy_of_all_unknown():
    plain = Confusion(ABC).count(*(Segmentation.semantic(each, ABC) for each in (PREDICTION, TRUTH)))
    regions = tumour([1, 1, 1, 0], [0, 1, 1, 0])
    scores = Confusion(ABC).score(plain + Confusion(ABC).count(regions, regions))
    assert np.isnan(scores["pixel accuracy"])
    assert scores["IoU/a"] == (2 + 3) / (4 + 3)


def test_what_is_predicted_where_there_is_nothing_is_wrong():
    """Nothing is not void: somebody looked and found none of the classes."""
    truth = Segmentation.panoptic(np.array([[1, 1, 0, 0, -1]]), [0], classes=ABC)
    prediction = Segmentation.panoptic(np.array([[1, 1, 1, 0, 1]]), [0], classes=ABC)
    scores = Confusion(ABC).score(Confusion(ABC).count(prediction, truth))
    assert scores["IoU/a"] == 2 / 3 and scores["recall/a"] == 1
    assert scores["pixel accuracy"] == 3 / 4  # nothing, rightly


def test_an_empty_prediction_misses_everything():
    truth = Segmentation.semantic(TRUTH, ABC)
    nothing = Segmentation.panoptic(np.zeros((3, 3), int), [], classes=ABC)
    scores = Confusion(ABC).score(Confusion(ABC).count(nothing, truth))
    assert scores["mIoU"] == scores["Dice"] == scores["pixel accuracy"] == scores["kappa"] == 0


def test_binary():
    prediction, truth = np.array([[1, 1, 0, 0]]), np.array([[1, 0, 0, 0]])
    binary = Classes.of(["background", "cell"])
    scores = Confusion(binary).score(Confusion(binary).count(*(Segmentation.semantic(s, binary) for s in (prediction, truth))))
    assert scores["IoU/cell"] == 1 / 2 and scores["Dice/cell"] == 2 / 3 and scores["kappa"] == pytest.approx(1 / 2)


def test_thousands_of_classes_need_no_table_of_their_squares():
    many = Classes.of([str(k) for k in range(60_000)])
    truth = Segmentation.panoptic(np.array([[1, 1, 2, 2]]), [7, 59_999], classes=many)
    prediction = Segmentation.panoptic(np.array([[1, 2, 2, 2]]), [7, 59_999], classes=many)
    state = Confusion(many).count(prediction, truth)
    assert state.values.shape == (3, 60_002) and Confusion(many).score(state)["mIoU"] == (1 / 2 + 2 / 3) / 2


@pytest.mark.parametrize(("iou", "dice"), [(0, 0), (1 / 3, 1 / 2), (0.5, 2 / 3), (1, 1)])
def test_dice_and_iou_by_hand(iou, dice):
    assert dice_of_iou(iou) == pytest.approx(dice) and iou_of_dice(dice) == pytest.approx(iou)


# By a slow twin


@settings(max_examples=40)
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
@settings(max_examples=30)
def test_parts_add_up_to_the_whole(seed, cut):
    prediction, truth = maps(seed)
    parts = [class_sums(confusion_matrix(prediction[part], truth[part], 3)) for part in (slice(cut), slice(cut, None))]
    assert_array_equal((parts[1] + parts[0]).values, class_sums(confusion_matrix(prediction, truth, 3)).values)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30)
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
        assert scores[f"Dice/{name}"] == pytest.approx(dice_of_iou(scores[f"IoU/{name}"]))
    values = np.linspace(0, 1, 7).reshape(1, 7)
    assert iou_of_dice(dice_of_iou(values)) == pytest.approx(values)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_planes_that_do_not_overlap_count_as_one(seed):
    """Several planes are counted class by class, one plane by a table of both classes."""
    prediction, truth = (Segmentation.semantic(each, ABC) for each in maps(seed))
    split = [
        np.where((prediction.planes[0] == i + 1) | (i == 0) & (prediction.planes[0] < 1), prediction.planes[0], 0)
        for i in range(len(prediction))
    ]
    layers = Segmentation(np.stack(split), prediction.class_ids, prediction.instance_ids, prediction.scores, ABC)
    metric = Confusion(ABC)
    assert_array_equal(metric.count(layers, truth).values, metric.count(prediction, truth).values)
    assert_array_equal(metric.matrix(layers, truth), metric.matrix(prediction, truth))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_kappa_and_accuracy_do_not_care_who_is_asked_first(seed):
    prediction, truth = (np.maximum(each, 0) for each in maps(seed))
    one, other = (
        Confusion(ABC).score(class_sums(confusion_matrix(*pair, 3))) for pair in ((prediction, truth), (truth, prediction))
    )
    for name in ("kappa", "pixel accuracy", "mIoU", "Dice"):
        assert one[name] == pytest.approx(float(other[name]), nan_ok=True)
    assert one["precision/a"] == pytest.approx(other["recall/a"], nan_ok=True)


# By its messages


def test_sizes_that_differ_are_refused():
    with pytest.raises(ShapeError, match="is 2 x 2 and the truth 3 x 3 pixels; predict at the size of the original"):
        Confusion(ABC).count(Segmentation.semantic(PREDICTION[:2, :2], ABC), Segmentation.semantic(TRUTH, ABC))


def test_unknown_classes_are_refused():
    with pytest.raises(UsageError, match=r"the truth holds class 1 \(b\), the metric knows 1 classes; give both the same"):
        Confusion(Classes.of(["a"])).count(Segmentation.semantic(np.zeros((3, 3), int), ABC), Segmentation.semantic(TRUTH, ABC))
