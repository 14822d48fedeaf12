"""Depthwise separable convolution (Xception, arXiv 1610.02357) with its norm. Axes: B batch, C channels, H, W sides."""

import torch.nn.functional as F
from torch import Tensor, nn


class SeparableConvNormRelu(nn.Module):
    """Map (B, before, H, W) to (B, after, H, W): a 3x3 convolution of each channel alone, a 1x1 that mixes them, norm, ReLU."""

    def __init__(self, before: int, after: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(before, before, 3, padding=dilation, dilation=dilation, groups=before, bias=False)
        self.conv = nn.Conv2d(before, after, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(self.depthwise(x))), inplace=True)
