"""A frame of a video heeds what is remembered of earlier ones: SAM 2 (Ravi et al. 2024, arXiv 2408.00714).

Pixels of the frame heed each other, then the pixels of remembered frames and a few tokens that stand for the object in these,
in a few layers. Products are turned by where pixels lie (see `rotary`); tokens lie nowhere.

With seven frames of 64 x 64 pixels in memory that is 4096 x 28672 products a layer, nearly all of the time of a frame. What
pixels take from memory is therefore mixed as it is remembered, in 64 channels, and brought to 256 afterwards, which is the same
for a third less work; and softmax is taken for some queries at a time, so that 470 MB are neither held nor written.

Axes: B objects, N pixels of the frame, M remembered pixels and tokens, E channels of the frame, R of memory.
"""

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.rotary import rotary_angles, rotate
from segwright.layers.sine_positions import sine_positions

OF_POSITIONS = 0.1  # share of sine positions that is added to a frame, in the authors' code
TILE = 2**22  # products at a time: 16 MB, which stay near a core


class MemoryAttention(nn.Module):
    """Layers of attention of a frame to itself and to memory."""

    def __init__(self, width: int, memory_width: int, mlp_width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_MemoryLayer(width, memory_width, mlp_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        image: Tensor,
        sides: tuple[int, int],
        memory: Tensor,
        places: Tensor,
        tokens: int,
        *,
        memory_sides: tuple[int, int] | None = None,
    ) -> Tensor:
        """Pixels (1 or B, N, E) of a frame with `sides` (h, w), for each object by what is known of it: (B, N, E).

        `memory` and its `places` are (B, M, R): first the pixels of some remembered frames, of the same sides or of
        `memory_sides`, then `tokens` tokens. Objects of one frame may share its pixels, whose first look at each other is then
        taken once for all.
        """
        E = image.shape[2]
        x = image + OF_POSITIONS * sine_positions(sides, E, image)
        angles = [rotary_angles(each, E, image) for each in (sides, memory_sides or sides)]
        known = memory + places
        for layer in self.layers:
            x = layer(x, *angles, memory, known, tokens)
        return self.norm(x)


class _MemoryLayer(nn.Module):
    """Attention to the frame itself, to memory, and an MLP, each behind a shortcut and a norm."""

    def __init__(self, width: int, memory_width: int, mlp_width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = _Projections(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.to_memory = _Projections(width, memory_width)
        self.mlp_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, mlp_width)
        self.narrow = nn.Linear(mlp_width, width)

    def forward(self, x: Tensor, angles: Tensor, memory_angles: Tensor, memory: Tensor, known: Tensor, tokens: int) -> Tensor:
        """Pixels (1 or B, N, E) by memory (B, M, R), known as `known` (B, M, R): (B, N, E)."""
        layer, normed = self.attention, self.attention_norm(x)
        query, key = (rotate(project(normed), angles) for project in (layer.query, layer.key))
        x = x + layer.output(_attend_wide(query, key, layer.value(normed)))
        layer = self.to_memory
        query, key = rotate(layer.query(self.memory_norm(x)), angles), layer.key(known)
        pixels = key.shape[1] - tokens
        key = torch.cat([rotate(key[:, :pixels], memory_angles), key[:, pixels:]], dim=1)
        mixed = _attend_wide(query.expand(len(key), -1, -1), key, memory)  # (B, N, R); shares add up to 1, so biases stay
        x = x + layer.output(layer.value(mixed))
        return x + self.narrow(F.relu(self.widen(self.mlp_norm(x))))


class _Projections(nn.Module):
    """The four linear layers of an attention."""

    def __init__(self, width: int, memory_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key, self.value = (nn.Linear(memory_width, width) for _ in range(2))
        self.output = nn.Linear(width, width)


def _attend_wide(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Values (B, M, R) by the softmax of scaled products of queries (B, N, E) and keys (B, M, E): (B, N, R)."""
    query, key = query / sqrt(query.shape[-1]), key.transpose(-2, -1)
    if torch.is_grad_enabled() or query.device.type != "cpu":
        return (query @ key).softmax(dim=-1) @ value
    if torch.is_autocast_enabled("cpu"):  # which would do so for each tile anew
        query, key, value = (part.to(torch.get_autocast_dtype("cpu")) for part in (query, key, value))
    rows = max(1, TILE // key.shape[-1])
    whole = torch.empty(*query.shape[:2], value.shape[2], dtype=value.dtype)
    with torch.autocast("cpu", enabled=False):
        for number, memory in enumerate(value):
            for start in range(0, query.shape[1], rows):
                products = query[number, start : start + rows] @ key[number]
                whole[number, start : start + rows] = products.softmax(dim=-1) @ memory
    return whole
