"""Ways to double the sides of a map; docs/upsampling.md measures what pattern each leaves in the logits.

    transposed      2x2 transposed convolution of stride 2 (U-Net, arXiv 1505.04597)
    bilinear        linear interpolation, then a 3x3 convolution
    nearest         each pixel twice along each axis, then a 3x3 convolution (Odena et al. 2016, doi 10.23915/distill.00003)
    pixel_shuffle   a 3x3 convolution whose channels become the pixels (sub-pixel convolution, arXiv 1609.05158); it starts as
                    "nearest" without its convolution would (ICNR, arXiv 1707.02937)

In the first and the last, each of the new pixels has weights of its own, and what these do not agree on repeats every second
pixel: a checkerboard. Axes: B batch, C channels, *S spatial axes, (H, W) or (D, H, W).
"""

from typing import Literal

import torch
from torch import nn

from segwright.core.errors import SettingError

Way = Literal["transposed", "bilinear", "nearest", "pixel_shuffle"]

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONVOLUTIONS = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
LINEAR_MODES = {2: "bilinear", 3: "trilinear"}
KERNEL = 3  # of the convolutions but the transposed one


class Upsample(nn.Sequential):
    """Map (B, before, *S) to (B, after, *2S). Weights are He's for a ReLU, which is expected to follow; biases start at 0."""

    def __init__(self, way: Way, before: int, after: int, *, axes: Literal[2, 3] = 2) -> None:
        convolution, padding = CONVOLUTIONS[axes], KERNEL // 2
        layers: list[nn.Module]
        if way == "transposed":
            layers = [TRANSPOSED_CONVOLUTIONS[axes](before, after, 2, stride=2)]
        elif way == "bilinear":
            layers = [
                nn.Upsample(scale_factor=2, mode=LINEAR_MODES[axes], align_corners=False),
                convolution(before, after, KERNEL, padding=padding),
            ]
        elif way == "nearest":
            layers = [nn.Upsample(scale_factor=2, mode="nearest"), convolution(before, after, KERNEL, padding=padding)]
        elif axes == 2:
            layers = [nn.Conv2d(before, 4 * after, KERNEL, padding=padding), nn.PixelShuffle(2)]  # 4: 2x2 pixels
        else:
            raise SettingError("pixel_shuffle works on images alone, and this map has 3 spatial axes; take 'nearest' instead")
        super().__init__(*layers)
        for module in self:
            if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
                _initialise(module, after)


@torch.no_grad()
def _initialise(module: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d, after: int) -> None:
    """He's normal weights by what reaches one new pixel; a pixel shuffle's are equal for all pixels made of one (ICNR)."""
    if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.normal_(module.weight, std=(2 / module.in_channels) ** 0.5)  # one place of the kernel makes each new pixel
    else:
        kernel = torch.empty_like(module.weight[:after])
        nn.init.kaiming_normal_(kernel, nonlinearity="relu")
        module.weight.copy_(kernel.repeat_interleave(module.out_channels // after, dim=0))
    if module.bias is not None:
        nn.init.zeros_(module.bias)
