"""Stochastic gradient descent with momentum, as DeepLab, PSPNet and nnU-Net are trained."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from segwright.core.errors import SettingError
from segwright.optimisers import check_rates


@dataclass(frozen=True, kw_only=True)
class Config:
    """The defaults are nnU-Net's; DeepLab and PSPNet take momentum 0.9 without Nesterov, and weight decay 1e-4 to 5e-4."""

    learning_rate: float = 0.01
    momentum: float = 0.99
    weight_decay: float = 3e-5
    nesterov: bool = True

    def __post_init__(self) -> None:
        check_rates(self.learning_rate, self.weight_decay)
        if not 0 <= self.momentum < 1 or (self.nesterov and not self.momentum):
            raise SettingError(
                f"optimiser.momentum is {self.momentum}; give a number from 0 to below 1, and above 0 where nesterov is true"
            )

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser."""
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=True,
        )
