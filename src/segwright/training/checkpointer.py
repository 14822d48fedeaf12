"""What a run keeps of what it learns: its state at moments, and the best of its averaged weights."""

import logging
import time
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Dataset
from segwright.core.run_files import MODEL_FILE
from segwright.data.value_range import ValueRange
from segwright.evaluation.evaluate import Tally, count_predictions
from segwright.inference.load import training_predictor
from segwright.plans.plan import Plan
from segwright.tasks import WeighsClasses
from segwright.training.collapse import collapse, of_classes
from segwright.training.first_stage import FirstStage
from segwright.training.learner import Learner
from segwright.training.resume import State
from segwright.training.run_dir import TrainLog, read_log

log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0  # a killed run loses at most this and one step; half of the minute that is promised


@dataclass
class Checkpointer:
    """Saves the state of a run, scores its averaged weights at even moments, and keeps the best of them.

    `values` are those of the training images, which the model file keeps, and `first` is that of a cascade. A run that goes
    `by_clock` learns for at least as long as its last scoring took before it is scored anew: on a machine that is slower than
    planned, nothing else would happen.
    """

    run: Path
    plan: Plan
    val_set: Dataset
    log: TrainLog
    values: ValueRange | None = None
    by_clock: bool = False
    first: FirstStage | None = None
    told: set[str] = field(default_factory=set)
    saved: float = field(default_factory=time.monotonic)
    learns_until: float = 0.0  # a moment of the monotonic clock

    def keep(self, learner: Learner, state: State, progress: float) -> None:
        """Do what is due at this progress, 0 to 1. What was learnt is saved before it is scored, which may take long."""
        due = int(min(progress, 1.0) * self.plan.training.validations)
        if self.by_clock and progress < 1 and learner.fabric.broadcast(time.monotonic() < self.learns_until):
            due = state.validations
        is_first = learner.fabric.is_global_zero
        if is_first and (due > state.validations or time.monotonic() - self.saved > SAVE_EVERY_S):
            state.write(self.run, learner)
            self.saved = time.monotonic()
        if due > state.validations:
            started = time.monotonic()
            self.validate(learner, state, progress)
            self.learns_until = 2 * time.monotonic() - started
            state.validations = due
            if is_first and progress >= 1:
                state.write(self.run, learner)
            learner.fabric.barrier()

    def validate(self, learner: Learner, state: State, progress: float) -> None:
        """Score the averaged weights on the validation samples, and keep them if they are the best so far.

        Where nothing can be measured, as no sample holds an object, the newest are kept, with a warning. Where the task knows
        of classes, the log gets their recall, and a warning of those that are never found.
        """
        fabric, score, task = learner.fabric, self.plan.task.score, self.plan.task
        recall = task.recall if isinstance(task, WeighsClasses) else None
        learner.share_ema()
        predictor = training_predictor(
            learner.ema, self.plan, self.val_set.classes, trained_on=self.values, told=self.told, first=self.first
        )
        keys = self.val_set.keys[fabric.global_rank :: fabric.world_size]
        share = count_predictions(predictor, self.val_set, metrics=[*filter(None, [score, recall])], keys=keys)
        tallies = _gathered(share, fabric)
        if not fabric.is_global_zero:
            return
        tally = Tally.merged(tallies, self.val_set.keys)
        values = tally.scores(resamples=0).values
        value = values[score]
        facts = {} if recall is None else {"progress": min(progress, 1.0), "recall": of_classes(values, recall)}
        self.log.add(step=state.step, seconds=state.seconds, score=value, metric=score, **facts)
        if recall is not None and (warning := collapse(read_log(self.run), self.plan, self.run, _fractions(tally))):
            self.log.add(**warning)
        if isnan(value):
            self._warn_once(score)
        is_best = value > state.best_score or (isnan(value) and state.best_score < 0)
        if is_best or not (self.run / MODEL_FILE).exists():
            state.best_score = state.best_score if isnan(value) else max(value, state.best_score)
            model = ModelFile(learner.ema.state_dict(), self.plan, self.val_set.classes, self.values)
            model.write(self.run / MODEL_FILE)

    def _warn_once(self, score: str) -> None:
        """Tell, the first time, that a score cannot be measured."""
        text = (
            f"{score} cannot be measured, as no validation sample holds what it counts: the newest weights are kept, not the "
            "best; hold out samples that do, such as with --val"
        )
        if text not in self.told:
            self.told.add(text)
            log.warning(text)


def _fractions(tally: Tally) -> list[float]:
    """The shares of the pixels that the classes have in the truth (K,), all alike where there is no matrix to tell them."""
    counts = np.ones(len(tally.counter.classes)) if tally.matrix is None else tally.matrix.sum(axis=1)
    return [float(share) for share in counts / max(counts.sum(), 1)]


def _gathered(share: Tally, fabric: Fabric) -> list[Tally]:
    """What each process has counted, in the order of their ranks."""
    if fabric.world_size == 1:
        return [share]
    tallies: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(tallies, share)
    return tallies
