"""The training loop in plain sight. Axes: B batch, C channels, K classes, *S spatial axes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Dataset
from segwright.core.errors import TrainingError, UsageError
from segwright.evaluation.measuring import evaluate
from segwright.formats import open_splits
from segwright.inference.load import training_predictor
from segwright.plans import Plan
from segwright.training.batches import Batch, Crops, batches
from segwright.training.folder import MODEL_FILE, Journal, check_resumable, start_folder
from segwright.training.learner import Learner, is_out_of_memory, launch
from segwright.training.schedule import learning_rate_factor
from segwright.training.state import State
from segwright.transforms.background import with_background

SAVE_EVERY_S = 30.0  # a killed run loses at most this and one step; half of the minute that is promised

Watch = Callable[[dict[str, Any]], None]


def train(
    plan: Plan, run: str | Path, *, resume: bool = False, minutes: float | None = None, watch: Watch | None = None
) -> Path:
    """Train what a plan describes into the folder `run`, and return the path of the best model found.

    With `resume` a run that was stopped or killed goes on from its last save; on a CPU it ends with the same weights, to the
    bit, as if it had never stopped. With `minutes` the clock decides and not the plan's steps: the learning rate decays with it
    and the run ends by it, which fills the time, and cannot be repeated to the bit. `watch` is called with each log record.
    Started by torchrun, all processes train together; `batch_size` counts over all of them.

    Raises:
        OutputError: `run` cannot be written, or holds another run.
        TrainingError: the loss is not finite, or not even one sample fits into memory.
    """
    run = Path(run)
    fabric = launch(plan.training)
    train_set, val_set = checked_splits(plan)
    if fabric.is_global_zero:
        check_resumable(run) if resume else start_folder(run, plan)
    fabric.barrier()
    learner = Learner.new(plan, fabric)
    state = learner.restore(run) if resume else State(batch_size=plan.training.batch_size)
    crops = Crops(train_set, plan, learner.task)
    clock = Clock(state, plan.training.steps, minutes, fabric)
    keeper = Keeper(run, plan, val_set, Journal(run, watch))
    if fabric.is_global_zero:
        keeper.journal.drop_after(state.step, state.validations)
    feed = feed_from(state, crops, fabric)
    while True:
        progress = clock.progress()
        if fabric.is_global_zero:
            keeper.keep(learner, state, progress)
        fabric.barrier()
        if progress >= 1:
            return run / MODEL_FILE
        batch = next(feed)
        rate = plan.training.learning_rate * learning_rate_factor(progress)
        try:
            loss = learner.step(batch, state.step, rate)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            halve_batch(state, fabric, keeper.journal)
            feed = feed_from(state, crops, fabric)
            continue
        check_finite(loss, state, batch, run)
        state.step += 1
        state.position += state.batch_size
        if fabric.is_global_zero:
            seconds = clock.seconds()
            keeper.journal.add(step=state.step, seconds=seconds, progress=progress, loss=loss, learning_rate=rate)


@dataclass
class Keeper:
    """Saves the state of a run, scores its averaged weights at even moments, and keeps the best of them."""

    run: Path
    plan: Plan
    val_set: Dataset
    journal: Journal
    saved: float = field(default_factory=time.monotonic)

    def keep(self, learner: Learner, state: State, progress: float) -> None:
        """Do what is due at this progress, 0 to 1. What was learnt is saved before it is scored, which may take long."""
        due = int(min(progress, 1.0) * self.plan.training.validations)
        if due > state.validations or time.monotonic() - self.saved > SAVE_EVERY_S:
            state.write(self.run, learner)
            self.saved = time.monotonic()
        if due > state.validations:
            self.validate(learner, state)
            state.validations = due
            if progress >= 1:
                state.write(self.run, learner)

    def validate(self, learner: Learner, state: State) -> None:
        """Score the averaged weights on the validation samples, and keep them if they are the best so far."""
        predictor = training_predictor(learner.average, self.plan, self.val_set.classes)
        scores = evaluate(predictor, self.val_set, resamples=0).values
        figures = {name: scores[name] for name in ("mIoU", "pixel accuracy")}
        self.journal.add(step=state.step, seconds=state.seconds, **figures)
        if scores["mIoU"] > state.best_score or not (self.run / MODEL_FILE).exists():
            state.best_score = scores["mIoU"]
            ModelFile(learner.average.state_dict(), self.plan, self.val_set.classes).write(self.run / MODEL_FILE)


@dataclass
class Clock:
    """How far a run is, 0 to 1: by its steps, or by the time it may take if that is given. All processes read the same."""

    state: State
    steps: int
    minutes: float | None
    fabric: Fabric

    def __post_init__(self) -> None:
        self.started = time.monotonic() - self.state.seconds

    def seconds(self) -> float:
        """Time that the run has taken so far, over all its starts."""
        return time.monotonic() - self.started

    def progress(self) -> float:
        """The share that is done, 0 to 1; past 1 when the last step took longer than was left."""
        self.state.seconds = self.seconds()
        if self.minutes is None:
            return self.state.step / self.steps
        return self.fabric.broadcast(self.state.seconds / (60 * self.minutes))


def checked_splits(plan: Plan) -> tuple[Dataset, Dataset]:
    """The training and the validation samples of a plan.

    Raises:
        UsageError: the classes of the data are not as many as those of the network, or there is no truth.
    """
    train_set, val_set = map(with_background, open_splits(plan.data.train, plan.data.val))
    if len(train_set.classes) != plan.model.num_classes:
        raise UsageError(
            f"{train_set.source} has {len(train_set.classes)} classes, the network of the plan {plan.model.num_classes}; "
            "make a plan for these data with: segwright plan DATA --out plan.toml"
        )
    return train_set, val_set


def feed_from(state: State, crops: Crops, fabric: Fabric) -> Any:
    """The batches that come next."""
    return batches(crops, state.position, state.batch_size, rank=fabric.global_rank, world=fabric.world_size)


def halve_batch(state: State, fabric: Fabric, journal: Journal) -> None:
    """Go on with half the batch after memory ran out.

    Raises:
        TrainingError: the batch cannot be halved.
    """
    if state.batch_size < 2 * fabric.world_size or state.batch_size // 2 % fabric.world_size:
        raise TrainingError(
            f"out of memory at step {state.step} with a batch of {state.batch_size} on {fabric.world_size} processes; "
            "plan again with less --memory-gb, or a smaller crop: --set training.crop=[192,192]"
        )
    state.batch_size //= 2
    if fabric.is_global_zero:
        journal.add(step=state.step, event=f"out of memory: the batch is now {state.batch_size}", batch_size=state.batch_size)


def check_finite(loss: float, state: State, batch: Batch, run: Path) -> None:
    """Stop a run whose loss is lost.

    Raises:
        TrainingError: the loss is NaN or infinite; the message names step, samples and the last good model.
    """
    if not -float("inf") < loss < float("inf"):
        best = run / MODEL_FILE
        raise TrainingError(
            f"the loss is {loss} at step {state.step + 1}, for the samples {', '.join(batch.keys)}; "
            f"the last good model is {best if best.exists() else 'none yet'}; look at these samples, or lower "
            "training.learning_rate, and go on with: segwright train --resume " + str(run)
        )
