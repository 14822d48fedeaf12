"""Where a pixel lies, as sines of many wave lengths: End-to-End Object Detection (Carion et al. 2020, arXiv 2005.12872).

Axes: E channels, H, W sides of a map.
"""

from math import pi

import torch
from torch import Tensor

TEMPERATURE = 10_000.0  # the longest wave length beside the shortest, as in Attention Is All You Need
TINY = 1e-6  # added to the number of pixels of a side, as in the published networks


def sine_positions(sides: tuple[int, int], channels: int, like: Tensor) -> Tensor:
    """Positions of the pixels of a map with `sides` (H, W), row by row: (H * W, E), of the dtype and device of `like`.

    The first half of the channels are of rows, the second of columns; each side counts as one turn. `channels` is a multiple
    of 4.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    half = channels // 2
    pair = torch.arange(half, device=like.device).div(2, rounding_mode="floor").to(wide)
    wave = TEMPERATURE ** (2 * pair / half)  # sine and cosine have the same
    axes = []
    for side in sides:
        place = torch.arange(1, side + 1, device=like.device, dtype=wide) / (side + TINY) * (2 * pi)
        angle = place[:, None] / wave
        axes.append(torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=2).flatten(1))  # (side, E / 2)
    rows, columns = axes
    height, width = sides
    both = [rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)]
    return torch.cat(both, dim=2).flatten(0, 1).to(like.dtype)
