"""Attention with relative positions in two parts, rows and columns: MViTv2 (Li et al. 2022, arXiv 2112.01526).

A query heeds a key by their product, by a term for the row that the key lies on and one for its column. The sum of the three is
as large as all pairs of pixels, 800 MB for the 12 heads of an image of 64 x 64 patches, and writing it and reading it again
takes longer than the products do. Here it is made and used tile by tile, each small enough for the cache; in training its
gradient makes each tile again, so that memory does not grow with it.

Axes: G groups (images, windows and heads), N queries, M = h * w keys, D channels of a head.
"""

from collections.abc import Iterator
from math import sqrt
from typing import Any

import torch
from torch import Tensor

TILE = {"cpu": 2**18}  # products at a time: 1 MB, which a core keeps near; fewer are mostly calls
LARGE_TILE = 2**26  # elsewhere: 256 MB


def attend_decomposed(query: Tensor, key: Tensor, value: Tensor, of_rows: Tensor, of_columns: Tensor) -> Tensor:
    """Values (G, M, D) by the softmax of scaled products of queries (G, N, D) and keys (G, M, D): (G, N, D).

    To a product of a query and the key in row i and column j, `of_rows` (G, N, h) adds its i-th and `of_columns` (G, N, w) its
    j-th number. Both are in the type of the queries; sums are made in float32 or better.
    """
    query = query / sqrt(query.shape[-1])
    if torch.jit.is_tracing() or torch.compiler.is_compiling() or query.device.type == "meta":  # these see single steps
        scores = (query @ key.transpose(-2, -1)).unflatten(2, (of_rows.shape[2], of_columns.shape[2]))
        scores = scores + of_rows[..., None] + of_columns[..., None, :]
        return scores.flatten(2).softmax(dim=-1) @ value
    with torch.autocast(query.device.type, enabled=False):
        parts = (part.to(query.dtype) for part in (query, key, value, of_rows, of_columns))
        return _Tiled.apply(*parts)


def _tiles(query: Tensor, key: Tensor) -> Iterator[tuple[slice, slice]]:
    """The groups and the queries of each tile, group by group."""
    (G, N, _), M = query.shape, key.shape[1]
    size = TILE.get(query.device.type, LARGE_TILE)
    rows = min(N, max(1, size // M))
    groups = max(1, size // (rows * M))
    for group in range(0, G, groups):
        for row in range(0, N, rows):
            yield slice(group, group + groups), slice(row, row + rows)


def _probs(query: Tensor, key: Tensor, of_rows: Tensor, of_columns: Tensor) -> Tensor:
    """How much each query of a tile (g, n, D) heeds each key (g, M, D): (g, n, M)."""
    scores = query @ key.transpose(-2, -1)
    if scores.dtype.itemsize < 4:  # bytes of float32
        scores = scores.float()
    square = scores.view(*scores.shape[:2], of_rows.shape[2], of_columns.shape[2])
    square += of_rows[..., None]
    square += of_columns[..., None, :]
    return torch.softmax(scores, dim=-1, out=scores)


class _Tiled(torch.autograd.Function):
    """The attention of scaled queries, tile by tile, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, of_rows: Tensor, of_columns: Tensor) -> Tensor:
        mixed = torch.empty_like(query)
        for g, n in _tiles(query, key):
            probs = _probs(query[g, n], key[g], of_rows[g, n], of_columns[g, n])
            mixed[g, n] = probs.to(value.dtype) @ value[g]
        ctx.save_for_backward(query, key, value, of_rows, of_columns, mixed)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        (gradient,) = gradients
        query, key, value, of_rows, of_columns, mixed = ctx.saved_tensors
        of_query, of_row_terms, of_column_terms = map(torch.empty_like, (query, of_rows, of_columns))
        of_key, of_value = map(torch.zeros_like, (key, value))
        share = (gradient * mixed).sum(dim=-1, keepdim=True)  # (G, N, 1): what softmax takes off each gradient
        for g, n in _tiles(query, key):
            probs = _probs(query[g, n], key[g], of_rows[g, n], of_columns[g, n])
            of_scores = ((gradient[g, n] @ value[g].transpose(-2, -1)) - share[g, n]) * probs
            of_value[g] += probs.to(value.dtype).transpose(-2, -1) @ gradient[g, n]
            square = of_scores.unflatten(2, (of_rows.shape[2], of_columns.shape[2]))
            of_row_terms[g, n], of_column_terms[g, n] = square.sum(dim=3), square.sum(dim=2)
            of_scores = of_scores.to(query.dtype)
            of_query[g, n] = of_scores @ key[g]
            of_key[g] += of_scores.transpose(-2, -1) @ query[g, n]
        return of_query, of_key, of_value, of_row_terms, of_column_terms
