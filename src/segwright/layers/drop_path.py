"""Stochastic depth: Deep Networks with Stochastic Depth (Huang et al. 2016, arXiv 1603.09382). Axes: B batch, * any others."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, a branch (B, *) is zero for a random share of the images, the rest scaled up to keep the mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        shape = (len(branch),) + (1,) * (branch.ndim - 1)
        is_kept = torch.rand(shape, device=branch.device) >= self.rate
        return branch * (is_kept / (1 - self.rate)).to(branch.dtype)
