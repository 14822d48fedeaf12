"""Segments of class maps by hand and by a law. Axes: N classes, H, W."""

import torch

from segwright.layers.class_segments import class_segments


def test_each_class_that_is_there_is_a_segment():
    boxes, class_ids, planes = class_segments(torch.tensor([[2, 2, -1], [5, 2, 5]]))
    assert class_ids.tolist() == [2, 5] and planes.tolist() == [[[1, 1, -1], [2, 1, 2]]] and planes.dtype == torch.int32
    assert boxes.tolist() == [[0, 0, 2, 2], [0, 1, 3, 2]] and boxes.dtype == torch.float32


def test_void_alone_is_no_segment():
    boxes, class_ids, planes = class_segments(torch.full((2, 3), -1))
    assert boxes.shape == (0, 4) and class_ids.shape == (0,) and (planes == -1).all()


def test_the_class_map_comes_back():
    class_map = torch.randint(-1, 6, (9, 7), generator=torch.Generator().manual_seed(0))
    _, class_ids, planes = class_segments(class_map)
    assert (torch.cat([torch.tensor([-1]), class_ids])[planes[0].clamp(min=0)] == class_map).all()
