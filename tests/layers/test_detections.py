"""What networks that find objects say. Axes: B batch, M places."""

import torch
from lightning_fabric.utilities import move_data_to_device

from segwright.layers.detections import Detections


def test_it_stays_what_it_is_on_its_way_to_a_device():
    boxes = torch.zeros(1, 2, 4)
    found = Detections(boxes, boxes[..., 0], boxes[..., 0].long(), torch.zeros(1, 2, 0, 0), boxes)
    moved = move_data_to_device(found, torch.device("meta"))
    assert type(moved) is Detections and all(tensor.is_meta for tensor in moved)
    assert moved._fields == ("boxes", "scores", "class_ids", "masks", "regions")
