"""The training loop in plain sight. Axes: B batch, C channels, K classes, *S spatial axes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from lightning_fabric import Fabric

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Dataset
from segwright.core.errors import TrainingError, UsageError
from segwright.data.splits import Splits, open_splits
from segwright.evaluation.measuring import evaluate
from segwright.inference.load import training_predictor
from segwright.plans.plan import Plan
from segwright.tasks import Batch
from segwright.training.dataloader import CropDataset, batches
from segwright.training.init import initialise
from segwright.training.resume import State
from segwright.training.run_dir import MODEL_FILE, TrainLog, Watch, check_resumable, start_folder
from segwright.training.train_step import Learner, is_out_of_memory, launch

SAVE_EVERY_S = 30.0  # a killed run loses at most this and one step; half of the minute that is promised


def train(
    plan: Plan,
    run: str | Path,
    *,
    splits: Splits | None = None,
    resume: bool = False,
    minutes: float | None = None,
    watchers: Sequence[Watch] = (),
    own_modules: bool = False,
) -> Path:
    """Train what a plan describes into the folder `run`, and return the path of the best model found.

    With `resume` a run that was stopped or killed goes on from its last save; on a CPU it ends with the same weights, to the
    bit, as if it had never stopped. With `minutes` the clock decides and not the plan's steps: the learning rate decays with it
    and the run ends by it, which fills the time, and cannot be repeated to the bit. `watchers` are called with each record of
    the log. `splits` are the plan's data where they are open already. Started by torchrun, all processes train together.
    `own_modules` lets the weights to start from name modules outside segwright.

    Raises:
        OutputError: `run` cannot be written, or holds another run.
        TrainingError: the loss is not finite, or not even one sample fits into memory.
    """
    run = Path(run)
    fabric = launch(plan.training)
    train_set, val_set = checked_splits(plan, splits)
    if fabric.is_global_zero:
        check_resumable(run) if resume else start_folder(run, plan)
    fabric.barrier()
    log, crops = TrainLog(run, watchers), CropDataset.of(train_set, plan)
    learner, state = started(plan, fabric, run, log, resume=resume, own_modules=own_modules)
    clock, checkpointer = Clock(state, plan.training.steps, minutes, fabric), Checkpointer(run, plan, val_set, log)
    feed = feed_from(state, crops, fabric)
    while True:
        progress = clock.progress()
        checkpointer.keep(learner, state, progress)
        if progress >= 1:
            return run / MODEL_FILE
        begun = time.perf_counter()
        parts, rate = next(feed), plan.schedule(progress)
        try:
            losses = learner.step(parts, state.step, rate)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            accumulate_more(state, plan, fabric, log)
            feed = feed_from(state, crops, fabric)
            continue
        check_finite(sum(losses.values()), state, parts, run)
        state.step += 1
        state.position += plan.training.batch_size
        if fabric.is_global_zero:
            log.add(
                step=state.step,
                seconds=clock.seconds(),
                progress=progress,
                loss=sum(losses.values()),
                losses=losses,
                learning_rate=rate * plan.optimiser.learning_rate,
                samples_per_s=round(plan.training.batch_size / (time.perf_counter() - begun), 2),
                memory_gb=memory_gb(fabric),
            )


def started(plan: Plan, fabric: Fabric, run: Path, log: TrainLog, *, resume: bool, own_modules: bool) -> tuple[Learner, State]:
    """What learns and where it stands: new, or as a run left it."""
    learner = Learner.new(plan, fabric)
    state = State.read(run, learner) if resume else State(accumulate=plan.training.accumulate)
    if fabric.is_global_zero:
        log.drop_after(state.step, state.validations)
    if plan.init.weights is not None and not resume:
        random = initialise(learner.network, plan.init, own_modules=own_modules)
        learner.ema.load_state_dict(learner.network.state_dict())
        if fabric.is_global_zero:
            left = f"; not there, so random: {', '.join(random)}" if random else ", all of them"
            log.add(step=0, event=f"weights from {plan.init.weights}{left}")
    return learner, state


@dataclass
class Checkpointer:
    """Saves the state of a run, scores its averaged weights at even moments, and keeps the best of them."""

    run: Path
    plan: Plan
    val_set: Dataset
    log: TrainLog
    saved: float = field(default_factory=time.monotonic)

    def keep(self, learner: Learner, state: State, progress: float) -> None:
        """Do what is due at this progress, 0 to 1. What was learnt is saved before it is scored, which may take long."""
        due = int(min(progress, 1.0) * self.plan.training.validations)
        is_first = learner.fabric.is_global_zero
        if is_first and (due > state.validations or time.monotonic() - self.saved > SAVE_EVERY_S):
            state.write(self.run, learner)
            self.saved = time.monotonic()
        if due > state.validations:
            self.validate(learner, state)
            state.validations = due
            if is_first and progress >= 1:
                state.write(self.run, learner)
            learner.fabric.barrier()

    def validate(self, learner: Learner, state: State) -> None:
        """Score the averaged weights on the validation samples, and keep them if they are the best so far."""
        predictor = training_predictor(learner.ema, self.plan, self.val_set.classes)
        score = self.plan.task.score
        value = evaluate(predictor, self.val_set, metrics=[score], resamples=0).values[score]
        if not learner.fabric.is_global_zero:
            return
        self.log.add(step=state.step, seconds=state.seconds, score=value, metric=score)
        if value > state.best_score or not (self.run / MODEL_FILE).exists():
            state.best_score = max(value, state.best_score)
            ModelFile(learner.ema.state_dict(), self.plan, self.val_set.classes).write(self.run / MODEL_FILE)


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


def checked_splits(plan: Plan, splits: Splits | None) -> tuple[Dataset, Dataset]:
    """The training and the validation samples of a plan, as its task sees them.

    Raises:
        UsageError: the network is for other classes than the data have.
    """
    splits = splits or open_splits(plan.data.train, plan.data.val, fold=plan.data.fold)
    train_set, val_set = plan.task.dataset(splits.train), plan.task.dataset(splits.val)
    fitted = plan.task.fitted(plan.model, plan.data.preprocess.channels, train_set.classes)
    if fitted != plan.model:
        given = vars(plan.model)
        wrong = ", ".join(f"{name} {given[name]} and not {need}" for name, need in vars(fitted).items() if need != given[name])
        raise UsageError(
            f"{train_set.source} has {len(train_set.classes)} classes, and the network of the plan is for others ({wrong}); "
            "make a plan for these data with: segwright plan DATA --out plan.toml"
        )
    return train_set, val_set


def feed_from(state: State, crops: CropDataset, fabric: Fabric) -> Iterator[list[Batch]]:
    """The batches that come next."""
    return batches(crops, state.position, state.accumulate, rank=fabric.global_rank, world=fabric.world_size)


def memory_gb(fabric: Fabric) -> float:
    """The memory that the GPU held at most since the last call, or that the process holds on a CPU."""
    if fabric.device.type == "cpu":
        return round(psutil.Process().memory_info().rss / 2**30, 2)
    peak = torch.cuda.max_memory_allocated(fabric.device) / 2**30
    torch.cuda.reset_peak_memory_stats(fabric.device)
    return round(peak, 2)


def accumulate_more(state: State, plan: Plan, fabric: Fabric, log: TrainLog) -> None:
    """Go on with the same batch in twice as many parts after memory ran out.

    Raises:
        TrainingError: a part is one sample, or an odd number of them.
    """
    share = plan.training.batch_size // fabric.world_size
    if share % (2 * state.accumulate):
        raise TrainingError(
            f"out of memory at step {state.step} with {share // state.accumulate} samples at a time; "
            "plan again with less --memory-gb, or take a smaller crop: --set training.crop=[192,192]"
        )
    state.accumulate *= 2
    if fabric.is_global_zero:
        event = f"out of memory: a batch of {plan.training.batch_size} is now taken in {state.accumulate} parts"
        log.add(step=state.step, event=event, accumulate=state.accumulate)


def check_finite(loss: float, state: State, parts: Sequence[Batch], run: Path) -> None:
    """Stop a run whose loss is lost.

    Raises:
        TrainingError: the loss is NaN or infinite; the message names step, samples and the last good model.
    """
    if not -float("inf") < loss < float("inf"):
        best = run / MODEL_FILE
        keys = ", ".join(key for part in parts for key in part.keys)
        raise TrainingError(
            f"the loss is {loss} at step {state.step + 1}, for the samples {keys}; "
            f"the last good model is {best if best.exists() else 'none yet'}; look at these samples, or lower "
            f"optimiser.learning_rate, and go on with: segwright train --resume {run}"
        )
