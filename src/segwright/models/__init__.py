"""One file per architecture. Each offers Config, PRESETS and, where the authors published weights, WEIGHTS and rename.

A file whose networks are for other tasks than semantic segmentation says so by TASKS: the first is that of its runs, unless
another is asked for.

`preset("segformer_b0")` is the Config of a published variant, `published()` all published weights by name, and `list_models()`
a table of them all.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.errors import SettingError, UnknownNameError
from segwright.core.lookup import did_you_mean, find, names
from segwright.core.weights import Weights

__all__ = ["Row", "check_task", "list_models", "preset", "published", "tasks_of"]

SIDES = {2: (512, 512), 3: (128, 128, 128)}  # of the image that operations are counted for, by its axes
SIZES = Path(__file__).with_name("sizes.json")  # what `network_size` counts, by the name of the preset


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
        UnknownNameError: no model has a preset of that name; the message offers the nearest and says what lists all.
    """
    known: dict[str, Any] = {}
    for file in names(__name__):
        known |= find(__name__, file).PRESETS
    if name not in known:
        nearest = did_you_mean(name, list(known))
        is_module = name.partition(".")[2][:1].isalpha()  # where names of ours go on with a number
        own = f"; a module of your own is chosen by --set model.kind={name}" if is_module else ""
        raise UnknownNameError(f"there is no model '{name}'{nearest}; segwright models lists all {len(known)}{own}")
    return known[name]


def tasks_of(config: Any) -> tuple[str, ...]:
    """The tasks that a network is for, by its Config or the class of it: what its own file says by TASKS, or semantic alone."""
    return getattr(sys.modules[config.__module__], "TASKS", ("semantic",))


def check_task(config: Any, task: str) -> None:
    """See that a network is for a task.

    Raises:
        SettingError: it is for others.
    """
    known = tasks_of(config)
    if task not in known:
        name, wanted = type(config).__module__.rpartition(".")[2], known[0]
        raise SettingError(
            f"{name} is a network for {' and '.join(known)} segmentation, and the task is {task}; train with --task {wanted} "
            f'(kind = "{wanted}" under [task] of a plan), or leave --model out to have one chosen for {task} segmentation'
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
    """All presets of all models, file by file, with what sizes.json holds of them; what it does not name is counted.

    With `permissive` those alone that have published weights under a licence which lets everybody use them for everything, and
    these weights alone; weights whose licence nobody states are not among them.
    """
    rows = []
    sizes = json.loads(SIZES.read_text(encoding="utf-8"))
    for file in names(__name__):
        module = find(__name__, file)
        paper = (module.__doc__ or "").splitlines()[0].rstrip(".")
        for name, config in module.PRESETS.items():
            known: dict[str, Weights] = getattr(module, "WEIGHTS", {})
            weights = {
                key: each for key, each in known.items() if each.preset == name and (each.is_permissive or not permissive)
            }
            if weights or not permissive:
                size = sizes.get(name) or network_size(config)
                rows.append(Row(name=name, file=file, paper=paper, weights=weights, **size | {"sides": tuple(size["sides"])}))
    return rows


def network_size(config: Any) -> dict[str, Any]:
    """The parameters and the operations of a network as a `Row` has them, and the sides of the image they are counted for.

    The network is built on the meta device, which knows shapes, allocates nothing and computes nothing.
    """
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad():
        network = config.build().eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)):
                vars(module)["forward"] = (
                    nn.Identity().forward
                )  # it keeps the shape, is not counted, and takes most of the time here
        sides = SIDES[len(network.divisors)]
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, config.in_channels, *sides))
    count = sum(parameter.numel() for parameter in network.parameters())
    return dict(parameters_m=round(count / 1e6, 2), gflops=round(counter.get_total_flops() / 1e9, 1), sides=list(sides))
