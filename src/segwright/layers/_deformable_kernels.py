"""Kernels of multi-scale deformable attention on a processor: places are looked up one by one, and no samples are kept.

The channels of a pixel's head lie side by side, so a place costs four short rows. Forward, threads take spans of queries;
backward, of heads, whose pixels are their own, so that no two write to one place.

Axes: B batch, Q queries, A heads, D channels of a head, L levels, P places of a level, S pixels of all levels.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

SPAN = 4096  # places, about 0.2 ms of work: with fewer, starting a thread takes longer than it saves


def see_places(value: Tensor, x: Tensor, y: Tensor, weights: Tensor, sides: Sequence[tuple[int, int]]) -> Tensor:
    """The weighted sums (B, Q, A, D) of pixels (B, S, A, D) at places x and y, all (B, Q, A, L, P) as the weights.

    All are contiguous.
    """
    seen = torch.zeros(*x.shape[:3], value.shape[3], dtype=value.dtype)
    arrays = [each.numpy() for each in (value, x, y, weights, seen)]
    levels = _levels(sides)
    _in_threads(lambda span: _look(levels, span, *arrays), x.shape[1], x.numel())
    return seen


def pull(
    gradient: Tensor, value: Tensor, x: Tensor, y: Tensor, weights: Tensor, sides: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of value, x, y and weights, from that (B, Q, A, D) of what `see_places` gives; all are contiguous."""
    of_value = torch.zeros_like(value)
    of_x, of_y, of_weights = (torch.empty_like(each) for each in (x, y, weights))
    arrays = [each.numpy() for each in (gradient, value, x, y, weights, of_value, of_x, of_y, of_weights)]
    levels = _levels(sides)
    _in_threads(lambda span: _pull(levels, span, *arrays), x.shape[2], x.numel())
    return of_value, of_x, of_y, of_weights


def _levels(sides: Sequence[tuple[int, int]]) -> np.ndarray:
    """Height, width and first pixel of each level (L, 3)."""
    sizes = np.array(sides, np.int64).reshape(-1, 2)
    counts = sizes.prod(axis=1)
    return np.concatenate([sizes, (counts.cumsum() - counts)[:, None]], axis=1)


def _in_threads(kernel: Callable[[tuple[int, int]], None], count: int, work: int) -> None:
    """Run a kernel on spans of `count` rows, as many as torch takes threads, and as so much work is worth."""
    threads = max(1, min(torch.get_num_threads(), work // SPAN, count))
    if threads == 1:
        kernel((0, count))
        return
    ends = [count * number // threads for number in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # kernels hold no lock
        list(pool.map(kernel, zip(ends[:-1], ends[1:], strict=True)))


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _look(levels, span, value, x, y, weights, out):
    """Add to `out` what queries of a span see."""
    B, _, A, D = value.shape
    L, P = x.shape[3:]
    for b in range(B):
        for q in range(span[0], span[1]):
            for a in range(A):
                seen = out[b, q, a]
                for level in range(L):
                    height, width, start = levels[level]
                    for p in range(P):
                        across, down = x[b, q, a, level, p] - 0.5, y[b, q, a, level, p] - 0.5
                        if not (-1 < across < width and -1 < down < height):  # nor is what is no number
                            continue
                        column, row = int(np.floor(across)), int(np.floor(down))
                        right, lower = across - column, down - row
                        weight = weights[b, q, a, level, p]
                        for j in range(2):
                            if not 0 <= row + j < height:
                                continue
                            for i in range(2):
                                if not 0 <= column + i < width:
                                    continue
                                share = weight * (lower if j else 1 - lower) * (right if i else 1 - right)
                                _add(seen, value.dtype.type(share), value[b, start + (row + j) * width + column + i, a])


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _pull(levels, span, gradient, value, x, y, weights, of_value, of_x, of_y, of_weights):
    """Write the gradients of places of a span of heads, and add to those of their pixels."""
    B, _, _, D = value.shape
    Q, L, P = x.shape[1], x.shape[3], x.shape[4]
    dots = np.zeros((2, 2))
    for b in range(B):
        for q in range(Q):
            for a in range(span[0], span[1]):
                given = gradient[b, q, a]
                for level in range(L):
                    height, width, start = levels[level]
                    for p in range(P):
                        across, down = x[b, q, a, level, p] - 0.5, y[b, q, a, level, p] - 0.5
                        if not (-1 < across < width and -1 < down < height):
                            of_x[b, q, a, level, p] = of_y[b, q, a, level, p] = of_weights[b, q, a, level, p] = 0
                            continue
                        column, row = int(np.floor(across)), int(np.floor(down))
                        right, lower = across - column, down - row
                        weight = weights[b, q, a, level, p]
                        for j in range(2):
                            for i in range(2):
                                dots[j, i] = 0
                                if 0 <= row + j < height and 0 <= column + i < width:
                                    pixel = start + (row + j) * width + column + i
                                    share = weight * (lower if j else 1 - lower) * (right if i else 1 - right)
                                    dots[j, i] = _dot(given, value[b, pixel, a])
                                    _add(of_value[b, pixel, a], value.dtype.type(share), given)
                        upper = dots[0, 0] + right * (dots[0, 1] - dots[0, 0])
                        under = dots[1, 0] + right * (dots[1, 1] - dots[1, 0])
                        of_weights[b, q, a, level, p] = upper + lower * (under - upper)
                        of_y[b, q, a, level, p] = weight * (under - upper)
                        step = (1 - lower) * (dots[0, 1] - dots[0, 0]) + lower * (dots[1, 1] - dots[1, 0])
                        of_x[b, q, a, level, p] = weight * step


@njit(cache=True, nogil=True, inline="always")
def _add(to, share, row):
    for d in range(len(row)):
        to[d] += share * row[d]


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"}, inline="always")
def _dot(one, other):
    total = one[0] * other[0]
    for d in range(1, len(one)):
        total += one[d] * other[d]
    return total
