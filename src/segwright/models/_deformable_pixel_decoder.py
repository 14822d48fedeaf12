"""The pixel decoder of Mask2Former: Deformable DETR's encoder on three maps (Zhu et al. 2020, arXiv 2010.04159).

The pixels of the maps at strides 32, 16 and 8 look at each other, by multi-scale deformable attention; the map at stride 4
joins as in a feature pyramid. Published networks have 4 places on each map for each head, and their norms.

Axes: B batch, E channels, S pixels of a map or of all three, H, W sides of the image, h, w sides of a map.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.deformable_attention import Centres, DeformableAttention, Sides, pixel_centres
from segwright.layers.norms import head_norm
from segwright.layers.sine_positions import sine_positions

PLACES = 4  # on each map, for each head
LEVELS = 3  # maps whose pixels look at each other


class Pixels(NamedTuple):
    """What a pixel decoder makes of an image: `features` (B, E, H/4, W/4) for masks, and three levels for queries to read.

    Each of `levels` holds the pixels (B, S, E) of a map with `sides`, row by row, the coarsest first; `positions` (S, E) are
    theirs.
    """

    features: Tensor
    levels: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]
    sides: Sides


class DeformablePixelDecoder(nn.Module):
    """Four maps (B, channels[i], h, w), the finest first, to `Pixels`."""

    def __init__(self, channels: Sequence[int], width: int, *, depth: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        finest, *others = channels
        self.project = nn.ModuleList(_projection(before, width, has_bias=True) for before in reversed(others))
        self.level_embed = nn.Parameter(torch.randn(LEVELS, width))
        self.layers = nn.ModuleList(_Layer(width, num_heads, mlp_width) for _ in range(depth))
        self.lateral = _projection(finest, width, has_bias=False)
        smooth = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.smooth = nn.Sequential(smooth, head_norm("group", width), nn.ReLU(inplace=True))
        self.join = nn.Conv2d(width, width, 1)
        for weight in (self.lateral[0].get_parameter("weight"), smooth.weight, self.join.weight):
            nn.init.kaiming_uniform_(weight, a=1)  # as detectron2's Caffe2 rule
        nn.init.zeros_(self.join.get_parameter("bias"))

    def forward(self, maps: Sequence[Tensor]) -> Pixels:
        """What it makes of the maps of an encoder."""
        finest, *others = maps
        levels = [project(level) for project, level in zip(self.project, reversed(others), strict=True)]
        sides = [(int(level.shape[2]), int(level.shape[3])) for level in levels]
        counts = [height * width for height, width in sides]
        x = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)  # (B, S, E), all levels
        positions = tuple(sine_positions(side, x.shape[2], x) for side in sides)
        placed = torch.cat([place + embed for place, embed in zip(positions, self.level_embed, strict=True)])
        wide = torch.promote_types(x.dtype, torch.float32)
        centres = pixel_centres(sides, torch.empty((), dtype=wide, device=x.device))
        for layer in self.layers:
            x = layer(x, placed, sides, centres)
        read = x.split(counts, dim=1)
        above = read[-1].transpose(1, 2).unflatten(2, sides[-1])
        lateral = self.lateral(finest)
        above = F.interpolate(above, size=lateral.shape[2:], mode="bilinear", align_corners=False)
        return Pixels(self.join(self.smooth(lateral + above)), read, positions, sides)


def _projection(before: int, after: int, *, has_bias: bool) -> nn.Sequential:
    """A convolution of 1x1 and a norm."""
    convolution = nn.Conv2d(before, after, 1, bias=has_bias)
    nn.init.xavier_uniform_(convolution.weight)
    if has_bias:
        nn.init.zeros_(convolution.get_parameter("bias"))
    return nn.Sequential(convolution, head_norm("group", after))


class _Layer(nn.Module):
    """Deformable attention of all pixels (B, S, E) to each other, and an MLP, with a norm behind each."""

    def __init__(self, width: int, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.attention = DeformableAttention(width, num_heads=num_heads, levels=LEVELS, places=PLACES)
        self.attention_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, mlp_width)
        self.narrow = nn.Linear(mlp_width, width)
        self.mlp_norm = nn.LayerNorm(width)
        for linear in (self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor, placed: Tensor, sides: Sides, centres: Centres) -> Tensor:
        x = self.attention_norm(x + self.attention(x + placed, x, sides, centres))
        return self.mlp_norm(x + self.narrow(F.relu(self.widen(x))))
