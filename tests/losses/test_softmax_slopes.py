"""A loss that gives its derivative by the softmax gets the same by the logits as from autograd."""

import pytest
import torch

from segwright.losses._softmax_slopes import cost_of_softmax

WEIGHTS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def cost(probs, slopes):
    """The weighted sum of the squares of the probabilities."""
    if slopes is not None:
        slopes += 2 * probs * WEIGHTS.to(probs)
    return (probs.square() * WEIGHTS.to(probs)).sum()


def logits(dtype=torch.float64):
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype).requires_grad_()


def test_value_and_gradient_are_those_of_autograd():
    one, other = logits(), logits()
    value, expected = cost_of_softmax(one, cost), cost(other.softmax(dim=1), None)
    (3 * value).backward()
    (3 * expected).backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(one.grad, other.grad)


def test_gradcheck():
    assert torch.autograd.gradcheck(lambda given: cost_of_softmax(given, cost), (logits(),))


def test_channels_last_changes_nothing():
    one, other = logits(), logits().detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    for given in (one, other):
        cost_of_softmax(given, cost).backward()
    torch.testing.assert_close(other.grad, one.grad)


def test_without_need_of_a_gradient_none_is_worked_out():
    def told(probs, slopes):
        assert slopes is None
        return cost(probs, slopes)

    assert not cost_of_softmax(logits().detach(), told).requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32_under_autocast_too(dtype):
    given = logits(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = cost_of_softmax(given, cost)
    value.backward()
    assert value.dtype == torch.float32 and given.grad.dtype == dtype
    torch.testing.assert_close(value, cost(given.detach().float().softmax(dim=1), None))
