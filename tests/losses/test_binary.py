import pytest
import torch
from torch.nn import functional as F

from segwright.losses import _softmax
from segwright.losses._binary import MarginCost, mean_margin_cost


def square(margin):
    return (margin - 1) ** 2, 2 * (margin - 1)


# By hand


def test_by_hand():
    cost = MarginCost(square, present=torch.tensor([3.0]), absent=torch.tensor([1.0]))
    logits = torch.tensor([[[[2.0, 2.0, 2.0]]]])  # margins of 2 and -2, and void
    assert mean_margin_cost(logits, torch.tensor([[[[1, 0, -1]]]]), cost).item() == (3 * 1 + 9) / 2


# By a slow twin


@pytest.mark.parametrize("size", [1, 2**17])
@pytest.mark.parametrize("shape", [(2, 4, 5, 6), (2, 3, 4, 3, 5)])
@pytest.mark.parametrize("regions", [False, True])
def test_equals_plain_torch_in_value_and_gradient(case, same, monkeypatch, size, shape, regions):
    monkeypatch.setattr(_softmax, "CPU_SLICE", size)
    logits, target = case(shape, regions=regions)
    weights = torch.rand(4, shape[1], dtype=torch.float64)
    known = target >= 0 if regions else (target >= 0)[:, None].expand(shape)
    truth = target == 1 if regions else F.one_hot(target.clamp(min=0), shape[1]).movedim(-1, 1) == 1
    present, absent, present_slant, absent_slant = (each.view(-1, *[1] * (len(shape) - 2)) for each in weights)

    def twin(x):
        there = present * (x - 1) ** 2 + present_slant * x
        elsewhere = absent * (-x - 1) ** 2 - absent_slant * x
        return torch.where(truth, there, elsewhere)[known].mean()

    same(lambda x: mean_margin_cost(x, target, MarginCost(square, *weights)), twin, logits)


# By law


def test_without_a_gradient_none_is_computed(case):
    logits, target = case()
    ones = torch.ones(4, dtype=torch.float64)
    assert not mean_margin_cost(logits, target, MarginCost(square, ones, ones)).requires_grad
