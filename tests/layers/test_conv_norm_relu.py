"""Convolution, norm, ReLU. Axes: B, C, H, W."""

import torch
import torch.nn.functional as F

from segwright.layers.conv_norm_relu import ConvNormRelu


def test_equals_its_parts_and_keeps_the_size():
    torch.manual_seed(0)
    block = ConvNormRelu(4, 6, 3, dilation=2, groups=2).eval()
    block[1].running_mean.normal_()
    image = torch.randn(2, 4, 9, 12)
    wanted = F.relu(block[1](F.conv2d(image, block[0].weight, padding=2, dilation=2, groups=2)))
    assert torch.equal(block(image), wanted) and wanted.shape == (2, 6, 9, 12)
    assert ConvNormRelu(4, 6, stride=2)(image).shape == (2, 6, 5, 6)
    assert ConvNormRelu(4, 6, 1)(image).shape == (2, 6, 9, 12)
