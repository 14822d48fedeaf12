"""`segwright fit`: from a folder of images and masks to a measured model."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    data: Annotated[str, typer.Argument(help="Folder with images and masks.")],
    val: Annotated[str | None, typer.Option(help="Validation data; without it a part of DATA is held out.")] = None,
    minutes: Annotated[float, typer.Option(help="Time that all of it may take.")] = 10.0,
    memory_gb: Annotated[float | None, typer.Option(help="Memory that training may take.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    task: Annotated[
        str | None, typer.Option(help="What to learn: semantic, instance, panoptic, promptable, or a module, package.module.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A network by name; see: segwright models.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Weights to start from: a file, a run, a name, or scratch; without it any that are here.")
    ] = None,
    new_head: Annotated[
        bool, typer.Option("--new-head", help="The weights of --init are for other classes: leave their head out.")
    ] = False,
    fold: Annotated[str | None, typer.Option(help="0/5 holds out the first of five pieces of DATA, to validate on.")] = None,
    folds: Annotated[
        int | None, typer.Option(help="Cross-validation: so many runs, each holding out another piece of DATA, as one model.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME-1, -2, ... without it.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Read all of DATA first, and leave out what cannot be read; each is named.")
    ] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="path=value, replaces a setting of the plan.")] = None,
    logger: Annotated[list[str] | None, typer.Option(help="Also log to csv, tensorboard, mlflow or wandb.")] = None,
    own_modules: Annotated[
        bool, typer.Option("--own-modules", help="Let a model to start from name modules outside segwright.")
    ] = False,
    online: Annotated[bool, typer.Option("--online", help="Fetch weights to start from that are not on this machine.")] = False,
) -> None:
    """Plan, train, measure and save a model with one command."""
    from segwright.cli.terminal import parsed_fold, show_run, training_progress
    from segwright.planning.budget import Budget
    from segwright.workflow import fit, free_folder

    out = out or free_folder(data)
    with training_progress(f"fit {data}", out) as watch:
        budget = Budget(minutes=minutes, memory_gb=memory_gb, device=device)
        scores = fit(
            data,
            val=val,
            fold=parsed_fold(fold),
            folds=folds,
            budget=budget,
            task=task,
            model=model,
            init=init,
            new_head=new_head,
            out=out,
            settings=settings or [],
            loggers=logger or [],
            watch=watch,
            own_modules=own_modules,
            skip_bad=skip_bad,
            online=online,
        )
    show_run(out, scores)
