"""`segwright plan`: what fit would do, as a file to read and change."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    data: Annotated[str, typer.Argument(help="Folder with images and masks.")],
    val: Annotated[str | None, typer.Option(help="Validation data; without it a part of DATA is held out.")] = None,
    minutes: Annotated[float, typer.Option(help="Time that training may take.")] = 10.0,
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
    out: Annotated[Path | None, typer.Option(help="File to write; without it the plan is printed.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Read all of DATA first, and leave out what cannot be read; each is named.")
    ] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="path=value, replaces a setting of the plan.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Fetch weights to start from that are not on this machine.")] = False,
    own_modules: Annotated[
        bool, typer.Option("--own-modules", help="Let a model to start from name modules outside segwright.")
    ] = False,
) -> None:
    """Look at the data, time a few real steps, and write a plan with the reason of each choice."""
    from segwright.cli.terminal import check_places, parsed_fold, working, write_text
    from segwright.planning.budget import Budget
    from segwright.planning.planner import plan
    from segwright.plans.commands import command

    check_places(out)
    with working(f"plan {data}"):
        budget = Budget(minutes=minutes, memory_gb=memory_gb, device=device)
        made = plan(
            data,
            val=val,
            fold=parsed_fold(fold),
            budget=budget,
            task=task,
            model=model,
            init=init,
            new_head=new_head,
            online=online,
            own_modules=own_modules,
            skip_bad=skip_bad,
            settings=settings or [],
        )
        text = made.to_toml()
    if out is None:
        typer.echo(text)
    else:
        write_text(out, text)
        typer.echo(f"plan   {out}")
        typer.echo(f"train  {command('train', out, '--out', 'RUN', plan=out)}")
