"""Low-rank adaptation: LoRA (Hu et al. 2021, arXiv 2106.09685).

A linear layer stays as it is, and the product of two thin matrices that learn is added to its weight: W + U D, with D (R, C)
drawn at random and U (O, R) zero at first, so that the network begins by saying what it said before. Added together they are
a plain weight again.

Deviation: the paper multiplies the product by alpha / R, which with Adam does nearly what the learning rate does (section 4.1);
there is no alpha here.

Axes: R rank, C channels in, O channels out, * any axes before these.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """(*, C) to (*, O) by a linear layer, and by two factors of rank R beside it.

    `weight` and `bias` are those of one layer that does the same, for networks that take a weight without calling its layer.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        num_out, num_in = base.weight.shape
        self.base = base
        self.down = nn.Parameter(base.weight.new_empty(rank, num_in).normal_(std=num_in**-0.5))  # keeps the size of what comes
        self.up = nn.Parameter(base.weight.new_zeros(num_out, rank))

    @property
    def weight(self) -> Tensor:
        """The sum (O, C)."""
        return self.base.weight + self.up @ self.down

    @property
    def bias(self) -> Tensor | None:
        """The bias (O,) of the layer, which has no factors."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(F.linear(x, self.down), self.up)


def add_low_rank(network: nn.Module, names: Sequence[str], rank: int) -> None:
    """Put factors beside linear layers of a network by their names; a layer with several names gets them once."""
    made: dict[nn.Module, LowRankLinear] = {}
    for name, layer in [(name, network.get_submodule(name)) for name in names]:
        if isinstance(layer, nn.Linear):
            made.setdefault(layer, LowRankLinear(layer, rank))
            parent, _, own = name.rpartition(".")
            network.get_submodule(parent).register_module(own, made[layer])


@torch.no_grad()
def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network under the names that they had before factors were put beside its layers, these added in.

    All but such weights are the network's own and no copies.
    """
    state = network.state_dict()
    layers = dict(_adapted(network))
    if not layers:
        return state
    merged = {f"{name}.weight": layer.weight for name, layer in layers.items()}
    return {plain: merged[plain] if plain in merged else state[own] for plain, own in _own_names(network).items()}


@torch.no_grad()
def load_plain_state(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors under the names of `plain_state` into a network, to which its factors are added."""
    state = network.state_dict()
    for plain, own in _own_names(network).items():
        state[own].copy_(tensors[plain])


def _adapted(network: nn.Module) -> Iterator[tuple[str, LowRankLinear]]:
    """The layers that have factors, under each of their names."""
    for name, module in network.named_modules(remove_duplicate=False):
        if isinstance(module, LowRankLinear):
            yield name, module


def _own_names(network: nn.Module) -> dict[str, str]:
    """The names of tensors before factors were put beside layers, and after; without the factors."""
    names = {name: name for name in network.state_dict()}
    for name, layer in _adapted(network):
        for factor in ("down", "up"):
            del names[f"{name}.{factor}"]
        for inner in layer.base.state_dict():
            names[f"{name}.{inner}"] = names.pop(f"{name}.base.{inner}")
    return names
