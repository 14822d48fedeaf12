"""Factors beside linear layers: nothing changes at first, and added to the weights they are a plain network again.

Axes: B batch, N tokens, C channels.
"""

import copy

import pytest
import torch
from torch import nn

from segwright.layers.low_rank import LowRankLinear, add_low_rank, load_plain_state, plain_state
from segwright.layers.masked_attention import QueryAttention


class Calling(nn.Module):
    """A linear layer that is called, one whose weight is taken, and one with two names."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.taken = nn.Linear(6, 8), nn.Linear(8, 6, bias=False)
        self.parts = nn.ModuleList([nn.Linear(6, 6), nn.LayerNorm(6)])
        self.again = self.parts[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.linear(self.called(x), self.taken.weight)
        return self.again(self.parts[1](self.parts[0](x)))


NAMES = ["called", "taken", "parts.0", "again"]


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


def with_factors(network: nn.Module, rank: int = 2) -> nn.Module:
    """A copy with factors that have learnt something."""
    network = copy.deepcopy(network)
    add_low_rank(network, NAMES, rank)
    for name, weight in network.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(weight)
    return network


def test_by_hand():
    base = nn.Linear(2, 2)
    base.weight.data, base.bias.data = torch.eye(2), torch.tensor([0.0, 10.0])
    layer = LowRankLinear(base, 1)
    layer.down.data, layer.up.data = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0], [0.0]])
    assert layer(torch.tensor([3.0, 4.0])).tolist() == [17.0, 14.0]  # 3 + 2 * (3 + 4), 4 + 10
    assert layer.weight.tolist() == [[3.0, 2.0], [0.0, 1.0]] and layer.bias is base.bias


def test_a_network_says_at_first_what_it_said_before(x):
    network = Calling()
    adapted = copy.deepcopy(network)
    add_low_rank(adapted, NAMES, 3)
    assert torch.equal(adapted(x), network(x))
    assert all(module.down.any() and not module.up.any() for module in adapted.modules() if isinstance(module, LowRankLinear))


def test_what_is_added_up_says_the_same_and_is_plain(x):
    plain, adapted = Calling(), with_factors(Calling())
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    plain.load_state_dict(plain_state(adapted))  # strict: the names of a plain network
    torch.testing.assert_close(plain(x), adapted(x))
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())
    assert not any(tensor.requires_grad for tensor in plain_state(adapted).values())


def test_a_layer_with_two_names_stays_one():
    adapted = with_factors(Calling())
    assert adapted.again is adapted.parts[0]
    assert torch.equal(plain_state(adapted)["again.weight"], plain_state(adapted)["parts.0.weight"])


def test_plain_tensors_come_below_the_factors(x):
    plain, other = Calling(), with_factors(Calling())
    ups = {name: weight.clone() for name, weight in other.named_parameters() if name.endswith(".up")}
    load_plain_state(other, plain.state_dict())
    assert torch.equal(other.called.base.weight, plain.called.weight) and torch.equal(other.called.bias, plain.called.bias)
    assert all(torch.equal(weight, ups[name]) for name, weight in other.named_parameters() if name in ups)
    bare = Calling()
    load_plain_state(bare, plain.state_dict())
    assert torch.equal(bare(x), plain(x)) and plain_state(bare).keys() == bare.state_dict().keys()


def test_factors_get_the_gradients_of_the_weight_that_they_make(x):
    """By the chain rule, both where a layer is called and where its weight is taken."""
    adapted = with_factors(Calling())
    plain = Calling()
    plain.load_state_dict(plain_state(adapted))
    for network in (adapted, plain):
        network(x).square().sum().backward()
    for name in ("called", "taken"):
        layer, gradient = adapted.get_submodule(name), plain.get_submodule(name).weight.grad
        torch.testing.assert_close(layer.up.grad, gradient @ layer.down.T, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(layer.down.grad, layer.up.T @ gradient, rtol=1e-4, atol=1e-4)


def test_attention_that_takes_weights_apart_hears_the_factors():
    attention = QueryAttention(8, 2)
    queries = torch.randn(1, 3, 8)
    before = attention(queries, queries, queries)
    add_low_rank(attention, ["query_key_value", "output"], 2)
    assert torch.equal(attention(queries, queries, queries), before)
    nn.init.ones_(attention.query_key_value.up)
    assert not torch.allclose(attention(queries, queries, queries), before)
