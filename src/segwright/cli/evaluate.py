"""`segwright evaluate`: how good a model is on data with truth."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer


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

    check_places(out)
    names = metric_names(metrics)
    dataset = open_dataset(data)
    if keys_of(dataset.keys, TRAIN_NAMES):
        dataset = open_splits(data).val  # what was trained with measures nothing
    with working(f"evaluate {model} on {data}"):
        predictor = replace(load(model, own_modules=own_modules), values=values)
        scores = evaluate(predictor, dataset, metrics=names)
    show(scores, out, as_json=json)
