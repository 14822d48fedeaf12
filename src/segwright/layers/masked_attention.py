"""The decoder layer of Mask2Former: attention within a mask (Cheng et al. 2021, arXiv 2112.01527).

A query attends to the pixels alone that its mask covers so far, then to the other queries, and goes through an MLP; a norm
follows each. What a query has no pixels of, its attention is free to look at. Positions are added to what is compared, not to
what is read.

Axes: B batch, Q queries, E channels, A heads, S pixels of a map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.attention import attend


class MaskedDecoderLayer(nn.Module):
    """Queries (B, Q, E) to queries that know what is in their masks, and each other."""

    def __init__(self, width: int, *, num_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.pixels = QueryAttention(width, num_heads)
        self.pixels_norm = nn.LayerNorm(width)
        self.queries = QueryAttention(width, num_heads)
        self.queries_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, mlp_width)
        self.narrow = nn.Linear(mlp_width, width)
        self.mlp_norm = nn.LayerNorm(width)
        for linear in (self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor, positions: Tensor, pixels: Tensor, pixel_positions: Tensor, bias: Tensor) -> Tensor:
        """Queries (B, Q, E) with positions (Q, E), after a look at pixels (B, S, E) with positions (S, E).

        `bias` (B, 1, Q, S) is what `outside` makes of masks.
        """
        x = self.pixels_norm(x + self.pixels(x + positions, pixels + pixel_positions, pixels, bias))
        placed = x + positions
        x = self.queries_norm(x + self.queries(placed, placed, x))
        return self.mlp_norm(x + self.narrow(F.relu(self.widen(x))))


class QueryAttention(nn.Module):
    """Attention of several heads: queries (B, Q, E), keys and values (B, S, E) to (B, Q, E)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        for linear in (self.query_key_value, self.output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """What queries read from values by their likeness to keys; a `bias` (B, 1, Q, S) is added to that."""
        weights, biases = self.query_key_value.weight.chunk(3), self.query_key_value.bias.chunk(3)
        query, key, value = (
            F.linear(x, weight, shift).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, A, *, D)
            for x, weight, shift in zip((query, key, value), weights, biases, strict=True)
        )
        return self.output(attend(query, key, value, bias).transpose(1, 2).flatten(2))


def outside(mask_logits: Tensor) -> Tensor:
    """What to add to attention so that queries keep to masks (B, Q, S): 0 inside, minus infinity outside, (B, 1, Q, S).

    A query whose mask is empty may look everywhere. No gradient flows through it.
    """
    is_outside = mask_logits.detach() < 0  # probabilities below one half
    is_outside = is_outside & ~is_outside.all(dim=-1, keepdim=True)
    return torch.zeros_like(mask_logits).masked_fill(is_outside, float("-inf"))[:, None]
