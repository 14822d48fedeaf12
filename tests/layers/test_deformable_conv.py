"""Deformable convolutions. Axes: B, C, H, W; T taps."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from segwright.layers.deformable_conv import DeformableConv

GOLDEN = Path(__file__).parent.parent / "golden" / "deform_conv_a.safetensors"


def twin(x, offset, mask, layer):
    """Each tap of each pixel by itself: where it looks, what lies there, bilinearly and 0 outside, and what it counts."""
    height, width = x.shape[2:]
    rows, columns = offset.shape[2:]
    found = layer.bias[None, :, None, None].repeat(len(x), 1, rows, columns).clone()

    def value(image, y, x):
        return x_in[image, :, y, x] if 0 <= y < height and 0 <= x < width else torch.zeros_like(x_in[image, :, 0, 0])

    x_in = x
    for image in range(len(x)):
        for row in range(rows):
            for column in range(columns):
                for tap in range(9):
                    dy, dx = offset[image, 2 * tap : 2 * tap + 2, row, column].tolist()
                    at_y = row * layer.stride + (tap // 3 - 1) * layer.dilation + dy
                    at_x = column * layer.stride + (tap % 3 - 1) * layer.dilation + dx
                    y, x0 = math.floor(at_y), math.floor(at_x)
                    fy, fx = at_y - y, at_x - x0
                    here = (1 - fy) * ((1 - fx) * value(image, y, x0) + fx * value(image, y, x0 + 1))
                    here = here + fy * ((1 - fx) * value(image, y + 1, x0) + fx * value(image, y + 1, x0 + 1))
                    weight = layer.weight[:, :, tap // 3, tap % 3]
                    found[image, :, row, column] += mask[image, tap, row, column] * (weight @ here)
    return found


def test_by_hand_a_tap_that_looks_one_pixel_to_the_right():
    layer = DeformableConv(1, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1, 1] = 1.0  # the centre, tap 4
        layer.offset_mask.bias[2 * 4 + 1] = 1.0  # along x
        layer.offset_mask.bias[18 + 4] = 100.0  # counts wholly
    image = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]])
    assert layer(image).tolist() == [[[[2.0, 3.0, 0.0], [5.0, 6.0, 0.0]]]]


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_before_training_it_is_half_a_convolution(stride, dilation):
    torch.manual_seed(0)
    layer = DeformableConv(3, 5, stride=stride, dilation=dilation).double()
    image = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    plain = F.conv2d(image, layer.weight, None, stride, dilation, dilation)
    torch.testing.assert_close(layer(image), plain / 2, rtol=1e-12, atol=1e-12)


def test_equals_torchvision_on_the_golden_offsets():
    """The offsets and weights are given there, so the convolution that tells them is made to tell these."""
    golden = load_file(GOLDEN)
    x, offset, mask = (golden[f"in/{name}"] for name in ("x", "offset", "mask"))
    layer = DeformableConv(4, 6)
    layer.load_state_dict(layer.state_dict() | {name: golden[f"in/{name}"] for name in ("weight", "bias")})
    layer.offset_mask.forward = lambda _: torch.cat([offset, mask.logit()], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), golden["out/v2"], rtol=1e-4, atol=4.3e-5)
        layer.offset_mask.forward = lambda _: torch.cat([offset, torch.full_like(mask, 100.0)], dim=1)
        torch.testing.assert_close(layer(x), golden["out/v1"], rtol=1e-4, atol=6.1e-5)  # version 1 has no weights


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 2)])
def test_equals_the_slow_twin(stride, dilation):
    torch.manual_seed(1)
    layer = DeformableConv(2, 3, stride=stride, dilation=dilation).double()
    with torch.no_grad():
        layer.offset_mask.weight.normal_(0, 0.5)
        layer.offset_mask.bias.normal_(0, 0.5)
        layer.bias.normal_()
        x = torch.randn(2, 2, 5, 6, dtype=torch.float64)
        told = layer.offset_mask(x)
        wanted = twin(x, told[:, :18], told[:, 18:].sigmoid(), layer)
        torch.testing.assert_close(layer(x), wanted, rtol=1e-10, atol=1e-10)


def test_learns_where_to_look():
    torch.manual_seed(2)
    layer = DeformableConv(2, 3).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    layer(x).square().sum().backward()
    assert all(each.grad.any() for each in (x, layer.weight, layer.bias, layer.offset_mask.weight, layer.offset_mask.bias))


def test_half_precision_gives_its_own_kind_and_no_memory_gives_shapes():
    layer = DeformableConv(2, 3, stride=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 2, 5, 5)).dtype == torch.bfloat16
    assert layer.to("meta")(torch.empty(1, 2, 5, 6, device="meta")).shape == (1, 3, 3, 3)
