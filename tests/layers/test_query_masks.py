"""What networks of queries say. Axes: B batch, Q queries, K classes, h, w."""

import torch
from lightning_fabric.utilities import move_data_to_device

from segwright.layers.query_masks import QueryMasks


def test_it_stays_what_it_is_on_its_way_to_a_device():
    moved = move_data_to_device(QueryMasks(torch.zeros(1, 2, 4), torch.zeros(1, 2, 3, 3)), torch.device("meta"))
    assert type(moved) is QueryMasks and all(tensor.is_meta for tensor in moved)
    assert moved._fields == ("class_logits", "mask_logits")
