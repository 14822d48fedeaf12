"""Kernels of deformable attention, against ten lines of numpy. Axes: B, Q, A, D, L, P, S."""

import numpy as np
import pytest
import torch

from segwright.layers import _deformable_kernels
from segwright.layers._deformable_kernels import pull, see_places

SIDES = [(2, 3), (4, 5)]


def drawn(dtype=torch.float64, queries=7):
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(2, 26, 2, 4, dtype=dtype, generator=generator)
    x, y, weights = (torch.rand(2, queries, 2, 2, 3, dtype=dtype, generator=generator) for _ in range(3))
    return [value, x * 10 - 2, y * 8 - 2, weights]


def seen_slowly(value, x, y, weights, sides):
    seen, start = np.zeros((*x.shape[:3], value.shape[3])), 0
    for level, (height, width) in enumerate(sides):
        pixels = np.zeros((len(value), height + 2, width + 2, *value.shape[2:]))  # with a border of zeros
        pixels[:, 1:-1, 1:-1] = value[:, start : start + height * width].reshape(len(value), height, width, *value.shape[2:])
        start += height * width
        for b, q, a, p in np.ndindex(*x.shape[:3], x.shape[4]):
            across, down = (np.clip(each[b, q, a, level, p] + 0.5, 0, side + 1) for each, side in ((x, width), (y, height)))
            for row, column in np.ndindex(height + 2, width + 2):
                share = max(0, 1 - abs(down - row)) * max(0, 1 - abs(across - column))
                seen[b, q, a] += weights[b, q, a, level, p] * share * pixels[b, row, column, a]
    return torch.from_numpy(seen)


def test_equals_its_slow_twin():
    given = drawn()
    torch.testing.assert_close(see_places(*given, SIDES), seen_slowly(*(each.numpy() for each in given), SIDES))


def test_gradients_are_slopes():
    """Of each number in turn, by a small step up and down."""
    given = drawn(queries=2)
    gradient = torch.randn(2, 2, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for number, found in enumerate(pull(gradient, *given, SIDES)):
        tensor, step = given[number], 1e-6
        for index in np.ndindex(*tensor.shape):
            before, values = tensor[index].item(), []
            for moved in (before + step, before - step):
                tensor[index] = moved
                values.append((see_places(*given, SIDES) * gradient).sum())
            tensor[index] = before
            assert found[index].item() == pytest.approx((values[0] - values[1]).item() / (2 * step), rel=1e-4, abs=1e-6)


def test_threads_change_nothing(monkeypatch):
    given = drawn(torch.float32)
    gradient = torch.randn(2, 7, 2, 4)
    alone = [see_places(*given, SIDES), *pull(gradient, *given, SIDES)]
    monkeypatch.setattr(_deformable_kernels, "SPAN", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, other in zip(alone, [see_places(*given, SIDES), *pull(gradient, *given, SIDES)], strict=True):
        assert torch.equal(one, other)
