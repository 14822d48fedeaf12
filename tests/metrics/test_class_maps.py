"""Segmentations by class: what is known, void alike in both, whatever planes it lies in."""

import numpy as np
import pytest

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import ShapeError, UsageError
from segwright.metrics.class_maps import class_maps, class_masks, map_dtype
from segwright.metrics.overlaps import check_pair

CLASSES = Classes.of(["ground", "tree", "house"])


def semantic(rows):
    return Segmentation.semantic(np.array(rows), CLASSES)


def test_maps_by_hand():
    prediction = semantic([[0, 1, 2], [2, -1, 1]])
    truth = Segmentation.panoptic(np.array([[1, 0, 2], [-1, 2, -1]]), [2, 0], classes=CLASSES)
    predicted, true = class_maps(prediction, truth, 3)
    assert predicted.tolist() == [[0, 1, 2], [-1, 3, -1]]  # void of a prediction is no class
    assert true.tolist() == [[2, 3, 0], [-1, 0, -1]]


@pytest.mark.parametrize(
    ("num_classes", "dtype"), [(1, "int8"), (127, "int8"), (128, "int16"), (32767, "int16"), (32768, "int32"), (65535, "int32")]
)
def test_maps_are_as_small_as_the_classes_allow(num_classes, dtype):
    classes = Classes.of([str(k) for k in range(num_classes)])
    truth = Segmentation.semantic(np.array([[num_classes - 1, VOID, 0]]), classes)
    prediction = Segmentation.panoptic(np.array([[0, 1, 1]]), [num_classes - 1], classes=classes)
    predicted, true = class_maps(prediction, truth, num_classes)
    assert predicted.dtype == true.dtype == map_dtype(num_classes) == dtype
    assert true.tolist() == [[num_classes - 1, VOID, 0]] and predicted.tolist() == [[num_classes, VOID, num_classes - 1]]


def test_masks_by_hand():
    prediction, truth = (
        semantic([[0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 0]]),
        semantic([[0, 0, 0, -1], [0, 0, 2, 0], [0, 0, 0, 0]]),
    )
    found = {k: (region, predicted, true) for k, region, predicted, true in class_masks(prediction, truth, 3)}
    assert list(found) == [0, 2]
    region, predicted, true = found[2]
    assert region == (slice(1, 2), slice(1, 3)) and predicted.tolist() == [[True, False]] and true.tolist() == [[False, True]]
    region, predicted, true = found[0]
    assert predicted.shape == (3, 4) and not predicted[0, 3] and not true[0, 3]


@pytest.mark.parametrize("shape", [(13, 17), (6, 9, 7)])
@pytest.mark.parametrize("margin", [0, 2])
def test_masks_equal_a_slow_twin(shape, margin):
    generator = np.random.default_rng(0)
    for _ in range(10):
        masks = generator.random((5, *shape)) < 0.1
        prediction = Segmentation.instances(masks, generator.integers(0, 3, 5), classes=CLASSES)
        truth = Segmentation.semantic(generator.integers(-1, 3, shape), CLASSES)
        is_known = truth.planes[0] != VOID
        seen = 0
        for k, region, *pair in class_masks(prediction, truth, 3, margin):
            for given, mask in zip((prediction, truth), pair, strict=True):
                whole = given.masks()[given.class_ids == k].any(axis=0) & is_known
                np.testing.assert_array_equal(mask, whole[region])
                assert whole.sum() == mask.sum()
                seen += mask.sum()
        assert seen > 0


def test_nothing_has_no_masks():
    empty = Segmentation.panoptic(np.zeros((4, 5), int), [], classes=CLASSES)
    assert list(class_masks(empty, empty, 3)) == []


def test_refuses_what_cannot_be_compared():
    with pytest.raises(ShapeError, match="predict at the size of the original image"):
        check_pair(semantic([[0, 1]]), semantic([[0], [1]]), CLASSES)
    with pytest.raises(UsageError, match=r"the prediction holds class 2 \(house\).*give both the same classes"):
        check_pair(semantic([[2]]), semantic([[0]]), Classes.of(["ground", "tree"]))
    check_pair(semantic([[1]]), semantic([[0]]), Classes.of(["ground", "tree"]))
