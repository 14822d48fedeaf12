"""From a run's folder, or from published weights, to a predictor."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segwright.checkpoints.fill import classes_in, fill
from segwright.checkpoints.model_file import ModelFile
from segwright.checkpoints.named_weights import NamedWeights, named_weights
from segwright.core import Classes
from segwright.core.errors import FormatError, SettingError, UsageError
from segwright.core.lookup import find
from segwright.core.weights import Intake
from segwright.data.fingerprint import IntensityStatistics
from segwright.data.value_range import EIGHT_BIT, ValueRange
from segwright.formats import ade20k, cityscapes, voc
from segwright.inference.engine import TorchEngine
from segwright.inference.predictor import Predictor
from segwright.models import preset, published, task_of
from segwright.plans.kinds import class_of
from segwright.plans.plan import Plan
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

DATA_SETS = {"ADE20K": ade20k.CLASSES, "Cityscapes": cityscapes.CLASSES, "Pascal VOC": voc.CLASSES}
WHOLE_UP_TO = 1024  # pixels of a side seen at once by a published network, the largest crop that these are trained with
RGB = 3  # channels of the images that published networks are trained with


def load(run: str | Path, *, weights: str | Path | None = None, online: bool = False, own_modules: bool = False) -> Predictor:
    """The predictor of a run: give the run's folder, or its model.safetensors.

    With `weights`, that of a network by its published name, such as "segformer_b0", with the weights of a file or a name (see
    `segwright models`), which `online` lets be fetched.

    `own_modules` lets the file name a network or a task outside segwright, which is then imported; leave it off for files of
    strangers.

    Raises:
        FormatError: there is no model of segwright, or the weights are not of this network.
        UsageError: weights are not on this machine.
    """
    if weights is not None:
        return _published_predictor(str(run), named_weights(str(weights), online=online, own_modules=own_modules))
    path = Path(run)
    if not path.exists():
        _check_name(str(run))
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


def _check_name(name: str) -> None:
    """Help who gives the name of a network or of weights where a run is needed.

    Raises:
        UsageError: it is one.
    """
    known = published()
    for key, weights in known.items():
        if name in (key, weights.preset):
            raise UsageError(
                f"'{name}' is no run but the name of a network or of weights; say which network, and whose weights: "
                f"'{weights.preset}' with weights (--weights in a command) '{key}' or a file"
            )


def _published_predictor(name: str, given: NamedWeights) -> Predictor:
    """The predictor of a network with weights that somebody published.

    Raises:
        UsageError: they do not fill it.
    """
    config = preset(name)
    with torch.device("meta"):
        probe = config.build()
    config = replace(config, num_classes=classes_in(probe, given.tensors, given.source))
    network = config.build()
    others = fill(network, given.tensors, source=given.source)
    if others:
        raise UsageError(
            f"{given.source} alone does not make {name} a trained network: {'; '.join(others)}. Give weights of all of it, or "
            f"train it: segwright fit DATA --model {name}"
        )
    axes, intake = len(network.divisors), given.facts.intake if given.facts is not None else Intake()
    if config.in_channels != RGB or axes != 2:
        raise SettingError(
            f"{name} takes {config.in_channels} channels and {axes} axes, and how its images were prepared is known of colour "
            "images alone; train it: segwright fit DATA"
        )
    return Predictor(
        network=network,
        task=class_of(find("segwright.tasks", task_of(config)))(),
        classes=_classes(given, config.num_classes),
        preprocess=Preprocess(normalise=Normalise(mean=intake.mean, std=intake.std)),
        tile=(WHOLE_UP_TO,) * axes,
        trained_on=_eight_bit(),
    )


def _classes(given: NamedWeights, count: int) -> Classes:
    """The names of the classes, those of the data set where it is known, else numbers."""
    if given.classes is not None:
        return given.classes
    known = given.facts.classes if given.facts is not None else count
    if not isinstance(known, int):
        return Classes.of(known)
    trained_on = given.facts.trained_on if given.facts is not None else ""
    for name, classes in DATA_SETS.items():
        if name in trained_on and len(classes) == count:
            return classes
    return Classes.of([f"class {number}" for number in range(count)])


def _eight_bit() -> ValueRange:
    """The values of photographs."""
    flat = IntensityStatistics(**dict.fromkeys(IntensityStatistics.__dataclass_fields__, 0.0))
    channel = replace(flat, high=EIGHT_BIT, highest=EIGHT_BIT)
    return ValueRange(dtypes=("uint8",), channels=(channel,) * RGB)


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
