"""Which object a box has, against torchvision. Axes: n boxes, N objects."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from segwright.layers.box_matching import NONE, UNCLEAR, match_boxes


def test_by_hand():
    objects = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 2], [40, 40, 50, 50], [20, 0, 30, 3]])
    matches = match_boxes(boxes, objects, low=0.3, high=0.7, keeps_best=False)
    assert matches.tolist() == [0, UNCLEAR, NONE, NONE, UNCLEAR]  # of overlaps 1, 0.5, 0.2, 0 and 0.3
    matches = match_boxes(boxes, objects, low=0.3, high=0.7, keeps_best=True)
    assert matches.tolist() == [0, UNCLEAR, NONE, NONE, 1]  # the last is the best there is for object 1


def test_without_objects_and_without_boxes():
    boxes = torch.tensor([[0.0, 0, 1, 1]])
    assert match_boxes(boxes, boxes[:0], low=0.3, high=0.7, keeps_best=True).tolist() == [NONE]
    assert match_boxes(boxes[:0], boxes, low=0.5, high=0.5, keeps_best=False).tolist() == []


def test_an_object_that_no_box_touches_is_nobodys():
    objects, boxes = torch.tensor([[50.0, 50, 60, 60]]), torch.tensor([[0.0, 0, 1, 1], [2, 2, 3, 3]])
    assert match_boxes(boxes, objects, low=0.3, high=0.7, keeps_best=True).tolist() == [NONE, NONE]


@pytest.mark.parametrize(("low", "high", "keeps_best"), [(0.3, 0.7, True), (0.3, 0.7, False), (0.5, 0.5, False)])
def test_equals_torchvision_live_with_more_objects_than_are_compared_at_once(low, high, keeps_best):
    generator = torch.Generator().manual_seed(0)
    low_corner = torch.randint(0, 40, (700, 2), generator=generator).float()  # whole numbers, so that some overlaps are equal
    boxes = torch.cat([low_corner, low_corner + torch.randint(5, 25, (700, 2), generator=generator)], dim=1)
    objects, boxes = boxes[:50], boxes[50:]
    ours = match_boxes(boxes, objects, low=low, high=high, keeps_best=keeps_best)
    wanted = Matcher(high, low, allow_low_quality_matches=keeps_best)(box_iou(objects, boxes))
    assert torch.equal(ours, wanted)
    assert (ours >= 0).any() and (ours == NONE).any()
