"""Multi-scale deformable attention: Deformable DETR (Zhu et al. 2020, arXiv 2010.04159), without a compiled extension.

A query looks at a few places of several maps, which it chooses around its own place; what it sees there is mixed by weights
which it chooses too. A place between pixels is the weighted mean of the four around it, and beyond the edge all is 0.

On a processor, places are looked up where they lie, and no samples are kept (`_deformable_kernels.py`); elsewhere, and for
exporters, torch samples one level after the other.

Axes: B batch, E channels, A heads, D channels of a head, L levels, P places of a level, Q queries, S pixels of all levels,
(H, W) sides of a level.
"""

from collections.abc import Sequence
from math import pi
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers._deformable_kernels import pull, see_places

Sides = Sequence[tuple[int, int]]  # (H, W) of each level


class DeformableAttention(nn.Module):
    """Queries (B, Q, E), which lie somewhere on the maps, to what they see of them (B, Q, E).

    At the start, heads look in as many directions, and the places of one are 1, 2 and more pixels away, all of equal weight.
    """

    def __init__(self, width: int, *, num_heads: int, levels: int, places: int) -> None:
        super().__init__()
        self.num_heads, self.levels, self.places = num_heads, levels, places
        self.sample = nn.Linear(width, 3 * num_heads * levels * places)  # x and y of all places, in pixels, and their weights
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        for linear in (self.value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.sample.weight)
        with torch.no_grad():
            angle = torch.arange(num_heads) * (2 * pi / num_heads)
            direction = torch.stack([angle.cos(), angle.sin()])
            direction = direction / direction.abs().amax(0)  # (2, A), on the border of a square
            steps = torch.arange(1, places + 1).expand(num_heads, levels, places)
            self.sample.bias.copy_(torch.cat([*(direction[:, :, None, None] * steps), torch.zeros_like(steps)]).flatten())

    def forward(self, query: Tensor, value: Tensor, sides: Sides, centres: "Centres") -> Tensor:
        """What queries (B, Q, E) at `centres` see of the pixels (B, S, E) of levels with `sides`, one level after the other."""
        B, Q, E = query.shape
        x, y, logits = self.sample(query).unflatten(2, (3, self.num_heads, -1)).unbind(2)  # (B, Q, A, L * P) each
        weights = logits.softmax(-1)
        x, y, weights = (each.unflatten(3, (self.levels, self.places)) for each in (x, y, weights))
        x, y = x + centres.x, y + centres.y
        seen = deformable_attention(self.value(value).unflatten(2, (self.num_heads, -1)), sides, x, y, weights)
        return self.output(seen)


class Centres(NamedTuple):
    """Where queries lie: x and y (Q, 1, L, 1) in pixels of each level, 0 at the left or upper edge of the first."""

    x: Tensor
    y: Tensor


def pixel_centres(sides: Sides, like: Tensor) -> Centres:
    """The centres of the pixels of all levels, one after the other and row by row, on each level; of the dtype of `like`."""
    places = []
    for height, width in sides:
        y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        places.append(torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], dim=2).flatten(0, 1))
    shares = torch.cat(places)  # (S, 2), 0 to 1
    x, y = (shares[:, axis, None] * shares.new_tensor([each[1 - axis] for each in sides]) for axis in (0, 1))  # (S, L)
    return Centres(x[:, None, :, None], y[:, None, :, None])


def deformable_attention(value: Tensor, sides: Sides, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """The weighted sums (B, Q, E) of pixels (B, S, A, D) at places x and y, all (B, Q, A, L, P) as the weights.

    Places are in pixels of their level, 0 at the left or upper edge of the first. Computed in single precision or wider.
    """
    wide = torch.promote_types(value.dtype, torch.float32)
    is_traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # by an exporter, which knows torch's own steps alone
    core = by_grids if is_traced or value.device.type != "cpu" else _Seen.apply
    with torch.autocast("cpu" if value.is_meta else value.device.type, enabled=False):  # the meta device knows none
        return core(value.to(wide), x.to(wide), y.to(wide), weights.to(wide), sides).to(value.dtype)


def by_grids(value: Tensor, x: Tensor, y: Tensor, weights: Tensor, sides: Sides) -> Tensor:
    """As `deformable_attention`, by torch's own operations."""
    B, Q, A, L, P = weights.shape
    levels, sampled = value.split([height * width for height, width in sides], dim=1), []
    for number, (height, width) in enumerate(sides):
        level = levels[number].permute(0, 2, 3, 1).reshape(B * A, -1, height, width)
        grid = torch.stack([x[:, :, :, number] * (2 / width) - 1, y[:, :, :, number] * (2 / height) - 1], dim=-1)
        grid = grid.transpose(1, 2).reshape(B * A, Q, P, 2)
        sampled.append(F.grid_sample(level, grid, align_corners=False))  # (B * A, D, Q, P)
    shares = weights.transpose(1, 2).reshape(B * A, 1, Q, L * P)
    return (torch.cat(sampled, dim=-1) * shares).sum(-1).reshape(B, -1, Q).transpose(1, 2)


class _Seen(torch.autograd.Function):
    """As `by_grids`, by kernels."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, x: Tensor, y: Tensor, weights: Tensor, sides: Sides) -> Tensor:
        value, x, y, weights = (each.contiguous() for each in (value, x, y, weights))
        ctx.save_for_backward(value, x, y, weights)
        ctx.sides = sides
        return see_places(value, x, y, weights, sides).flatten(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, x, y, weights = ctx.saved_tensors
        gradient = gradient.contiguous().unflatten(2, value.shape[2:])
        return *pull(gradient, value, x, y, weights, ctx.sides), None
