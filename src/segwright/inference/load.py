"""From a run's folder to a predictor."""

from pathlib import Path
from typing import Any

from torch import nn

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import FormatError
from segwright.data.value_range import ValueRange
from segwright.inference.engine import TorchEngine
from segwright.inference.predictor import Predictor
from segwright.plans.plan import Plan


def load(run: str | Path, *, own_modules: bool = False) -> Predictor:
    """The predictor of a run: give the run's folder, or its model.safetensors.

    `own_modules` lets the file name a network or a task outside segwright, which is then imported; leave it off for files of
    strangers.

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
    return Predictor(**_settings_of(network, content.plan, content.classes), trained_on=content.values)


def training_predictor(
    network: nn.Module, plan: Plan, classes: Classes, *, trained_on: ValueRange | None = None, told: set[str] | None = None
) -> Predictor:
    """The predictor of a network that goes on learning: on the device and in the precision in which it learns.

    `told` holds what its predecessors have said, so that it is not said again.
    """
    training = plan.training
    engine = TorchEngine(
        network, training.device, channels_last=training.channels_last, bfloat16=training.precision == "bf16-mixed"
    )
    told = set() if told is None else told
    return Predictor(**_settings_of(network, plan, classes), engine=engine, trained_on=trained_on, told=told)


def _settings_of(network: nn.Module, plan: Plan, classes: Classes) -> dict[str, Any]:
    """What a predictor takes over from a plan."""
    return dict(
        network=network,
        task=plan.task,
        classes=classes,
        preprocess=plan.data.preprocess,
        tile=plan.inference.tile,
        flips=plan.inference.flip_axes,
    )
