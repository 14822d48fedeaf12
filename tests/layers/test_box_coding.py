"""How boxes are told by others, against torchvision. Axes: n boxes."""

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import clip_boxes_to_image

from segwright.layers.box_coding import clip_boxes, decode_boxes, encode_boxes

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def drawn_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low, sides = torch.rand(2, count, 2, generator=generator, dtype=torch.float64) * 50
    return torch.cat([low, low + sides + 1], dim=1)


def test_by_hand():
    other, box = torch.tensor([0.0, 0, 10, 20]), torch.tensor([5.0, 5, 15, 45])
    deltas = encode_boxes(box, other, (1, 1, 1, 1))
    torch.testing.assert_close(deltas, torch.tensor([0.5, 0.75, 0, 2.0]).where(torch.arange(4) < 3, torch.tensor(2.0).log()))
    assert encode_boxes(other, other, WEIGHTS).tolist() == [0, 0, 0, 0]
    assert clip_boxes(torch.tensor([-3.0, -4, 30, 40]), (20, 25)).tolist() == [0, 0, 25, 20]


def test_what_was_encoded_is_decoded():
    boxes, others = drawn_boxes(50, 0), drawn_boxes(50, 1)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, others, WEIGHTS), others, WEIGHTS), boxes)


def test_sides_grow_to_a_limit():
    other = torch.tensor([0.0, 0, 16, 16])
    box = decode_boxes(torch.tensor([0.0, 0, 50, 1000]), other, (1, 1, 1, 1))
    torch.testing.assert_close(box[2:] - box[:2], torch.tensor([1000.0, 1000.0]))


@pytest.mark.parametrize("weights", [WEIGHTS, (1.0, 1.0, 1.0, 1.0)])
def test_equals_torchvision_live(weights):
    boxes, others = drawn_boxes(50, 0), drawn_boxes(50, 1)
    coder = BoxCoder(weights)
    torch.testing.assert_close(encode_boxes(boxes, others, weights), coder.encode_single(boxes, others))
    deltas = torch.randn(50, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 3
    decoded = decode_boxes(deltas, others[:, None], weights)  # three classes at a time
    torch.testing.assert_close(decoded, coder.decode_single(deltas.flatten(1), others).unflatten(1, (3, 4)))
    assert torch.equal(clip_boxes(decoded, (40, 30)), clip_boxes_to_image(decoded, (40, 30)))
