import importlib.util
from pathlib import Path

import numpy as np
import pytest

from segwright.core import VOID, Segmentation
from segwright.core.errors import SettingError, ShapeError, UsageError
from segwright.metrics import box_average_precision as module
from segwright.metrics.box_average_precision import BoxAveragePrecision, boxes_around

SPEC = importlib.util.spec_from_file_location("masks", Path(__file__).with_name("test_average_precision.py"))
masks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(masks)
box, objects, CLASSES, SHAPE = masks.box, masks.objects, masks.CLASSES, masks.SHAPE


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools(seed, ties):
    pairs = [masks.random_pair(100 * seed + n, ties=ties) for n in range(10)]
    metric = BoxAveragePrecision(CLASSES)
    theirs = masks.official(*masks.coco_files(pairs, boxes=True), kind="bbox")
    masks.assert_equal(metric.score(masks.total(metric, pairs)), {f"box {name}": value for name, value in theirs.items()})


def test_by_hand():
    """A ring and a disc inside of it have one box."""
    ring = box(0, 0, 10, 10) & ~box(1, 1, 9, 9)
    metric = BoxAveragePrecision(CLASSES)
    scores = metric.score(metric.count(objects([ring], [0]), objects([box(0, 0, 10, 9)], [0])))
    assert scores["box AP"] == pytest.approx(0.9) and scores["box AP75"] == 1  # IoU 0.9: right at 9 of 10 thresholds


def test_boxes_around():
    planes = np.zeros((2, 4, 5), np.int32)
    planes[0, 1, 2], planes[1, 3, 0] = 1, 1
    planes[0, 2:, 3:] = VOID
    assert boxes_around(planes, 2).tolist() == [[[1, 0], [4, 3]], [[0, 0], [0, 0]]]
    assert boxes_around(planes[:, None], 1).tolist() == [[[0, 1, 0], [1, 4, 3]]]


def test_boxes_around_are_those_of_the_segmentation():
    prediction, _ = masks.random_pair(1)
    ours = boxes_around(prediction.planes, len(prediction))[..., ::-1].reshape(-1, 4)
    np.testing.assert_array_equal(ours, prediction.boxes_xyxy())


@pytest.mark.parametrize("cells", [1, 7])
def test_pairs_are_the_same_a_few_at_a_time(monkeypatch, cells):
    prediction, truth = masks.random_pair(2)
    whole = BoxAveragePrecision(CLASSES).count(prediction, truth).images[0]
    monkeypatch.setattr(module, "CELLS", cells)
    parts = BoxAveragePrecision(CLASSES).count(prediction, truth).images[0]
    np.testing.assert_array_equal(parts.correct, whole.correct)
    np.testing.assert_array_equal(parts.counted, whole.counted)


def test_void_is_cut_off():
    labels = np.zeros(SHAPE, np.int32)
    labels[:10, :10], labels[50:, :] = 1, VOID
    truth = Segmentation.panoptic(labels, [0], [1], classes=CLASSES)
    prediction = objects([box(60, 0, 90, 90), box(0, 0, 10, 10) | box(60, 0, 70, 9)], [0, 0], [0.9, 0.8])
    metric = BoxAveragePrecision(CLASSES, max_detections=(1,))
    assert metric.score(metric.count(prediction, truth))["box AP"] == 1


def test_messages():
    with pytest.raises(SettingError, match="an IoU threshold is 2; give shares"):
        BoxAveragePrecision(CLASSES, iou_thresholds=(2,))
    with pytest.raises(ShapeError, match="predict at the size"):
        BoxAveragePrecision(CLASSES).count(
            objects([], []), Segmentation.panoptic(np.zeros((4, 4), np.int32), [], classes=CLASSES)
        )
    with pytest.raises(UsageError, match="detection 0 is NaN"):
        BoxAveragePrecision(CLASSES).count(objects([box(0, 0, 5, 5)], [0], [np.nan]), objects([], []))
    assert "of boxes" in BoxAveragePrecision(CLASSES).convention
