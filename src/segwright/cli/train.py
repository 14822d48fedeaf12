"""`segwright train`: carry out a plan, or go on with a run."""

from pathlib import Path
from typing import Annotated

import typer

MOVABLE = {"data.train", "data.val"}  # settings that a run may go on with; it sees that the data are the same


def run(
    plan: Annotated[Path | None, typer.Argument(help="A plan file, as segwright plan writes it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME-1, -2, ... without it.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run that was stopped or killed, to go on with.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="path=value, replaces a setting of the plan.")] = None,
    logger: Annotated[list[str] | None, typer.Option(help="Also log to csv, tensorboard, mlflow or wandb.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Fetch weights to start from that are not on this machine.")] = False,
    own_modules: Annotated[
        bool, typer.Option("--own-modules", help="Let the plan name modules outside segwright, which are then imported.")
    ] = False,
) -> None:
    """Train what a plan says, then measure it. A killed run goes on with --resume RUN as if nothing had happened."""
    from segwright.checkpoints.folds_folder import is_folds_folder
    from segwright.cli.terminal import is_first_process, show_run, training_progress
    from segwright.core.errors import UsageError
    from segwright.core.run_files import PLAN_FILE
    from segwright.planning.budget import Budget
    from segwright.planning.memory import check_fits
    from segwright.plans.commands import command
    from segwright.plans.plan import Plan
    from segwright.training.loop import train
    from segwright.workflow import finish, free_folder, watchers_of
    from segwright.workflow.folds import resume_folds

    if (plan is None) == (resume is None):
        raise UsageError("give either a plan file, or --resume RUN; a plan comes from: segwright plan DATA --out plan.toml")
    if resume is not None and (out is not None or not {each.partition("=")[0].strip() for each in settings or []} <= MOVABLE):
        raise UsageError(
            "--resume goes on with a run as it is; leave out --out, and --set but for data.train=PATH and data.val=PATH, which "
            "say where the data lie now; or start a new run: "
            f"{command('train', resume / PLAN_FILE, '--out', 'FOLDER', plan=resume)}"
        )
    if resume is not None and not (resume / PLAN_FILE).is_file():
        raise UsageError(f"{resume} holds no run; give the folder that segwright fit or train wrote, such as runs/NAME-1")
    chosen = Plan.read(resume or plan or Path(), own_modules=own_modules)
    chosen = chosen.with_settings(settings) if settings else chosen
    device = "cpu" if chosen.training.device == "cpu" else "auto"  # where the GPU of the plan is absent, training says so
    check_fits(chosen, Budget(device=device).memory_bytes)
    folder = resume or out or free_folder(chosen.data.train)
    with training_progress(f"train {folder}", folder) as watch:
        if resume is not None and is_folds_folder(resume):
            scores = resume_folds(
                resume, chosen.data.train, loggers=logger or [], watch=watch, own_modules=own_modules, online=online
            )
        else:
            watchers = watchers_of(folder, logger or [], watch)
            train(chosen, folder, resume=resume is not None, watchers=watchers, own_modules=own_modules, online=online)
            if not is_first_process():
                return
            scores = finish(folder)
    show_run(folder, scores)
