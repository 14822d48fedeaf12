"""Depthwise separable convolution. Axes: B, C, H, W."""

import pytest
import torch
import torch.nn.functional as F

from segwright.layers.separable_conv import SeparableConvNormRelu


def test_a_pixel_spreads_to_its_dilated_neighbours_by_hand():
    block = SeparableConvNormRelu(2, 1, dilation=2).eval()
    with torch.no_grad():
        block.depthwise.weight.copy_(torch.tensor([1.0, 10.0]).view(2, 1, 1, 1).expand(2, 1, 3, 3))
        block.conv.weight.copy_(torch.tensor([1.0, -0.5]).view(1, 2, 1, 1))
    x = torch.zeros(1, 2, 5, 5)
    x[0, 0, 2, 2] = 1
    wanted = torch.zeros(1, 1, 5, 5)
    wanted[..., ::2, ::2] = 1
    torch.testing.assert_close(block(x), wanted, rtol=1e-4, atol=0)
    assert not block(x.flip(1)).any()  # 10 * -0.5 is below zero


@pytest.mark.parametrize("dilation", [1, 3])
def test_equals_one_full_convolution_of_the_products(dilation):
    torch.manual_seed(0)
    block = SeparableConvNormRelu(4, 6, dilation).double().train()
    x = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    weight = block.conv.weight * block.depthwise.weight.transpose(0, 1)  # (after, before, 3, 3)
    wanted = F.batch_norm(F.conv2d(x, weight, padding=dilation, dilation=dilation), None, None, training=True)
    torch.testing.assert_close(block(x), F.relu(wanted))
