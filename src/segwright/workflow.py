"""The main job: plan, train, measure, report. One call from a folder of images and masks to a run that explains itself."""

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import segwright
from segwright.checkpoints.model_file import ModelFile
from segwright.core.files import replace_file
from segwright.evaluation.measuring import evaluate
from segwright.evaluation.scores import Scores, write_scores
from segwright.formats import open_splits
from segwright.inference.load import load
from segwright.planning.budget import Budget
from segwright.planning.planner import planned
from segwright.plans import Plan
from segwright.reports.gallery import Gallery
from segwright.reports.report import write_report
from segwright.training.folder import MODEL_FILE, PLAN_FILE, check_free, read_journal
from segwright.training.loop import train

SHORTEST = 0.02  # minutes: at least one step, whatever the budget

log = logging.getLogger(__name__)
Watch = Callable[[dict[str, Any]], None]


def fit(
    data: str | Path,
    *,
    val: str | Path | None = None,
    budget: Budget | None = None,
    model: str | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    watch: Watch | None = None,
) -> Scores:
    """Train a model on a folder of images and masks inside a budget, and return its scores on the validation samples.

    The folder `out` (runs/NAME-1, -2, ... without it) then holds the plan, the model, the log, the scores and a report.

    Raises:
        UsageError: the data, a setting or the folder cannot be used; nothing was written.
        TrainingError: training could not go on.
    """
    started = time.monotonic()
    budget = budget or Budget()
    run = Path(out) if out is not None else free_folder(str(data))
    check_free(run)
    made = planned(str(data), val=None if val is None else str(val), budget=budget, model=model, settings=settings)
    minutes = budget.minutes - (time.monotonic() - started + made.seconds_after) / 60
    if minutes < SHORTEST:
        log.warning("planning and scoring take nearly all of %g minutes here; grant more with --minutes", budget.minutes)
    train(made.plan, run, minutes=max(minutes, SHORTEST), watch=watch)
    write_steps(run, made.plan)
    return finish(run)


def write_steps(run: Path, plan: Plan) -> None:
    """Write how many steps a run by the clock took into its plan, in the folder and in the model file."""
    reasons = plan.reasons | {"training.steps": "as many as the minutes had room for"}
    done = replace(plan, training=replace(plan.training, steps=read_journal(run)[-1]["step"]), reasons=reasons)
    replace_file(run / PLAN_FILE, done.to_toml().encode())
    replace(ModelFile.read(run / MODEL_FILE, own_modules=True), plan=done).write(run / MODEL_FILE)


def finish(run: Path) -> Scores:
    """Score the best model of a run on its validation samples, and write scores.json and report.html beside it."""
    plan = Plan.read(run)
    _, val_set = open_splits(plan.data.train, plan.data.val)
    gallery = Gallery()
    scores = evaluate(load(run), val_set, on_image=gallery)
    write_scores(run / "scores.json", scores)
    write_report(
        run / "report.html",
        title=f"{Path(plan.data.train).name}: {run.name}",
        scores=scores,
        log=read_journal(run),
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


def free_folder(data: str) -> Path:
    """runs/NAME-1 for data in a folder NAME, or the next number that is free."""
    name = Path(data.partition("?")[0].replace(":", "-")).resolve().name
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
