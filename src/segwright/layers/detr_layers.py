"""The layers of DETR's transformer: End-to-End Object Detection with Transformers (Carion et al. 2020, arXiv 2005.12872).

As in the first transformer (arXiv 1706.03762), what a part adds is normed together with what came in. Positions are no part of
what passes through: they are added to what looks and to what is looked for in each layer, and never to what is taken in.

Axes: B batch, Q queries, N pixels, E channels.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from segwright.layers.masked_attention import QueryAttention


class DetrEncoderLayer(nn.Module):
    """Pixels (B, N, E) to pixels that have heeded each other, by positions (N, E), or (B, N, E)."""

    def __init__(self, width: int, num_heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.attention = QueryAttention(width, num_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.mlp = _MLP(width, mlp_width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, pixels: Tensor, positions: Tensor) -> Tensor:
        places = pixels + positions
        return self.mlp(self.attention_norm(pixels + self.dropout(self.attention(places, places, pixels))))


class DetrDecoderLayer(nn.Module):
    """Queries (B, Q, E) to queries that have heeded each other, by positions (Q, E), and then the pixels (B, N, E).

    `places` (B, N, E) are the pixels with their positions.
    """

    def __init__(self, width: int, num_heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.attention = QueryAttention(width, num_heads)
        self.attention_norm = nn.LayerNorm(width)
        self.cross_attention = QueryAttention(width, num_heads)
        self.cross_norm = nn.LayerNorm(width)
        self.mlp = _MLP(width, mlp_width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, positions: Tensor, pixels: Tensor, places: Tensor) -> Tensor:
        here = queries + positions
        queries = self.attention_norm(queries + self.dropout(self.attention(here, here, queries)))
        found = self.cross_attention(queries + positions, places, pixels)
        return self.mlp(self.cross_norm(queries + self.dropout(found)))


class _MLP(nn.Module):
    """Two linear layers beside a shortcut, and a norm behind both."""

    def __init__(self, width: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, mlp_width), nn.Linear(mlp_width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.widen, self.narrow):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.dropout(self.narrow(F.relu(self.widen(x)))))
