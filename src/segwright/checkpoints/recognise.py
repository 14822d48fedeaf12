"""What a file of weights looks like, by the names and shapes of its tensors."""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from segwright.core.errors import FormatError
from segwright.core.lookup import find, names

COUNTER = ".num_batches_tracked"  # of batches in a norm; no forward pass reads it, and old files lack it


def recognised(tensors: Mapping[str, Tensor]) -> str | None:
    """What weights are of, such as "segformer_b5" or, where no published variant has these shapes, "a segformer"."""
    if not tensors:
        return None
    empty = {name: tensor.to("meta") for name, tensor in tensors.items()}
    kinds = []
    for module, name in _modules():
        try:
            ours = module.rename(empty)
        except FormatError:
            continue
        except Exception:  # a rename may trip over shapes of a network that it is not made for
            continue
        for preset, config in module.PRESETS.items():
            if _fits(ours, config):
                return preset
        kinds.append(name)
    return f"a {kinds[0]}" if len(kinds) == 1 else None


def shapes(config: Any) -> dict[str, torch.Size]:
    """The shapes of all tensors of the network that a config builds; nothing is allocated, and no random number is drawn."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return {name: tensor.shape for name, tensor in config.build().state_dict().items()}


def _modules() -> Iterator[tuple[ModuleType, str]]:
    """The files of networks and of encoders that know layouts of others, with their names."""
    for folder in ("segwright.models", "segwright.encoders"):
        for name in names(folder):
            module = find(folder, name)
            if hasattr(module, "rename") and hasattr(module, "PRESETS"):
                yield module, name


def _fits(given: Mapping[str, Tensor], config: Any) -> bool:
    """Whether weights have the names of a config's network and, but for few that classes and channels decide, its shapes."""
    wanted = shapes(config)
    if {name for name in given if not name.endswith(COUNTER)} != {name for name in wanted if not name.endswith(COUNTER)}:
        return False
    others = [name for name, tensor in given.items() if name in wanted and tensor.shape != wanted[name]]
    return len(others) <= 4  # weight and bias of two heads: one is auxiliary
