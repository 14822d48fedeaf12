"""Attention, by hand and against the formula. Axes: B batch, G groups, A heads, N queries, M keys, D channels."""

from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segwright.layers.attention import attend


def test_by_hand_equal_keys_give_the_mean_of_the_values():
    query = torch.randn(1, 2, 5, 4)
    value = torch.arange(24.0).view(1, 2, 3, 4)
    answer = attend(query, torch.ones(1, 2, 3, 4), value)
    torch.testing.assert_close(answer, value.mean(2, keepdim=True).expand(1, 2, 5, 4))


def test_by_hand_a_key_that_fits_wins():
    query = torch.tensor([[100.0, 0], [0, 100]])[None, None]
    value = torch.tensor([[1.0, 2], [3, 4]])[None, None]
    torch.testing.assert_close(attend(query, torch.eye(2)[None, None], value), value)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 7))
def test_attention_is_the_same_with_and_without_gradients(batch, heads, queries, keys):
    query, key, value = (torch.randn(batch, heads, n, 8, dtype=torch.float64) for n in (queries, keys, keys))
    formula = attend(query.clone().requires_grad_(), key, value)
    torch.testing.assert_close(formula.detach(), attend(query, key, value), rtol=1e-10, atol=1e-12)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9), st.booleans())
def test_a_bias_is_added_before_the_softmax_in_any_number_of_axes(batch, groups, heads, keys, is_per_group):
    query, key, value = (torch.randn(batch, groups, heads, n, 8, dtype=torch.float64) for n in (5, keys, keys))
    bias = torch.randn(groups if is_per_group else 1, heads, 5, keys, dtype=torch.float64)
    wanted = torch.softmax(query @ key.mT / sqrt(8) + bias, dim=-1) @ value
    torch.testing.assert_close(attend(query, key, value, bias), wanted, rtol=1e-10, atol=1e-12)
    formula = attend(query.clone().requires_grad_(), key, value, bias)
    torch.testing.assert_close(formula.detach(), wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("learns", [False, True])
def test_a_bias_takes_the_type_of_the_queries(learns):
    query = torch.randn(2, 1, 3, 4, dtype=torch.bfloat16, requires_grad=learns)
    answer = attend(query, query, query, torch.zeros(1, 1, 3, 3))
    assert answer.dtype == torch.bfloat16


def test_gradients_reach_the_bias():
    tensors = [torch.randn(2, 3, 2, 4, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    bias = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attend, (*tensors, bias))
