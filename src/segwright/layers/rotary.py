"""Positions as rotations: RoFormer (Su et al. 2021, arXiv 2104.09864), along two axes (Heo et al. 2024, arXiv 2403.13298).

Channels are taken in pairs, and each pair is turned by an angle that grows with the place: the product of a query and a key
then depends on how far they lie apart alone. The first half of the pairs turns with the column, the second with the row.

Axes: N pixels of a map, row by row, M pixels of several maps of these sides one after the other, D channels, P = D / 2 pairs.
"""

import torch
from torch import Tensor

LONGEST = 10_000.0  # the slowest turn beside the fastest, as in Attention Is All You Need


def rotary_angles(sides: tuple[int, int], channels: int, like: Tensor) -> Tensor:
    """The sine and the cosine of the angle of each pair of channels at each pixel of a map of `sides` (h, w): (2, N, P).

    They are of the device of `like`, and of its dtype or, where that is half, float32. `channels` is a multiple of 4.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    h, w = sides
    step = torch.arange(0, channels, 4, device=like.device, dtype=wide) / channels
    speed = LONGEST**-step  # (P / 2,)
    y, x = (torch.arange(side, device=like.device, dtype=wide)[:, None] * speed for side in sides)
    angles = torch.cat([x.expand(h, w, -1), y[:, None].expand(h, w, -1)], dim=-1).flatten(0, 1)
    return torch.stack([angles.sin(), angles.cos()])


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Channels of pixels (*, M, D), of one map or of several of the same sides, turned by the `angles` (2, N, P) of each."""
    pairs = x.unflatten(-1, (-1, 2)).unflatten(-3, (-1, angles.shape[1]))  # (*, maps, N, P, 2)
    sine, cosine = angles
    first, second = pairs.to(angles.dtype).unbind(-1)
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], dim=-1)
    return turned.flatten(-4, -3).flatten(-2).to(x.dtype)
