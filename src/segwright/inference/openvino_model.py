"""A network in OpenVINO's form, converted once and kept in a folder, with weights that need no memory of their own.

Converting takes many seconds, so the next process reads what this one has written. It reads the layers alone: weights that are
a network's as they are, which most are but for convolutions with a norm folded in, are taken from where the network holds
them, and what the file has of them never comes into memory.

Axes: B batch, C channels, *S spatial axes of the image.
"""

import copy
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segwright.inference.quiet_openvino import quiet_openvino
from segwright.layers.atrous_conv import AtrousConv
from segwright.layers.norms import TracedGroupNorm

WEIGHT = "weight "  # before the name of a tensor, in the name of a constant that holds just that
TRACED = "self."  # the same, as OpenVINO names what comes from a tensor, changed or not


def openvino_model(network: nn.Module, batch: np.ndarray, *, bfloat16: bool, folder: Path | None) -> Any:
    """The model of a network whose outputs are a tuple, for images of any shape; from the folder if it is there.

    It is made by the network's run on `batch`, float32 (B, C, *S), and kept in the folder, if there is one. Weights of the
    network must stay where they are and as they are, since the model reads them there.
    """
    in_half = bfloat16 and any(isinstance(module, AtrousConv) for module in network.modules())
    path = folder / f"network{'_in_half' if in_half else ''}.xml" if folder is not None else None
    if path is not None and path.exists():
        model = quiet_openvino().Core().read_model(path)
    else:
        model = _converted(network, batch, in_half=in_half)
        _name_weights(model, network)
        if path is not None:
            _save(model, path)
    _share_weights(model, network)
    return model


def _converted(network: nn.Module, batch: np.ndarray, *, in_half: bool) -> Any:
    """The model that a run on a batch gives; with `in_half`, atrous convolutions are in half precision."""
    in_training = any(module.training for module in network.modules())
    has_group_norms = any(type(module) is nn.GroupNorm for module in network.modules())
    if in_training or in_half or has_group_norms:
        network = copy.deepcopy(network).eval()
    for module in network.modules():
        if in_half and isinstance(module, AtrousConv):
            module.in_half = True
        if type(module) is nn.GroupNorm:
            module.__class__ = TracedGroupNorm  # of torch's own, OpenVINO 2026.4 may die, and take the process along
    with _undisturbed(), torch.no_grad():
        return quiet_openvino().convert_model(network, example_input=torch.from_numpy(batch))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Warnings and the root logger stay as they were: converting changes both.

    Tracing warns of each check of a shape in Python (labels are compared later anyway), and OpenVINO silences the root logger,
    and leaves it silent when it fails.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _save(model: Any, path: Path) -> None:
    """Write a model, of which another process sees all or nothing."""
    unfinished = path.with_name(f".{time.time_ns()}.xml")
    quiet_openvino().save_model(model, unfinished, compress_to_fp16=False)
    unfinished.with_suffix(".bin").replace(path.with_suffix(".bin"))
    unfinished.replace(path)


def _name_weights(model: Any, network: nn.Module) -> None:
    """Name constants by the tensors of the network that they hold; converting may have changed others, such as turned them."""
    weights = _weights(network)
    for constant in _constants(model):
        name = constant.get_friendly_name().removeprefix(TRACED)
        if name in weights and np.array_equal(constant.data, weights[name]):
            constant.set_friendly_name(WEIGHT + name)


def _share_weights(model: Any, network: nn.Module) -> None:
    """Let constants that are tensors of the network read them where it holds them."""
    weights = {WEIGHT + name: values for name, values in _weights(network).items()}
    for constant in _constants(model):
        name = constant.get_friendly_name()
        if name in weights:
            shared = quiet_openvino().op.Constant(weights[name], shared_memory=True)
            shared.set_friendly_name(name)
            constant.output(0).replace(shared.output(0))


def _weights(network: nn.Module) -> dict[str, np.ndarray]:
    """The tensors of a network in its own memory, by name: those of float32 that lie on the processor in one piece."""
    tensors = network.state_dict().items()
    here = {name: each for name, each in tensors if each.dtype == torch.float32 and each.device.type == "cpu"}
    return {name: each.numpy() for name, each in here.items() if each.is_contiguous()}


def _constants(model: Any) -> list[Any]:
    """The constants of a model."""
    return [node for node in model.get_ops() if node.get_type_name() == "Constant"]
