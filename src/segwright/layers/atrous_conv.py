"""Atrous convolution: a 3x3 whose taps lie `rate` pixels apart (DeepLab, arXiv 1412.7062, section 3.1).

Libraries of kernels lose most of their time where taps reach past the border, the more the larger the rate is: DeepLab's three
at 64 x 64 take 1.2 s in bfloat16 on a core with AMX, in OpenVINO and in PyTorch. Three ways around it give the same numbers.

* In training, a tap that reaches past every border, and sees zeros alone, is left out: on a map of 32 x 32, rate 36 leaves one
  tap of nine.
* In prediction each tap is a 1x1 convolution of the part of the map that it sees, and the results are added where they belong:
  0.13 s. In training it would not pay, as the gradients of the nine parts have to be added over the whole map.
* In a traced network, which has to serve maps of all sizes, one 1x1 convolution makes the results of all taps: 0.33 s. In
  float32 the convolution as it stands takes less, so that this one is for networks that are traced to run `in_half` precision.

Axes: B batch, C channels, E channels that come out, H, W sides of the map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (-1, 0, 1)  # of a 3x3, in rates from its middle


class AtrousConv(nn.Conv2d):
    """Map (B, C, H, W) to (B, E, H, W); outside the map there are zeros."""

    def __init__(self, before: int, after: int, rate: int, *, bias: bool = True) -> None:
        super().__init__(before, after, 3, padding=rate, dilation=rate, bias=bias)
        self.rate = rate
        self.in_half = False  # an engine that traces it to run in half precision sets it

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self._of_taps_that_see(x)
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return self._all_at_once(x) if self.in_half else super().forward(x)
        return self._by_taps(x)

    def _of_taps_that_see(self, x: Tensor) -> Tensor:
        rows, columns = (slice(1, 2) if self.rate >= side else slice(0, 3) for side in x.shape[2:])
        weight = self.weight[:, :, rows, columns]
        padding = tuple(self.rate * (taps // 2) for taps in weight.shape[2:])
        return F.conv2d(x, weight, self.bias, padding=padding, dilation=self.rate)

    def _by_taps(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        total = F.conv2d(x, self.weight[:, :, 1:2, 1:2], self.bias)
        for row in TAPS:
            for column in TAPS:
                down, right = self.rate * row, self.rate * column  # where the tap looks, seen from a pixel
                if row == column == 0 or abs(down) >= height or abs(right) >= width:
                    continue
                seen = x[:, :, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
                part = F.conv2d(seen, self.weight[:, :, row + 1 : row + 2, column + 1 : column + 2])
                total = total + F.pad(part, (max(-right, 0), max(right, 0), max(-down, 0), max(down, 0)))
        return total

    def _all_at_once(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        weight = self.weight.permute(2, 3, 0, 1).flatten(0, 2)[:, :, None, None]  # (9 E, C, 1, 1), tap by tap
        parts = F.pad(F.conv2d(x, weight), (self.rate,) * 4).split(self.out_channels, dim=1)
        corners = [[self.rate * tap for tap in divmod(number, 3)] for number in range(len(parts))]
        shifted = [part[:, :, i : i + height, j : j + width] for part, (i, j) in zip(parts, corners, strict=True)]
        total = sum(shifted[1:], shifted[0])
        return total if self.bias is None else total + self.bias[:, None, None]
