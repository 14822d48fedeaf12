"""Boxes around masks of probabilities. Axes: N masks, h, w sides of the grid."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.layers.mask_boxes import boxes_of_masks


def tight_boxes(masks: torch.Tensor, stride: int) -> list[list[int]]:
    """The boxes of the pixels themselves, at full size."""
    pixels = F.interpolate(masks[None], scale_factor=stride, mode="bilinear", align_corners=False)[0] >= 0.5
    boxes = []
    for mask in pixels:
        ys, xs = mask.nonzero().T
        boxes.append([xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1])
    return boxes


def test_by_hand():
    """One cell of 1 in zeros reaches halfway to its neighbours: its pixels are those of the cell."""
    masks = torch.zeros(2, 4, 5)
    masks[0, 1, 2] = 1
    masks[1] = 1
    assert boxes_of_masks(masks, 4).tolist() == [[8, 4, 12, 8], [0, 0, 20, 16]]


def test_an_edge_lies_where_the_probability_falls_through_a_half():
    masks = torch.tensor([[[0.0, 0.2, 0.8, 0.8, 0.4, 0.0]]]).expand(1, 3, 6)
    assert boxes_of_masks(masks, 4).tolist() == [[8, 0, 17, 12]]
    assert boxes_of_masks(masks, 4).tolist() == tight_boxes(masks, 4)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), stride=st.sampled_from([2, 4, 8]))
def test_every_pixel_lies_inside_and_half_a_step_more_at_most(seed, stride):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(6, 1, 3, 3, generator=generator)
    masks = F.interpolate(noise, size=(9, 12), mode="bicubic")[:, 0].clamp(0, 1)
    masks = masks[(F.interpolate(masks[:, None], scale_factor=stride, mode="bilinear") >= 0.5).flatten(1).any(dim=1)]
    boxes, wanted = boxes_of_masks(masks, stride), torch.tensor(tight_boxes(masks, stride)).reshape(-1, 4)
    assert (boxes[:, :2] <= wanted[:, :2]).all() and (boxes[:, 2:] >= wanted[:, 2:]).all()
    nodes = [(masks >= 0.5).any(dim=axis) for axis in (1, 2)]  # along w, then h
    for axis, (node, side) in enumerate(zip(nodes, (12, 9), strict=True)):
        places = torch.arange(side)
        first = torch.where(node, places, side).amin(dim=1)
        last = torch.where(node, places, -1).amax(dim=1)
        assert (boxes[:, axis] >= first * stride - stride / 2).all()  # half a step from the outermost node is the most
        assert (boxes[:, axis + 2] <= (last + 1) * stride + stride / 2).all()


def test_flipping_flips():
    masks = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(0))
    left, top, right, bottom = boxes_of_masks(masks, 4).T
    assert torch.equal(boxes_of_masks(masks.flip(2), 4), torch.stack([28 - right, top, 28 - left, bottom], dim=1))
    assert torch.equal(boxes_of_masks(masks.mT, 4), torch.stack([top, left, bottom, right], dim=1))


@pytest.mark.parametrize("count", [0, 2])
def test_none_and_empty_masks_give_boxes_too(count):
    assert boxes_of_masks(torch.zeros(count, 4, 4), 4).shape == (count, 4)
