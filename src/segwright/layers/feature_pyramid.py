"""Feature Pyramid Networks for Object Detection (Lin et al. 2016, arXiv 1612.03144): maps that each know the deeper.

Axes: B batch, C channels, E channels of the pyramid, H, W sides of the image.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Maps (B, channels[i], H / strides[i], W / strides[i]), the finest first, to as many (B, width, same sides).

    From the deepest to the finest, each map is brought to `width` channels by a 1x1 convolution, and what came before it, its
    pixels repeated, is added. With `smooth`, as in the paper, a 3x3 convolution on each sum follows.
    """

    def __init__(self, channels: tuple[int, ...], width: int, *, smooth: bool = True) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(before, width, 1) for before in channels)
        self.output = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels) if smooth else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)  # as Caffe2's and detectron2's: no ReLU follows
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps of the pyramid, the finest first."""
        levels: list[Tensor] = []
        for level, lateral in zip(maps[::-1], self.lateral[::-1], strict=True):
            here = lateral(level)
            if levels:
                above = levels[-1]
                same = above.shape[2:] == here.shape[2:]  # of an encoder with a small output stride
                here = here + (above if same else F.interpolate(above, size=here.shape[2:], mode="nearest"))
            levels.append(here)
        levels = levels[::-1]
        if self.output is None:
            return levels
        return [smooth(level) for smooth, level in zip(self.output, levels, strict=True)]
