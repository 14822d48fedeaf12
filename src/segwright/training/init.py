"""What training starts from, if not from random weights."""

from pathlib import Path

from torch import Tensor, nn

from segwright.checkpoints.model_file import ModelFile
from segwright.core.errors import UsageError
from segwright.encoders import timm
from segwright.plans.plan import Init

TIMM = "timm"  # of [init] weights: those that timm publishes for the network's encoder


def initialise(network: nn.Module, init: Init, *, own_modules: bool = False) -> list[str]:
    """Put the weights that a plan starts from into a network; the names of those of its tensors that had none, and stay random.

    Raises:
        UsageError: no tensor of the network has its like there.
    """
    if init.weights is None:
        return []
    source = (
        _fetched(network)
        if init.weights == TIMM
        else ModelFile.read(_model_path(init.weights), own_modules=own_modules).weights
    )
    own = network.state_dict()
    fitting = {name: source[name] for name, tensor in own.items() if name in source and source[name].shape == tensor.shape}
    if not any(own[name].is_floating_point() for name in fitting):
        raise UsageError(
            f"the weights {init.weights} hold nothing of this network's names and shapes; "
            "start from a run of the same network, or leave out init.weights"
        )
    network.load_state_dict(own | fitting)
    return [name for name in own if name not in fitting]


def _fetched(network: nn.Module) -> dict[str, Tensor]:
    """timm's weights for the encoder of a network, under the network's names.

    Raises:
        UsageError: its encoder is none of timm's.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, timm.TimmEncoder):
        raise UsageError(
            'init.weights is "timm", and the encoder of this network is none of timm\'s; '
            "choose one, such as --set model.encoder.kind=timm, or leave init.weights out"
        )
    return {f"encoder.{name}": tensor for name, tensor in timm.fetch(encoder).items()}


def _model_path(weights: str) -> Path:
    """The model file of a run's folder, or the file itself."""
    return Path(weights) / "model.safetensors" if Path(weights).is_dir() else Path(weights)
