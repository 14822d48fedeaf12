"""One file per architecture. Each offers Config, PRESETS and, where the authors published weights, WEIGHTS and rename.

A file whose networks are for another task than semantic segmentation says so by TASK.

`preset("segformer_b0")` is the Config of a published variant, `published()` all published weights by name, and `list_models()`
a table of them all.
"""

import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

from segwright.core.errors import SettingError, UnknownNameError
from segwright.core.lookup import did_you_mean, find, names
from segwright.core.weights import Weights

__all__ = ["Row", "check_task", "list_models", "preset", "published", "task_of"]

SIDES = {2: (512, 512), 3: (128, 128, 128)}  # of the image that operations are counted for, by its axes


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table of models: a preset, the file it lies in, its size in million parameters, and the paper.

    `gflops` are the floating-point operations, in 10^9, of one image of `sides`; a multiplication and an addition are two. Many
    papers count them as one. `weights` are the published ones, by name.
    """

    name: str
    file: str
    parameters_m: float
    gflops: float
    sides: tuple[int, ...]
    paper: str
    weights: dict[str, Weights]

    @property
    def citation(self) -> str:
        """Authors, year and number of the paper."""
        return self.paper.rpartition("(")[2].rstrip(")")


def preset(name: str) -> Any:
    """The Config of a published variant, by the name that its authors gave it.

    Raises:
        UnknownNameError: no model has a preset of that name; the message offers the nearest and lists the rest.
    """
    known: dict[str, Any] = {}
    for file in names(__name__):
        known |= find(__name__, file).PRESETS
    if name not in known:
        raise UnknownNameError(f"there is no model '{name}'{did_you_mean(name, list(known))}; known are {', '.join(known)}")
    return known[name]


def task_of(config: Any) -> str:
    """The task that a network is for, by its Config or the class of it: what its own file says by TASK, or "semantic"."""
    return getattr(sys.modules[config.__module__], "TASK", "semantic")


def check_task(config: Any, task: str) -> None:
    """See that a network is for a task.

    Raises:
        SettingError: it is for another.
    """
    if task_of(config) != task:
        name, wanted = type(config).__module__.rpartition(".")[2], task_of(config)
        raise SettingError(
            f"{name} is a network for {wanted} segmentation, and the task is {task}; train it with --task {wanted} (in a plan, "
            f'kind = "{wanted}" under [task]), or leave --model out to have one chosen for {task} segmentation'
        )


def published() -> dict[str, Weights]:
    """All published weights of networks and of encoders, by name."""
    return _tables(__name__) | published_encoders()


def published_encoders() -> dict[str, Weights]:
    """All published weights of encoders alone, by name."""
    return _tables("segwright.encoders")


def _tables(folder: str) -> dict[str, Weights]:
    """The weights that the files of a folder know of."""
    found: dict[str, Weights] = {}
    for file in names(folder):
        found |= getattr(find(folder, file), "WEIGHTS", {})
    return found


def list_models(*, permissive: bool = False) -> list[Row]:
    """All presets of all models, file by file; nothing is allocated to measure them.

    With `permissive` those alone that have published weights under a licence which lets everybody use them for everything, and
    these weights alone; weights whose licence nobody states are not among them.
    """
    rows = []
    for file in names(__name__):
        module = find(__name__, file)
        paper = (module.__doc__ or "").splitlines()[0].rstrip(".")
        for name, config in module.PRESETS.items():
            known: dict[str, Weights] = getattr(module, "WEIGHTS", {})
            weights = {
                key: each for key, each in known.items() if each.preset == name and (each.is_permissive or not permissive)
            }
            if weights or not permissive:
                rows.append(Row(name=name, file=file, paper=paper, weights=weights, **_measured(config)))
    return rows


@cache
def _measured(config: Any) -> dict[str, Any]:
    """The parameters and the operations of a network, on the meta device, which knows shapes and computes nothing."""
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad():
        network = config.build().eval()
        for module in network.modules():
            if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)):
                vars(module)["forward"] = (
                    nn.Identity().forward
                )  # it keeps the shape, is not counted, and takes most of the time here
        sides = SIDES[len(network.divisors)]
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, config.in_channels, *sides))
    count = sum(parameter.numel() for parameter in network.parameters())
    return dict(parameters_m=round(count / 1e6, 2), gflops=round(counter.get_total_flops() / 1e9, 1), sides=sides)
