"""From a run's folder, or from published weights, to a predictor."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segwright.checkpoints.fill import classes_in, fill
from segwright.checkpoints.first_folder import first_of
from segwright.checkpoints.folds_folder import FoldsFolder, is_folds_folder
from segwright.checkpoints.model_file import ModelFile, model_file_of
from segwright.checkpoints.named_weights import NamedWeights, named_weights
from segwright.checkpoints.nnunet_folder import is_nnunet_folder
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, SettingError, UnknownNameError, UsageError
from segwright.core.lookup import find
from segwright.core.weights import Intake
from segwright.data.fingerprint import IntensityStatistics
from segwright.data.objects_alone import things_of
from segwright.data.value_range import EIGHT_BIT, ValueRange
from segwright.decoding.expected_dice import QualityCalibration
from segwright.decoding.postprocess import Postprocess
from segwright.decoding.score_calibration import ScoreCalibration
from segwright.formats import ade20k, cityscapes, coco_panoptic, voc
from segwright.inference.engine import AutoEngine, TorchEngine
from segwright.inference.nnunet_predictor import nnunet_predictor
from segwright.inference.predictor import Predictor
from segwright.models import nnunet, preset, published, tasks_of
from segwright.plans.commands import command
from segwright.plans.kinds import class_of
from segwright.plans.plan import Plan
from segwright.tasks import Averages
from segwright.transforms.class_channels import shown_classes
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

_PANOPTIC = "panoptic"  # the word for it in what weights were trained on, and the task
DATA_SETS = {  # by words of what weights were trained on; the first that fits in all and has as many classes
    ("ADE20K", _PANOPTIC): ade20k.PANOPTIC_CLASSES,
    ("ADE20K",): ade20k.CLASSES,
    ("Cityscapes",): cityscapes.CLASSES,
    ("Pascal VOC",): voc.CLASSES,
    ("COCO", _PANOPTIC): coco_panoptic.CLASSES,
    ("COCO",): things_of(coco_panoptic.CLASSES),
}
WHOLE_UP_TO = 1024  # pixels of a side seen at once by a published network, the largest crop that these are trained with
RGB = 3  # channels of the images that published networks are trained with


def load(
    run: str | Path,
    *,
    task: str | None = None,
    weights: str | Path | None = None,
    online: bool = False,
    own_modules: bool = False,
) -> Predictor:
    """The predictor of a run: give the run's folder, or its model.safetensors; or the folder of a model of nnU-Net.

    That of a cross-validation (`fit --folds 5`) opens as the networks of all folds, whose answers are averaged; that of a
    cascade with its first network, which is asked first.

    With `weights`, that of a network by its published name, such as "segformer_b0", with the weights of a file or a name (see
    `segwright models`), which `online` lets be fetched.

    `task` is what to do with a network that is for several, such as "instance"; without it, what it was trained for.

    `own_modules` lets the file name a network or a task outside segwright, which is then imported; leave it off for files of
    strangers.

    Raises:
        FormatError: there is no model of segwright, or the weights are not of this network.
        UsageError: weights are not on this machine.
        SettingError: the network is not for this task, or has not learnt what it needs; or the answers of folds have no mean.
    """
    if weights is not None:
        return _published_predictor(str(run), named_weights(str(weights), online=online, own_modules=own_modules), task)
    path = Path(run)
    if not path.exists():
        _check_name(str(run))
    if is_nnunet_folder(path):
        can = tasks_of(nnunet.Config)
        if task is not None and task not in can:
            raise SettingError(
                f"{path} is a model of nnU-Net, which is for {' and '.join(can)} segmentation, and the task is {task}; leave "
                "--task out (in Python task=None)"
            )
        return nnunet_predictor(path)
    if is_folds_folder(path):
        folds = FoldsFolder.read(path, own_modules=own_modules)
        folder, (network, content) = folds.runs[0], _folds(folds, own_modules=own_modules)
    else:
        file = model_file_of(path)
        folder, (network, content) = file.parent, _network(file, own_modules=own_modules)
    first = _first(folder, content.plan, own_modules=own_modules)
    predictor = Predictor(**_settings_of(network, content.plan, content.classes), trained_on=content.values, first=first)
    return predictor if task is None else _for_task(predictor, content.plan.model, task)


def _network(path: Path, *, own_modules: bool) -> tuple[nn.Module, ModelFile]:
    """The network of a model file, and all that the file holds.

    Raises:
        FormatError: it holds none.
    """
    content = ModelFile.read(path, own_modules=own_modules)
    network = content.plan.model.build()
    try:
        network.load_state_dict(content.weights)
    except RuntimeError as error:
        raise FormatError(
            f"{path} does not fit its own plan ({error}); it was written by another version or changed"
        ) from error
    return network, content


def _folds(folds: FoldsFolder, *, own_modules: bool) -> tuple[nn.Module, ModelFile]:
    """The networks of all folds as one, and what their files have in common, with the plan of all of them.

    Raises:
        FormatError: a fold is not finished, or damaged.
        SettingError: their answers have no mean.
    """
    networks, contents = zip(*(_network(file, own_modules=own_modules) for file in folds.model_files()), strict=True)
    task = folds.plan.task
    if not isinstance(task, Averages):
        raise SettingError(
            f"the answers of {folds.count} folds for {type(task).__name__.lower()} segmentation have no mean; open one of "
            f"them, such as {folds.runs[0]}"
        )
    inference = Plan.read(folds.folder, own_modules=own_modules).inference
    network = task.averaged(networks, temperature=inference.temperature)
    plan = replace(folds.plan, inference=replace(inference, temperature=1.0))  # which the network has taken care of
    return network, replace(contents[0], plan=plan)


def _first(folder: Path, plan: Plan, *, own_modules: bool) -> Predictor | None:
    """The predictor of the first run of a cascade, whose copy is in the folder of the second; None where there is none.

    Raises:
        FormatError: it is not there, or not the one that the second was trained with.
    """
    if plan.cascade.first is None:
        return None
    first = load(first_of(folder), own_modules=own_modules)
    found, wanted = len(shown_classes(first.answers)), plan.data.preprocess.class_channels
    if found != wanted:
        raise FormatError(
            f"the first run in {folder} finds {found} classes beside the background, and the model was trained with {wanted}; "
            "put back the folder that was there"
        )
    return first


def _for_task(predictor: Predictor, config: Any, name: str) -> Predictor:
    """The predictor doing another task with its network.

    Raises:
        SettingError: the network is not for it, or has not learnt what it needs.
    """
    task_class = class_of(find("segwright.tasks", name))
    if isinstance(predictor.task, task_class):
        return predictor
    known, trained = tasks_of(config), type(predictor.task).__module__.rpartition(".")[2]
    if name not in known or trained not in known:
        kind = type(config).__module__.rpartition(".")[2]
        raise SettingError(
            f"this model is a {kind}, trained for {trained} segmentation, and cannot do {name} segmentation; leave --task out "
            f"(in Python task=None), or train a network for it: segwright fit DATA --task {name}"
        )
    if trained == "semantic" and any(predictor.classes.is_thing):
        raise SettingError(
            f"this model has learnt one segment for each class, and tells no thing from the next as {name} segmentation does; "
            "leave --task out (in Python task=None), or train with --task panoptic, which does for all three"
        )
    if name == "instance" and not any(predictor.classes.is_thing):
        raise SettingError(
            f"this model knows no class of things (its classes are {', '.join(predictor.classes.names)}), so that it finds no "
            "objects; leave --task out (in Python task=None)"
        )
    task = task_class()
    engine, answers = AutoEngine(predictor.network, task.agreement), task.dataset(_no_samples(predictor.classes)).classes
    return replace(
        predictor,
        task=task,
        engine=engine,
        answers=answers,
        postprocess=Postprocess(),
        calibration=ScoreCalibration(),
        quality=QualityCalibration(),
    )


def _no_samples(classes: Classes) -> Dataset:
    """A data set with classes alone, which tells how a task sees them."""
    return Dataset("the model", classes, (), lambda key: Sample.of(key, np.empty((0, 0, 0))))


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
    with suppress(UnknownNameError):
        preset(name)
        raise UsageError(
            f"'{name}' is no run but the name of a network; train it, and give the folder of its run: "
            f"segwright fit DATA --model {name}"
        )


def _published_predictor(name: str, given: NamedWeights, task: str | None) -> Predictor:
    """The predictor of a network with weights that somebody published.

    Raises:
        UsageError: they do not fill it.
    """
    config = preset(name)
    if "promptable" in tasks_of(config):
        raise UsageError(
            f"{name} answers prompts, points, boxes and masks, and finds nothing by itself; ask it with: "
            f"{command('segment', 'IMAGE', '--model', name, '--weights', given.source, '--point', 'x,y')} (in Python with "
            f"segwright.inference.prompting.open_prompter('{name}', weights={given.source!r}))"
        )
    config = _for_classes(config, given)
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
    classes = classes_of_weights(given, config)
    predictor = Predictor(
        network=network,
        task=class_of(find("segwright.tasks", task_of_weights(given, config, classes)))(),
        classes=classes,
        preprocess=Preprocess(normalise=Normalise(mean=intake.mean, std=intake.std)),
        tile=(WHOLE_UP_TO,) * axes,
        trained_on=_eight_bit(),
    )
    return predictor if task is None else _for_task(predictor, config, task)


def _for_classes(config: Any, given: NamedWeights) -> Any:
    """The config of a network for the classes that weights tell apart."""
    if given.classes is not None and hasattr(config, "things"):
        things = tuple(np.flatnonzero(given.classes.is_thing).tolist())
        config = replace(config, num_classes=len(given.classes), things=things)
    with torch.device("meta"):
        probe = config.build()
    return replace(config, num_classes=classes_in(probe, given.tensors, given.source))


def classes_of_weights(given: NamedWeights, config: Any) -> Classes:
    """The names of the classes of a network, those of the data set where it is known, else numbers."""
    if given.classes is not None:
        return given.classes
    count = config.num_classes
    known = given.facts.classes if given.facts is not None else count
    if not isinstance(known, int):
        return Classes.of(known)
    trained_on = given.facts.trained_on if given.facts is not None else ""
    for words, classes in DATA_SETS.items():
        if all(word in trained_on for word in words) and len(classes) == count:
            return classes
    things = getattr(config, "things", ())
    return Classes.of([f"class {number}" for number in range(count)], is_thing=[k in things for k in range(count)])


def task_of_weights(given: NamedWeights, config: Any, classes: Classes) -> str:
    """What weights are for: of what their network can do, that which they were trained for as far as it is known."""
    kinds = {True: "instance", False: "semantic"}
    same = {*classes.is_thing}
    known = given.facts is not None and _PANOPTIC not in given.facts.trained_on
    guess = kinds[same.pop()] if len(same) == 1 else "semantic" if known else _PANOPTIC
    tasks = tasks_of(config)
    return guess if guess in tasks else tasks[0]


def _eight_bit() -> ValueRange:
    """The values of photographs."""
    flat = IntensityStatistics(**dict.fromkeys(IntensityStatistics.__dataclass_fields__, 0.0))
    channel = replace(flat, high=EIGHT_BIT, highest=EIGHT_BIT)
    return ValueRange(dtypes=("uint8",), channels=(channel,) * RGB)


def training_predictor(
    network: nn.Module,
    plan: Plan,
    classes: Classes,
    *,
    trained_on: ValueRange | None = None,
    told: set[str] | None = None,
    first: Callable[[Sample], Segmentation] | None = None,
) -> Predictor:
    """The predictor of a network that goes on learning: on the device and in the precision in which it learns.

    `told` holds what its predecessors have said, so that it is not said again; `first` is as in `Predictor`.
    """
    training = plan.training
    engine = TorchEngine(
        network, training.device, channels_last=training.channels_last, bfloat16=training.precision == "bf16-mixed"
    )
    told = set() if told is None else told
    return Predictor(**_settings_of(network, plan, classes), engine=engine, trained_on=trained_on, told=told, first=first)


def _settings_of(network: nn.Module, plan: Plan, classes: Classes) -> dict[str, Any]:
    """What a predictor takes over from a plan."""
    return dict(
        network=network,
        task=plan.task,
        classes=classes,
        preprocess=plan.data.preprocess,
        tile=plan.inference.tile,
        flips=plan.inference.flip_axes,
        temperature=plan.inference.temperature,
        postprocess=plan.inference.postprocess,
        calibration=plan.inference.calibration,
        quality=plan.inference.quality,
    )
