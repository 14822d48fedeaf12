"""`segwright evaluate`: how good a model is on data with truth."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from segwright.core import Dataset, Sample
    from segwright.evaluation.scores import Scores
    from segwright.inference.prompting import PromptSession

log = logging.getLogger(__name__)


def run(
    model: Annotated[Path, typer.Argument(help="Folder of a run, or its model.safetensors; with --weights a network's name.")],
    data: Annotated[str, typer.Argument(help="Folder with images and masks.")],
    metrics: Annotated[
        str, typer.Option(help="Scores by name, separated by commas, such as mIoU,boundary; else the task's.")
    ] = "",
    task: Annotated[str | None, typer.Option(help="Of a network for several: semantic, instance or panoptic.")] = None,
    interactive: Annotated[bool, typer.Option("--interactive", help="Click on each object until it is right.")] = False,
    weights: Annotated[str | None, typer.Option(help="With --interactive: those of the published network MODEL.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Fetch weights that are not on this machine.")] = False,
    values: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Values in the images that stand for the darkest and brightest of training, where types do not tell."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the scores, per image too, into this JSON file.")] = None,
    own_modules: Annotated[
        bool, typer.Option("--own-modules", help="Let the model name modules outside segwright, which are then imported.")
    ] = False,
) -> None:
    """Print each score with its 95 % interval and its convention; where data have a train part, on the part to validate."""
    from segwright.cli.terminal import check_places, check_spared, metric_names, show, working
    from segwright.core.errors import UsageError
    from segwright.data.splits import keys_of, open_splits
    from segwright.evaluation.evaluate import evaluate
    from segwright.formats import open_dataset
    from segwright.formats.image_index import TRAIN_NAMES
    from segwright.inference.load import load
    from segwright.inference.prompting import open_prompter, opener_of

    check_places(out)
    check_spared([out], [data])
    if weights is not None and not interactive:
        raise UsageError("--weights are for networks that answer prompts: add --interactive, or give the folder of a run")
    if weights is not None and (task is not None or values is not None):
        raise UsageError("--task and --values are for the model of a run, and --weights for a published network; leave one out")
    names = [] if interactive else metric_names(metrics)
    dataset = open_dataset(data)
    if keys_of(dataset.keys, TRAIN_NAMES):
        dataset = open_splits(data).val  # what was trained with measures nothing
    _tell_learnt(model if model.is_dir() else model.parent, dataset)
    with working(f"evaluate {model} on {data}"):
        if weights is None:
            predictor = replace(load(model, task=task, own_modules=own_modules), values=values)
            if interactive:
                scores = _clicked(opener_of(predictor), dataset, metrics)
            else:
                scores = evaluate(predictor, dataset, metrics=names)
        else:
            prompter = open_prompter(str(model), weights=weights, online=online)
            scores = _clicked(prompter.open_sample, dataset, metrics)
    show(scores, out, as_json=json)


def _tell_learnt(folder: Path, dataset: "Dataset") -> None:
    """Warn of images that the run in a folder was trained with."""
    from segwright.core.run_files import SCORES_FILE
    from segwright.training.resume import trained_with

    if learnt := trained_with(folder, dataset):
        log.warning(
            "%d of these %d images were trained with, such as %r: their scores tell how well they were learnt by heart; give "
            "images that are new to the model (%s has the scores of those that were held out)",
            *(len(learnt), len(dataset), learnt[0], folder / SCORES_FILE),
        )


def _clicked(opened: "Callable[[Sample], PromptSession]", dataset: "Dataset", metrics: str) -> "Scores":
    """The scores of a network that answers prompts, those of clicks beside the centre named "jittered NAME"."""
    from segwright.evaluation.evaluate import evaluate_clicks

    names = [name.strip() for name in metrics.split(",") if name.strip()]
    centred, jittered = (evaluate_clicks(opened, dataset, metrics=names, is_centred=each) for each in (True, False))
    parts = {
        part: getattr(centred, part) | {f"jittered {name}": each for name, each in getattr(jittered, part).items()}
        for part in ("values", "intervals")
    }
    per_image = {
        key: own | {f"jittered {name}": value for name, value in jittered.per_image[key].items()}
        for key, own in centred.per_image.items()
    }
    return replace(centred, **parts, per_image=per_image, notes=(*centred.notes, *jittered.notes))
