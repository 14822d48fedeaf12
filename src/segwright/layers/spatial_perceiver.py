"""A map condensed into a few tokens, some of which stay where they are: EdgeTAM (Zhou et al. 2025, arXiv 2501.07256).

As a perceiver does (Jaegle et al. 2021, arXiv 2103.03206), learnt tokens look at a map and take from it what they need, some
times over. Some look at all of it, and lie nowhere afterwards; each of the others looks at one window of a grid, and keeps its
place there. Both pass through the same layers. A token of a window knows no others: what these layers call attention to each
other is for it one more linear layer.

Axes: B maps, N pixels of a map with sides h, w, R channels, T tokens, A heads (1), G windows, n pixels of a window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segwright.core.errors import ShapeError
from segwright.layers.attention import attend
from segwright.layers.sine_positions import sine_positions

WIDER = 4  # times, an MLP is inside


class SpatialPerceiver(nn.Module):
    """Maps (B, N, R) to tokens (B, G + count, R): of the windows of a `grid` of rows and columns, then of the whole."""

    def __init__(self, width: int, *, grid: tuple[int, int], count: int, depth: int) -> None:
        super().__init__()
        self.grid = grid
        self.of_windows = nn.Parameter(torch.randn(grid[0] * grid[1], width))
        self.of_all = nn.Parameter(torch.randn(count, width))
        self.layers = nn.ModuleList(_PerceiverLayer(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor, sides: tuple[int, int]) -> Tensor:
        """The tokens of maps with `sides` (h, w).

        Raises:
            ShapeError: the sides do not divide into the grid.
        """
        (h, w), (rows, columns) = sides, self.grid
        if h % rows or w % columns:
            raise ShapeError(
                f"the map is {h} x {w}, and is condensed into {rows} x {columns} windows; give images whose maps have sides "
                f"that are multiples of {rows} and {columns}"
            )
        B, _, R = pixels.shape
        windows = pixels.view(B, rows, h // rows, columns, w // columns, R).transpose(2, 3)  # (B, rows, columns, .., .., R)
        windows = windows.flatten(3, 4).flatten(0, 2)  # (B * G, n, R)
        places = sine_positions(sides, R, pixels)
        one, whole = self.of_windows.repeat(B, 1)[:, None], self.of_all.expand(B, -1, -1)
        for layer in self.layers:
            one, whole = layer(one, windows), layer(whole, pixels, places)
        return self.norm(torch.cat([one.reshape(B, -1, R), whole], dim=1))


class _PerceiverLayer(nn.Module):
    """Tokens (B, T, R) look at pixels (B, n, R), to whose keys and values `places` (n, R) are added, and at each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pixels_norm = nn.LayerNorm(width)
        self.to_pixels_norm = nn.LayerNorm(width)
        self.to_pixels = _PlainAttention(width)
        self.pixels_mlp = _NormedMlp(width)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = _PlainAttention(width)
        self.mlp = _NormedMlp(width)

    def forward(self, tokens: Tensor, pixels: Tensor, places: Tensor | None = None) -> Tensor:
        tokens = tokens + self.to_pixels(self.to_pixels_norm(tokens), self.pixels_norm(pixels), places)
        tokens = tokens + self.pixels_mlp(tokens)
        normed = self.attention_norm(tokens)
        tokens = tokens + self.attention(normed, normed)
        return tokens + self.mlp(tokens)


class _PlainAttention(nn.Module):
    """Attention of one head without biases: of tokens (B, T, R) to others (B, n, R), which may lie at `places` (n, R)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, tokens: Tensor, others: Tensor, places: Tensor | None = None) -> Tensor:
        query, key, value = self.query(tokens), self.key(others), self.value(others)
        if places is not None:
            key, value = key + places, value + places
        return self.output(attend(query[:, None], key[:, None], value[:, None])[:, 0])


class _NormedMlp(nn.Module):
    """A norm and two linear layers without biases of each token (B, T, R)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, WIDER * width, bias=False)
        self.narrow = nn.Linear(WIDER * width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.widen(self.norm(tokens))))
