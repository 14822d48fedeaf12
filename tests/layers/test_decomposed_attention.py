"""Attention with terms for rows and columns, by hand and against the formula. Axes: G, N queries, h, w, D."""

from math import sqrt

import pytest
import torch

from segwright.layers import decomposed_attention
from segwright.layers.decomposed_attention import attend_decomposed


def formula(query, key, value, of_rows, of_columns):
    terms = (of_rows[..., None] + of_columns[..., None, :]).flatten(2)
    return torch.softmax(query @ key.mT / sqrt(query.shape[-1]) + terms, dim=-1) @ value


def parts(groups=3, queries=7, h=4, w=5, channels=8, dtype=torch.float64):
    torch.manual_seed(queries)
    shapes = [(queries, channels), (h * w, channels), (h * w, channels), (queries, h), (queries, w)]
    return [torch.randn(groups, *shape, dtype=dtype, requires_grad=True) for shape in shapes]


def test_by_hand_a_row_and_a_column_pick_a_key():
    value = torch.arange(6.0).view(1, 6, 1)
    rows, columns = torch.tensor([[[0.0, 100]]]), torch.tensor([[[0.0, 0, 100]]])
    assert attend_decomposed(torch.zeros(1, 1, 1), torch.zeros(1, 6, 1), value, rows, columns).item() == 5


@pytest.mark.parametrize("tile", [1, 20, 41, 140, 10_000])  # products: one query, one, two, a group, all
def test_equals_the_formula_whatever_the_tiles(tile, monkeypatch):
    monkeypatch.setattr(decomposed_attention, "TILE", {"cpu": tile})
    given = parts()
    weight = torch.randn(3, 7, 8, dtype=torch.float64)
    answer, wanted = attend_decomposed(*given), formula(*given)
    torch.testing.assert_close(answer, wanted, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad((answer * weight).sum(), given)
    for one, other in zip(found, torch.autograd.grad((wanted * weight).sum(), given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_half_precision_sums_in_full():
    given = [part.detach().bfloat16() for part in parts()]
    given[3] = given[3] + 100  # which bfloat16 keeps to the nearest 1 alone
    wanted = formula(*[part.double() for part in given])
    answer = attend_decomposed(*given)
    assert answer.dtype == torch.bfloat16
    assert (answer.double() - wanted).abs().max() < 0.02 * wanted.abs().max()  # 8 bits of mantissa


def test_a_trace_and_the_meta_device_say_the_same():
    given = [part.detach() for part in parts()]
    traced = torch.jit.trace(attend_decomposed, tuple(given))
    torch.testing.assert_close(traced(*given), attend_decomposed(*given), rtol=1e-12, atol=1e-12)
    assert attend_decomposed(*[part.to("meta") for part in given]).shape == (3, 7, 8)
