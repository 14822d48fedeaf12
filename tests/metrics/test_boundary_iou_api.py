"""Boundary IoU equals that of its authors' boundary-iou-api, whose numbers tests/golden keeps with their commit."""

import json
from pathlib import Path

import numpy as np
import pytest

from segwright.core import Classes, Segmentation
from segwright.metrics.boundary import Boundary

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics_boundary_iou.json"
CLASSES = Classes.of(["object"])


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_equals_boundary_iou_api(share):
    metric = Boundary(CLASSES, band_share=share)
    for pair in json.loads(GOLDEN.read_text())["pairs"]:
        prediction, truth = (
            Segmentation.panoptic(np.array(pair[name]), [0], classes=CLASSES) for name in ("prediction", "truth")
        )
        expected = next(each["iou"] for each in pair["results"] if each["share"] == share)
        assert metric.score(metric.count(prediction, truth))["boundary IoU"] == pytest.approx(expected, abs=1e-12)
