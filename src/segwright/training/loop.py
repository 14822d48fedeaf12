"""The training loop in plain sight. Axes: B batch, C channels, K classes, *S spatial axes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Dataset
from segwright.core.errors import TrainingError, UsageError
from segwright.evaluation.scores import evaluate
from segwright.formats import open_splits
from segwright.inference.load import training_predictor
from segwright.plans import Plan
from segwright.training.batches import Batch, Crops, batches
from segwright.training.folder import MODEL_FILE, Journal, check_resumable, start_folder
from segwright.training.learner import Learner, is_out_of_memory, launch
from segwright.training.schedule import learning_rate_factor
from segwright.training.state import State

SAVE_EVERY_S = 30.0  # a killed run loses at most this and one step; half of the minute that is promised

Watch = Callable[[dict[str, Any]], None]


def train(
    plan: Plan, run: str | Path, *, resume: bool = False, minutes: float | None = None, watch: Watch | None = None
) -> Path:
    """Train what a plan describes into the folder `run`, and return the path of the best model found.

    With `resume` a run that was stopped or killed goes on from its last save; on a CPU it ends with the same weights, to the
    bit, as if it had never stopped. With `minutes` the learning rate decays by the clock where that is ahead of the steps, and
    the run ends then: such a run fits its time and cannot be repeated to the bit. `watch` is called with each log record.
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
    journal = Journal(run, watch)
    if fabric.is_global_zero:
        journal.drop_after(state.step)
    before, saved = clock.progress(), time.monotonic()
    feed = feed_from(state, crops, fabric)
    while before < 1:
        batch = next(feed)
        try:
            rate = plan.training.learning_rate * learning_rate_factor(before)
            loss = learner.step(batch, state.step, rate)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            halve_batch(state, fabric, journal)
            feed = feed_from(state, crops, fabric)
            continue
        check_finite(loss, state, batch, run)
        state.step += 1
        state.position += state.batch_size
        after = clock.progress()
        if fabric.is_global_zero:
            journal.add(step=state.step, seconds=state.seconds, progress=after, loss=loss, learning_rate=rate)
            if is_due(before, after, plan.training.validations):
                validate(learner, val_set, state, journal, run)
            if time.monotonic() - saved > SAVE_EVERY_S or after >= 1:
                state.write(run, learner)
                saved = time.monotonic()
        fabric.barrier()
        before = after
    return run / MODEL_FILE


@dataclass
class Clock:
    """How far a run is, 0 to 1: by its steps, or by the time it may take where that is ahead. All processes read the same."""

    state: State
    steps: int
    minutes: float | None
    fabric: Fabric

    def __post_init__(self) -> None:
        self.started = time.monotonic() - self.state.seconds

    def progress(self) -> float:
        """The share that is done, 0 to 1; past 1 when the last step took longer than was left."""
        self.state.seconds = time.monotonic() - self.started
        by_steps = self.state.step / self.steps
        if self.minutes is None:
            return by_steps
        return self.fabric.broadcast(max(by_steps, self.state.seconds / (60 * self.minutes)))


def is_due(before: float, after: float, times: int) -> bool:
    """Whether one of `times` evenly spaced moments, the last at 1, lies in (before, after]."""
    return int(min(after, 1.0) * times) > int(before * times)


def checked_splits(plan: Plan) -> tuple[Dataset, Dataset]:
    """The training and the validation samples of a plan.

    Raises:
        UsageError: the classes of the data are not as many as those of the network, or there is no truth.
    """
    train_set, val_set = open_splits(plan.data.train, plan.data.val)
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


def validate(learner: Learner, val_set: Dataset, state: State, journal: Journal, run: Path) -> None:
    """Score the averaged weights on the validation samples, and keep them if they are the best so far."""
    predictor = training_predictor(learner.average, learner.plan, val_set.classes)
    scores = evaluate(predictor, val_set, resamples=0).values
    mean_iou = scores["mIoU"]
    is_best = mean_iou > state.best_score
    journal.add(step=state.step, seconds=state.seconds, **{"mIoU": mean_iou, "pixel accuracy": scores["pixel accuracy"]})
    if is_best or not (run / MODEL_FILE).exists():
        state.best_score = mean_iou
        ModelFile(learner.average.state_dict(), learner.plan, val_set.classes).write(run / MODEL_FILE)
