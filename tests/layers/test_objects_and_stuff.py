"""What networks say of objects and stuff. Axes: B batch, M places, S classes of stuff, h, w."""

import torch
from lightning_fabric.utilities import move_data_to_device

from segwright.layers.detections import Detections
from segwright.layers.objects_and_stuff import ObjectsAndStuff


def test_its_first_fields_are_those_of_detections():
    """So that whoever wants the objects alone takes all outputs but the last."""
    assert ObjectsAndStuff._fields == (*Detections._fields, "semantic_logits")


def test_it_stays_what_it_is_on_its_way_to_a_device():
    boxes = torch.zeros(1, 2, 4)
    found = ObjectsAndStuff(boxes, boxes[..., 0], boxes[..., 0].long(), torch.zeros(1, 2, 0, 0), boxes, torch.zeros(1, 3, 8, 8))
    moved = move_data_to_device(found, torch.device("meta"))
    assert type(moved) is ObjectsAndStuff and all(tensor.is_meta for tensor in moved)
