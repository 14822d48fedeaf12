"""Where torchmetrics gives another number for objects and segments, and why; what docs/metrics.md says of it.

Of pixels by class, tests/metrics/test_conventions.py tells the same, of calibration test_calibration.py.
"""

import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.metrics.average_precision import AveragePrecision
from segwright.metrics.panoptic_quality import PanopticQuality
from segwright.metrics.surface_distance import SurfaceDistance

torch = pytest.importorskip("torch")
detection = pytest.importorskip("torchmetrics.detection")
pytest.importorskip("pycocotools")

CLASSES = Classes.of(["car"], is_thing=[True])


def row(lengths):
    """Masks (N, 1, W) side by side."""
    ends = np.cumsum(lengths)
    masks = np.zeros((len(lengths), 1, 1024), bool)
    for mask, end, length in zip(masks, ends, lengths, strict=True):
        mask[0, end - length : end] = True
    return masks


def map_by_torchmetrics(masks, scores, truths, **settings):
    metric = detection.MeanAveragePrecision(iou_type="segm", **settings)
    labels = torch.zeros(len(masks), dtype=torch.long)
    predicted = {"masks": torch.from_numpy(masks), "scores": torch.tensor(scores), "labels": labels}
    metric.update([predicted], [{"masks": torch.from_numpy(truths), "labels": torch.zeros(len(truths), dtype=torch.long)}])
    return metric.compute()["map"].item()


def our_map(masks, scores, truths, **settings):
    metric = AveragePrecision(CLASSES, **settings)
    prediction = Segmentation.instances(masks, [0] * len(masks), scores=scores, classes=CLASSES)
    truth = Segmentation.instances(truths, [0] * len(truths), classes=CLASSES)
    return float(metric.score(metric.count(prediction, truth))["AP"])


def test_its_recalls_are_rounded_to_float32():
    """Three of five objects found are a recall of 0.6, which does not reach its 0.60000002: one point of 101 is lost."""
    truths = row([20, 20, 20, 20, 20])
    found, scores = truths[:3], [0.9, 0.8, 0.7]
    assert our_map(found, scores, truths) == pytest.approx(61 / 101, abs=1e-12)
    assert map_by_torchmetrics(found, scores, truths) == pytest.approx(60 / 101, abs=1e-6)
    exact = {"rec_thresholds": np.linspace(0, 1, 101).tolist()}
    assert map_by_torchmetrics(found, scores, truths, **exact) == pytest.approx(61 / 101, abs=1e-6)


def test_its_thresholds_are_rounded_to_float32():
    """An IoU of 12 / 20 does not reach its threshold of 0.6, which is a little more in float32."""
    truths, found = row([20]), row([12])
    assert our_map(found, [0.9], truths) == pytest.approx(3 / 10)  # 0.5, 0.55 and 0.6 are reached
    assert map_by_torchmetrics(found, [0.9], truths) == pytest.approx(2 / 10)


def test_its_map_is_unknown_with_other_limits_than_those_of_coco():
    truths = row([20, 20])
    limits = {"max_detection_thresholds": [1, 10, 500]}
    assert map_by_torchmetrics(truths, [0.9, 0.8], truths, **limits) == -1
    assert our_map(truths, [0.9, 0.8], truths, max_detections=(1, 10, 500)) == 1


def test_its_panoptic_quality_forgives_objects_where_nothing_is_predicted():
    """panopticapi and the paper count them as misses: one of two found is 1 / (1 + 0.5)."""
    truth = np.array([[1, 1, 2, 2]])
    prediction = np.array([[1, 1, 0, 0]])
    metric = detection.PanopticQuality(things={0}, stuffs={1}, allow_unknown_preds_category=True)
    theirs = [np.stack([np.where(ids > 0, 0, 9), ids], axis=-1)[None] for ids in (prediction, truth)]
    assert metric(*map(torch.from_numpy, theirs)).item() == 1
    ours = PanopticQuality(CLASSES)
    counted = ours.count(
        Segmentation.panoptic(prediction, [0], [1], classes=CLASSES),
        Segmentation.panoptic(truth, [0, 0], [1, 2], classes=CLASSES),
    )
    assert float(ours.score(counted)["PQ"]) == pytest.approx(2 / 3, abs=1e-12)


def test_its_hausdorff_distance_is_that_of_the_border_too():
    segmentation = pytest.importorskip("torchmetrics.functional.segmentation")
    truth, prediction = np.zeros((2, 12, 12), int)
    truth[2:8, 2:8] = prediction[2:8, 3:11] = 1
    maps = [torch.from_numpy(each)[None] for each in (prediction, truth)]
    theirs = segmentation.hausdorff_distance(*maps, num_classes=2, include_background=False, input_format="index").item()
    metric = SurfaceDistance(CLASSES)
    pair = (Segmentation.panoptic(each, [0], classes=CLASSES) for each in (prediction, truth))
    assert float(metric.score(metric.count(*pair))["HD"]) == pytest.approx(theirs) == 3
