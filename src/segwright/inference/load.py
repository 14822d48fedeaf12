"""From a run's folder to a predictor."""

from pathlib import Path

from torch import nn

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import FormatError
from segwright.inference.predictor import Predictor
from segwright.plans import Plan


def load(run: str | Path, *, own_modules: bool = False) -> Predictor:
    """The predictor of a run: give the run's folder, or its model.safetensors.

    `own_modules` lets the file name a network outside segwright, which is then imported; leave it off for files of strangers.

    Raises:
        FormatError: there is no model of segwright.
    """
    path = Path(run)
    path = path / "model.safetensors" if path.is_dir() else path
    content = ModelFile.read(path, own_modules=own_modules)
    network = content.plan.model.build()
    try:
        network.load_state_dict(content.weights)
    except RuntimeError as error:
        raise FormatError(
            f"{path} does not fit its own plan ({error}); it was written by another version or changed"
        ) from error
    return predictor_of(network, content.plan, content.classes)


def predictor_of(network: nn.Module, plan: Plan, classes: Classes, *, quick: bool = False) -> Predictor:
    """The predictor of a network under a plan."""
    return Predictor(
        network=network,
        classes=classes,
        channels=plan.data.channels,
        normalise=plan.data.normalise,
        zoom=plan.data.zoom,
        tile=plan.inference.tile,
        flips=plan.inference.flip_axes,
    )
