"""Feature Pyramid Networks for Object Detection (Lin et al. 2016, arXiv 1612.03144): maps that each know the deeper.

Axes: B batch, C channels, E channels of the pyramid, H, W sides of the image.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.norms import HeadNorm, head_norm


class FeaturePyramid(nn.Module):
    """Maps (B, channels[i], H / strides[i], W / strides[i]), the finest first, to as many (B, width, same sides).

    From the deepest to the finest, each map is brought to `width` channels by a 1x1 convolution, and what came before it, its
    pixels repeated, is added. With `smooth`, as in the paper, a 3x3 convolution on each sum follows. A norm may follow each.
    """

    def __init__(self, channels: tuple[int, ...], width: int, *, smooth: bool = True, norm: HeadNorm = "none") -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_convolution(before, width, 1, norm) for before in channels)
        self.output = nn.ModuleList(_convolution(width, width, 3, norm) for _ in channels) if smooth else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)  # as Caffe2's and detectron2's: no ReLU follows
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps of the pyramid, the finest first."""
        levels: list[Tensor] = []
        for level, lateral in zip(maps[::-1], self.lateral[::-1], strict=True):
            here = lateral(level)
            if levels:
                here = here + F.interpolate(levels[-1], size=here.shape[2:], mode="nearest")
            levels.append(here)
        levels = levels[::-1]
        if self.output is None:
            return levels
        return [smooth(level) for smooth, level in zip(self.output, levels, strict=True)]


def _convolution(before: int, after: int, kernel: int, norm: HeadNorm) -> nn.Module:
    """A convolution that keeps the size, and its norm, if there is one."""
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=norm == "none")
    return convolution if norm == "none" else nn.Sequential(convolution, head_norm(norm, after))
