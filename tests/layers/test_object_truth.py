"""What an image holds, on its way to a network. Axes: N objects, P planes, H, W."""

import torch
from lightning_fabric.utilities import move_data_to_device

from segwright.core import Segmentation
from segwright.layers.object_truth import ObjectTruth


def test_by_hand_it_holds_what_a_segmentation_does():
    truth = Segmentation.panoptic(torch.tensor([[0, 1, 1], [0, 2, 0], [-1, 2, 0]]).numpy(), [4, 0])
    objects = ObjectTruth(*map(torch.from_numpy, (truth.boxes_xyxy(), truth.class_ids.astype("int64"), truth.planes)))
    assert objects.boxes.tolist() == [[1, 0, 3, 1], [1, 1, 2, 3]] and objects.class_ids.tolist() == [4, 0]
    for number, (x1, y1, x2, y2) in enumerate(objects.boxes.int().tolist()):
        assert (objects.planes == number + 1).any(0)[y1:y2, x1:x2].all()


def test_it_stays_what_it_is_on_its_way_to_a_device():
    truth = ObjectTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(1, 2, 2, dtype=torch.int32))
    (moved,) = move_data_to_device([truth], torch.device("meta"))  # as Fabric does
    assert type(moved) is ObjectTruth and all(tensor.is_meta for tensor in moved)
