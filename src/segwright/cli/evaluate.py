"""`segwright evaluate`: how good a model is on data with truth."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    model: Annotated[Path, typer.Argument(help="Folder of a run, or its model.safetensors.")],
    data: Annotated[str, typer.Argument(help="Folder with images and masks.")],
    metrics: Annotated[str, typer.Option(help="Scores by name, separated by commas, such as mIoU,boundary.")] = "confusion",
    json: Annotated[bool, typer.Option("--json", help="For a program to read.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write the scores, per image too, into this JSON file.")] = None,
) -> None:
    """Print each score with its 95 % interval and its convention; where data have a train part, on the part to validate."""
    from segwright.cli.terminal import check_places, listed, show, working
    from segwright.evaluation.measuring import evaluate
    from segwright.formats import open_dataset, open_splits
    from segwright.formats.image_tree import TRAIN_NAMES, split_of
    from segwright.inference.load import load

    check_places(out)
    names = listed(metrics)
    dataset = open_dataset(data)
    if any(split_of(key)[0].lower() in TRAIN_NAMES for key in dataset.keys):
        _, dataset = open_splits(data)  # what was trained with measures nothing
    with working(f"evaluate {model} on {data}"):
        scores = evaluate(load(model), dataset, metrics=names)
    show(scores, out, as_json=json)
