"""Which normalisation a network has, or an encoder that came with batch norms. Axes: C channels."""

from math import gcd
from typing import Literal

from torch import nn

HeadNorm = Literal["none", "group", "batch"]
EncoderNorm = Literal["batch", "frozen", "group"]
GROUPS = 32  # of group norms, in all published networks (Wu and He 2018, arXiv 1803.08494)


def head_norm(kind: HeadNorm, channels: int) -> nn.Module:
    """The normalisation of so many channels; where there are no 32 groups of equal size, as many as there can be."""
    if kind == "group":
        return nn.GroupNorm(gcd(GROUPS, channels), channels)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


def use_group_norms(network: nn.Module) -> None:
    """Put a group norm in the place of each batch norm of a network, which has no weights yet that were trained with these.

    Batch norms need many images at a time, which networks that find objects rarely see.
    """
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            norm = head_norm("group", module.num_features)
            activation = getattr(module, "act", None)  # timm's batch norms may hold one
            network.set_submodule(name, norm if activation is None else nn.Sequential(norm, activation))


def freeze_batch_norms(network: nn.Module) -> None:
    """Keep batch norms as they were trained: their weights learn nothing, and `hold_batch_norms` keeps their statistics."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    hold_batch_norms(network)


def hold_batch_norms(network: nn.Module) -> None:
    """Let batch norms use the statistics of their training, and no longer those of the batch."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
