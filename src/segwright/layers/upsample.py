"""Ways to enlarge a map; docs/upsampling.md measures what pattern each leaves in the logits.

    transposed      a transposed convolution of as many pixels as its stride (U-Net, arXiv 1505.04597)
    bilinear        a 1x1 convolution, then linear interpolation: the two commute, and it costs least on the small side
    nearest         each pixel repeated, then a 3x3 convolution (Odena et al. 2016, doi 10.23915/distill.00003)
    pixel_shuffle   a 3x3 convolution whose channels become the pixels (sub-pixel convolution, arXiv 1609.05158)

In the first and the last, each of the new pixels has weights of its own, and what these do not agree on repeats with the
stride: a checkerboard. A pixel shuffle that starts with equal ones (ICNR, arXiv 1707.02937) has none before training.

Axes: B batch, C channels, *S spatial axes, (H, W) or (D, H, W).
"""

from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UpsamplingWay = Literal["transposed", "bilinear", "nearest", "pixel_shuffle"]

CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
LINEAR_MODE = {2: "bilinear", 3: "trilinear"}


def upsampling(way: UpsamplingWay, before: int, after: int, stride: tuple[int, ...]) -> nn.Module:
    """What turns a map (B, before, *S) into one (B, after, *S times `stride`), weights as torch draws them."""
    axes = len(stride)
    if way == "transposed":
        return TRANSPOSED[axes](before, after, stride, stride=stride)
    if way == "pixel_shuffle":
        return SubpixelConvolution(before, after, stride)
    if way == "nearest":
        return nn.Sequential(nn.Upsample(scale_factor=stride), _convolution(before, after, stride))
    return nn.Sequential(
        CONVOLUTION[axes](before, after, 1),
        nn.Upsample(scale_factor=stride, mode=LINEAR_MODE[axes], align_corners=False),
    )


def _convolution(before: int, after: int, stride: tuple[int, ...]) -> nn.Module:
    """A 3x3 convolution that joins no pixels along an axis that keeps its side."""
    kernel = tuple(3 if step > 1 else 1 for step in stride)
    return CONVOLUTION[len(stride)](before, after, kernel, padding=tuple(side // 2 for side in kernel))


class SubpixelConvolution(nn.Sequential):
    """A 3x3 convolution of (B, before, *S) to (B, after * pixels, *S), and its channels laid out as pixels."""

    def __init__(self, before: int, after: int, stride: tuple[int, ...]) -> None:
        super().__init__(_convolution(before, after * prod(stride), stride))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """A map (B, after, *S times stride) of a map (B, before, *S); the last axis changes fastest, as in torch's shuffle."""
        axes, x = len(self.stride), super().forward(x)
        if axes == 2 and self.stride[0] == self.stride[1]:
            return F.pixel_shuffle(x, self.stride[0])  # the same, but that it leaves channels innermost
        pixels = x.unflatten(1, (-1, *self.stride))  # (B, after, *stride, *S)
        order = [axis for step in range(2, 2 + axes) for axis in (step + axes, step)]  # each of S before that of its stride
        sides = [side * step for side, step in zip(x.shape[2:], self.stride, strict=True)]
        return pixels.permute(0, 1, *order).reshape(*pixels.shape[:2], *sides)

    @torch.no_grad()
    def make_pixels_equal(self) -> None:
        """Give all pixels that one pixel becomes the weights of the first: ICNR, on weights of whatever distribution."""
        pixels = prod(self.stride)
        for parameter in self.parameters():
            parameter.copy_(parameter[::pixels].repeat_interleave(pixels, dim=0))
