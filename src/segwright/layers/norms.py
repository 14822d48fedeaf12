"""Which normalisation a network has, or an encoder that came with batch norms. Axes: B batch, C channels, *S spatial axes."""

from math import gcd
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HeadNorm = Literal["none", "group", "batch"]
EncoderNorm = Literal["batch", "frozen", "group"]
GROUPS = 32  # of group norms, in all published networks (Wu and He 2018, arXiv 1803.08494)


def head_norm(kind: HeadNorm, channels: int) -> nn.Module:
    """The normalisation of so many channels; where there are no 32 groups of equal size, as many as there can be."""
    if kind == "group":
        return TracedGroupNorm(gcd(GROUPS, channels), channels)
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.Identity()


class TracedGroupNorm(nn.GroupNorm):
    """A group norm that is traced as sums: OpenVINO 2026.4 dies of its own operation for it inside residual blocks."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing():
            return super().forward(x)
        groups = x.reshape(x.shape[0], self.num_groups, -1)
        groups = groups - groups.mean(2, keepdim=True)
        groups = groups * (groups.square().mean(2, keepdim=True) + self.eps).rsqrt()
        return groups.reshape(x.shape) * self.weight[:, None, None] + self.bias[:, None, None]


class InstanceNorm(nn.GroupNorm):
    """Each channel of each map (B, C, *S) to mean 0 and standard deviation 1, then scaled and shifted as learnt.

    It is a group norm of one channel per group. Where a CPU has channels innermost, as its convolutions want them, torch's own
    instance norm takes them out of there, which costs a third of a step, and the backward pass of its group norm is sixteen
    times as slow; so each map goes through a batch norm by itself, which is the same for one map and leaves channels in place.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous() or x.is_cuda or torch.jit.is_tracing():
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        maps = [F.batch_norm(one, None, None, self.weight, self.bias, training=True, eps=self.eps) for one in x.split(1)]
        return maps[0] if len(maps) == 1 else torch.cat(maps)


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of each pixel of maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


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
