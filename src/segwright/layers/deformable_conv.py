"""Modulated deformable convolution: Deformable ConvNets v2 (Zhu et al. 2018, arXiv 1811.11168), by torchvision's operation.

A convolution whose taps look where they choose to: at each pixel, each tap has an offset from its place in the kernel and a
weight, both told by an ordinary convolution of the same kernel. That one starts at 0, so that all taps begin in their places,
each counting half.

Axes: B batch, C channels, T taps of the kernel, H, W sides of a map.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


class DeformableConv(nn.Module):
    """Map (B, before, H, W) to (B, after, H / stride, W / stride), rounded up, for a 3x3 kernel.

    `offset_mask` tells 2T offsets, (y, x) in pixels for each tap, and behind them T weights before the sigmoid. Its kernel and
    that of `weight` lie on the same taps.
    """

    def __init__(self, before: int, after: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.stride, self.dilation = stride, dilation
        self.weight = nn.Parameter(torch.empty(after, before, 3, 3))
        self.bias = nn.Parameter(torch.zeros(after))
        self.offset_mask = nn.Conv2d(
            before, 3 * 9, 3, stride, padding=dilation, dilation=dilation
        )  # 3 numbers for each of T = 9
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")  # as the convolutions it stands for
        self.leave_taps_in_place()

    def leave_taps_in_place(self) -> None:
        """Set the offsets to 0 and the weights to one half, whatever the map is."""
        nn.init.zeros_(self.offset_mask.weight)
        nn.init.zeros_(self.offset_mask.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        told = self.offset_mask(x)  # (B, 3T, H, W)
        offset, mask = told[:, :18], told[:, 18:].sigmoid()  # 2T and T
        side = (self.dilation, self.dilation)
        dtype = torch.promote_types(x.dtype, torch.float32)  # of half a pixel bfloat16 knows nothing beyond column 128
        given = (each.to(dtype) for each in (x, offset, self.weight, self.bias))
        return deform_conv2d(*given, self.stride, side, side, mask.to(dtype)).to(told.dtype)
