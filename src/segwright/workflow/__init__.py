"""The main job: plan, train, measure, report. One call from a folder of images and masks to a run that explains itself."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segwright.checkpoints.folds_folder import FoldsFolder
from segwright.core.errors import SettingError
from segwright.data.splits import Fold, Splits, open_folds
from segwright.data.unreadable import unreadable_keys
from segwright.evaluation.scores import Scores
from segwright.planning.budget import Budget
from segwright.planning.planner import planned
from segwright.planning.start import Wish
from segwright.training.loggers import logger
from segwright.training.loop import train
from segwright.training.run_dir import OnRecord, check_free
from segwright.workflow.folds import cross_validate
from segwright.workflow.score_run import environment, finish, write_steps

__all__ = ["environment", "finish", "fit", "free_folder", "watchers_of"]

SHORTEST = 0.02  # minutes: at least one step, whatever the budget

log = logging.getLogger(__name__)


def fit(
    data: str | Path,
    *,
    val: str | Path | None = None,
    fold: Fold | None = None,
    folds: int | None = None,
    budget: Budget | None = None,
    task: str | None = None,
    model: str | None = None,
    init: str | None = None,
    new_head: bool = False,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    loggers: Sequence[str] = (),
    watch: OnRecord | None = None,
    online: bool = False,
    own_modules: bool = False,
    skip_bad: bool = False,
) -> Scores:
    """Train a model on a folder of images and masks inside a budget, and return its scores on the validation samples.

    The folder `out` (runs/NAME-1, -2, ... without it) then holds the plan, the model, the log, the scores and a report.
    `task`, `model`, `init`, `new_head`, `online`, `fold`, `skip_bad` and `settings` are as in `plan`; where these set
    `training.steps`, as many are taken and not what the minutes have room for. `loggers` also draw the curves elsewhere, by the
    names that `training.loggers` gives. `watch` is called with each record of the log. `own_modules` lets a model to start from
    name modules outside segwright; what `task` and `settings` name is imported anyway.
    With `folds`, such as 5, the samples are cut into as many pieces, and a run for each piece holds it out; they share the
    budget. The scores are of all samples, each predicted by the run that held it out, and `load(out)` opens all runs as one.

    Raises:
        UsageError: the data, a setting or the folder cannot be used; nothing was written.
        TrainingError: training could not go on.
    """
    started = time.monotonic()
    budget, run = budget or Budget(), Path(out) if out is not None else free_folder(str(data))
    check_free(run)
    watchers = watchers_of(run, loggers, watch)  # a misspelt logger is told before a long work begins
    skip = unreadable_keys(data, *([] if val is None else [val])) if skip_bad else ()
    pieces = None if folds is None else _pieces(str(data), folds, val, fold, skip)
    made = planned(
        str(data),
        val=None if val is None else str(val),
        fold=fold,
        budget=replace(budget, minutes=budget.minutes / (folds or 1)),
        task=task,
        model=model,
        wish=Wish(weights=init, new_head=new_head, online=online, own_modules=own_modules),
        settings=settings,
        splits=None if pieces is None else pieces[0],
        skip=skip,
    )
    minutes = _minutes_left(budget, time.monotonic() - started, made.seconds_after, folds or 1, settings)
    allowed = {"own_modules": own_modules, "online": online}
    if pieces is not None:
        whole = FoldsFolder(folder=run, plan=made.plan, count=len(pieces), minutes=minutes)
        whole.write()
        return cross_validate(whole, pieces, made.values, loggers=loggers, watch=watch, **allowed)
    train(made.plan, run, splits=made.splits, values=made.values, minutes=minutes, watchers=watchers, **allowed)
    write_steps(run, made.plan, minutes)
    return finish(run, made.splits)


def _pieces(data: str, folds: int, val: str | Path | None, fold: Fold | None, skip: Sequence[str]) -> list[Splits]:
    """The samples of each fold, without those to skip.

    Raises:
        SettingError: there cannot be so many, or validation data are given besides.
    """
    if val is not None or fold is not None:
        raise SettingError(
            f"{folds} folds and {'val' if val is not None else 'a fold'} are given; folds hold out each sample once by "
            "themselves: leave one of the two out"
        )
    return open_folds(data, folds, skip=skip)


def _minutes_left(budget: Budget, spent_s: float, after_s: float, runs: int, settings: Sequence[str]) -> float | None:
    """The minutes that each run may train for, of which planning has spent some, and scoring each will take some more.

    None where a person has set how many steps it takes.
    """
    if any(setting.partition("=")[0].strip() == "training.steps" for setting in settings):
        return None
    minutes = (budget.minutes - spent_s / 60) / runs - after_s / 60
    if minutes < SHORTEST:
        log.warning("planning and scoring take nearly all of %g minutes here; grant more with --minutes", budget.minutes)
    return max(minutes, SHORTEST)


def watchers_of(run: Path, loggers: Sequence[str], watch: OnRecord | None) -> list[OnRecord]:
    """All that is told of a run's log."""
    return [*(logger(name, run) for name in loggers), *filter(None, [watch])]


def free_folder(data: str, prefix: str = "") -> Path:
    """runs/NAME-1 for data in a folder NAME, or the next number that is free; `prefix` stands before the name."""
    name = prefix + Path(data.partition("?")[0].replace(":", "-")).resolve().name
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
