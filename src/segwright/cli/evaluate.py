"""`segwright evaluate`: how good a model is on data with truth."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

log = logging.getLogger(__name__)


def run(
    model: Annotated[Path, typer.Argument(help="Folder of a run, or its model.safetensors.")],
    data: Annotated[str, typer.Argument(help="Folder with images and masks.")],
    metrics: Annotated[
        str, typer.Option(help="Scores by name, separated by commas, such as mIoU,boundary; else the task's.")
    ] = "",
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
    from segwright.cli.terminal import check_places, metric_names, show, working
    from segwright.data.splits import keys_of, open_splits
    from segwright.evaluation.evaluate import evaluate
    from segwright.formats import open_dataset
    from segwright.formats.image_index import TRAIN_NAMES
    from segwright.inference.load import load
    from segwright.training.resume import trained_with

    check_places(out)
    names = metric_names(metrics)
    dataset = open_dataset(data)
    if keys_of(dataset.keys, TRAIN_NAMES):
        dataset = open_splits(data).val  # what was trained with measures nothing
    folder = model if model.is_dir() else model.parent
    if learnt := trained_with(folder, dataset):
        log.warning(
            "%d of these %d images were trained with, such as %r: their scores tell how well they were learnt by heart; give "
            "images that are new to the model (%s has the scores of those that were held out)",
            *(len(learnt), len(dataset), learnt[0], folder / "scores.json"),
        )
    with working(f"evaluate {model} on {data}"):
        predictor = replace(load(model, own_modules=own_modules), values=values)
        scores = evaluate(predictor, dataset, metrics=names)
    show(scores, out, as_json=json)
