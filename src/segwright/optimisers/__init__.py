"""One file per way to turn gradients into new weights. Each offers Config with `build(parameters)` and a `learning_rate`."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Optimiser(Protocol):
    """What every file of this folder offers: settings, with the peak of the learning rate, that build torch's optimiser."""

    @property
    def learning_rate(self) -> float:
        """The peak of the learning rate over a run."""

    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """The optimiser of these parameters."""


def check_rates(learning_rate: float, weight_decay: float) -> None:
    """Refuse rates that cannot be meant.

    Raises:
        SettingError: the learning rate is not above 0, or the weight decay below.
    """
    from segwright.core.errors import SettingError

    if not learning_rate > 0:
        raise SettingError(f"optimiser.learning_rate is {learning_rate}; give a positive number, for example 0.001")
    if weight_decay < 0:
        raise SettingError(f"optimiser.weight_decay is {weight_decay}; give 0 or more, for example 0.01")
