"""The main job: plan, train, measure, report. One call from a folder of images and masks to a run that explains itself."""

import logging
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import segwright
from segwright.checkpoints.model_file import ModelFile
from segwright.core.atomic_files import replace_file
from segwright.data.splits import Fold, Splits
from segwright.evaluation.evaluate import evaluate
from segwright.evaluation.scores import Scores, write_scores
from segwright.inference.load import load
from segwright.planning.budget import Budget
from segwright.planning.planner import planned
from segwright.planning.start import Wish
from segwright.plans.plan import Plan
from segwright.reports.gallery import Gallery
from segwright.reports.report import write_report
from segwright.training.loggers import logger
from segwright.training.loop import open_data, train
from segwright.training.run_dir import MODEL_FILE, PLAN_FILE, OnRecord, check_free, read_log

SHORTEST = 0.02  # minutes: at least one step, whatever the budget

log = logging.getLogger(__name__)


def fit(
    data: str | Path,
    *,
    val: str | Path | None = None,
    fold: Fold | None = None,
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
) -> Scores:
    """Train a model on a folder of images and masks inside a budget, and return its scores on the validation samples.

    The folder `out` (runs/NAME-1, -2, ... without it) then holds the plan, the model, the log, the scores and a report.
    `task`, `model`, `init`, `new_head`, `online`, `fold` and `settings` are as in `plan`. `loggers` also draw the curves
    elsewhere, by the names that `training.loggers` gives. `watch` is called with each record of the log. `own_modules` lets a
    model to start from name modules outside segwright; what `task` and `settings` name is imported anyway.

    Raises:
        UsageError: the data, a setting or the folder cannot be used; nothing was written.
        TrainingError: training could not go on.
    """
    started = time.monotonic()
    budget = budget or Budget()
    run = Path(out) if out is not None else free_folder(str(data))
    check_free(run)
    watchers = watchers_of(run, loggers, watch)  # a misspelt logger is told before a long work begins
    made = planned(
        str(data),
        val=None if val is None else str(val),
        fold=fold,
        budget=budget,
        task=task,
        model=model,
        wish=Wish(weights=init, new_head=new_head, online=online, own_modules=own_modules),
        settings=settings,
    )
    minutes = budget.minutes - (time.monotonic() - started + made.seconds_after) / 60
    if minutes < SHORTEST:
        log.warning("planning and scoring take nearly all of %g minutes here; grant more with --minutes", budget.minutes)
    train(
        made.plan,
        run,
        splits=made.splits,
        values=made.values,
        minutes=max(minutes, SHORTEST),
        watchers=watchers,
        own_modules=own_modules,
        online=online,
    )
    _write_steps(run, made.plan)
    return finish(run, made.splits)


def watchers_of(run: Path, loggers: Sequence[str], watch: OnRecord | None) -> list[OnRecord]:
    """All that is told of a run's log."""
    return [*(logger(name, run) for name in loggers), *filter(None, [watch])]


def _write_steps(run: Path, plan: Plan) -> None:
    """Write how many steps a run by the clock took into its plan, in the folder and in the model file."""
    reasons = plan.reasons | {"training.steps": "as many as the minutes had room for"}
    done = replace(plan, training=replace(plan.training, steps=read_log(run)[-1]["step"]), reasons=reasons)
    replace_file(run / PLAN_FILE, done.to_toml().encode())
    replace(ModelFile.read(run / MODEL_FILE, own_modules=True), plan=done).write(run / MODEL_FILE)


def finish(run: Path, splits: Splits | None = None) -> Scores:
    """Score the best model of a run that was just trained on its validation samples; write scores.json and report.html.

    The plan was the trainer's own, so that modules of their own are imported.
    """
    plan = Plan.read(run, own_modules=True)
    splits = splits or open_data(plan)
    gallery = Gallery()
    scores = evaluate(load(run, own_modules=True), splits.val, on_image=gallery)
    write_scores(run / "scores.json", scores)
    write_report(
        run / "report.html",
        title=f"{Path(plan.data.train).name}: {run.name}",
        scores=scores,
        log=read_log(run),
        examples=gallery.examples(),
        atlas=gallery.atlas,
        plan_text=(run / PLAN_FILE).read_text(encoding="utf-8"),
        footer=environment(),
    )
    return scores


def environment() -> dict[str, str]:
    """What the run was made with."""
    return {
        "segwright": segwright.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    }


def free_folder(data: str, prefix: str = "") -> Path:
    """runs/NAME-1 for data in a folder NAME, or the next number that is free; `prefix` stands before the name."""
    name = prefix + Path(data.partition("?")[0].replace(":", "-")).resolve().name
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
