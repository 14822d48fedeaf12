"""What is remembered of an object in a frame: its pixels and its mask in one map, from SAM 2 (arXiv 2408.00714).

The mask is shrunk to the frame's map by four convolutions, each of half the sides and four times the channels, and added to the
map; two blocks of ConvNeXt (Liu et al. 2022, arXiv 2201.03545) mix both.

Axes: B objects, E channels of the frame, R of memory, H, W sides of the image, h, w of its map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHRINKS = 4  # halvings, from the image to a map of stride 16
BLOCKS = 2
KERNEL = 7  # of ConvNeXt
WIDER = 4  # times, a ConvNeXt block is inside
SMALL = 1e-6  # the scale that a block begins with
EPS = 1e-6  # of norms, in the authors' code


class MemoryEncoder(nn.Module):
    """A frame's map (1 or B, E, h, w) and masks (B, 1, H, W) of objects in it to what is remembered of these (B, h * w, R)."""

    def __init__(self, width: int, memory_width: int) -> None:
        super().__init__()
        channels = [4**step for step in range(SHRINKS + 1)]
        self.shrink = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in zip(channels, channels[1:], strict=False)
        )
        self.shrink_norms = nn.ModuleList(nn.LayerNorm(after, eps=EPS) for after in channels[1:])
        self.mask = nn.Conv2d(channels[-1], width, 1)
        self.image = nn.Conv2d(width, width, 1)
        self.blocks = nn.ModuleList(_ConvNextBlock(width) for _ in range(BLOCKS))
        self.output = nn.Conv2d(width, memory_width, 1)

    def forward(self, image: Tensor, masks: Tensor) -> Tensor:
        x = masks
        for shrink, norm in zip(self.shrink, self.shrink_norms, strict=True):
            x = F.gelu(norm(shrink(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        x = self.image(image) + self.mask(x)
        for block in self.blocks:
            x = block(x)
        return self.output(x).flatten(2).transpose(-2, -1)


class _ConvNextBlock(nn.Module):
    """A map (B, E, h, w) by a convolution of each channel, a norm and an MLP of each pixel, behind a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.widen = nn.Linear(width, WIDER * width)
        self.narrow = nn.Linear(WIDER * width, width)
        self.scale = nn.Parameter(torch.full((width,), SMALL))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.mix(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.widen(mixed)))).permute(0, 3, 1, 2)
