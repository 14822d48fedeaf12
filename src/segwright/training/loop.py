"""The training loop in plain sight. Axes: B batch, C channels, K classes, *S spatial axes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning_fabric import Fabric
from torch import Tensor

from segwright.checkpoints.first_folder import copy_first
from segwright.core import Dataset
from segwright.core.errors import TrainingError, UnrecognisedError, UsageError
from segwright.core.run_files import MODEL_FILE, PLAN_FILE, STATE_FILE
from segwright.data.splits import Splits, open_splits, remembered
from segwright.data.value_range import ValueRange
from segwright.plans.commands import command
from segwright.plans.plan import Plan
from segwright.tasks import Batch
from segwright.training.checkpointer import Checkpointer
from segwright.training.dataloader import CropDataset, batches
from segwright.training.first_stage import first_stage
from segwright.training.init import initialise
from segwright.training.learner import Learner, ema_decay, is_out_of_memory, launch, layout
from segwright.training.resume import State, check_same_data, leaked
from segwright.training.run_data import RunData
from segwright.training.run_dir import OnRecord, TrainLog, check_resumable, note_places, start_anew, start_folder

SLOWER = 4  # times, after a loss was lost: less would hardly help, more would waste the run


def train(
    plan: Plan,
    run: str | Path,
    *,
    splits: Splits | None = None,
    resume: bool = False,
    minutes: float | None = None,
    watchers: Sequence[OnRecord] = (),
    own_modules: bool = False,
    online: bool = False,
    values: ValueRange | None = None,
) -> Path:
    """Train what a plan describes into the folder `run`, and return the path of the best model found.

    With `resume` a run that was stopped or killed goes on from its last save; on a CPU it ends with the same weights, to the
    bit, as if it had never stopped. With `minutes` the clock decides and not the plan's steps: the learning rate decays with it
    and the run ends by it, which fills the time, and cannot be repeated to the bit. `watchers` are called with each record of
    the log. `splits` are the plan's data where they are open already, and `values` those of the training images where they were
    measured. Started by torchrun, all processes train together.
    `own_modules` lets the weights to start from name modules outside segwright, `online` lets them be fetched.

    Raises:
        OutputError: `run` cannot be written, or holds another run.
        TrainingError: the loss is not finite, or not even one sample fits into memory.
        UsageError: a run is to go on with other data than it began with, or the first run of a cascade is not there.
    """
    run, fabric = Path(run), launch(plan.training)
    train_set, val_set = (plan.task.dataset(part) for part in splits or remembered(open_data(plan)))
    data = _checked_data(plan, train_set, val_set, run if resume else None)
    first = first_stage(plan, (train_set, val_set), run if resume else None, own_modules=own_modules)
    learner, log = Learner.new(plan, fabric), TrainLog(run, watchers)
    state = _resumed(learner, log, data) if resume else _started(learner, log, data, own_modules=own_modules, online=online)
    fabric.barrier()
    crops = CropDataset.of(train_set if first is None else first.added(train_set), plan)
    values = values or ValueRange.measured(train_set)
    clock = _Clock(state, plan.training.steps, minutes, fabric)
    checkpointer = Checkpointer(run, plan, val_set, log, values, by_clock=minutes is not None, first=first)
    feed = _feed_from(state, crops, fabric)
    while True:
        progress = clock.progress()
        checkpointer.keep(learner, state, progress)
        if progress >= 1:
            return run / MODEL_FILE
        begun, parts, rate = time.perf_counter(), next(feed), plan.schedule(progress)
        learner.set_progress(progress)
        try:
            losses = step(learner, parts, state.step, rate)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            learner.optimiser.zero_grad(set_to_none=True)  # some parts may have added to it
            _accumulate_more(state, learner, log)
            feed = _feed_from(state, crops, fabric)
            continue
        _check_finite(sum(losses.values()), state, parts, log.run, plan)
        state.step += 1
        state.position += plan.training.batch_size
        if fabric.is_global_zero:
            facts = _step_facts(plan, fabric, losses, rate, time.perf_counter() - begun)
            log.add(step=state.step, seconds=clock.seconds(), progress=progress, **facts)


def step(learner: Learner, parts: Sequence[Batch], number: int, rate: float) -> dict[str, float]:
    """One step of gradient descent on the parts of a batch, at a share `rate` of the peak learning rate.

    Returns the terms of the loss by name, averaged over the parts and over all processes. Weights stay where the loss is lost.
    """
    fabric, training, sums = learner.fabric, learner.plan.training, dict[str, Tensor]()
    for group in learner.optimiser.param_groups:
        group["lr"] = rate * learner.plan.optimiser.learning_rate
    torch.manual_seed(training.seed + number)  # what dropout draws depends on the step alone
    generator = torch.Generator(fabric.device).manual_seed(training.seed + number)
    learner.train()
    for part_number, part in enumerate(parts, start=1):
        batch = _on_device(part, fabric, channels_last=training.channels_last)
        with fabric.no_backward_sync(learner.parallel, enabled=part_number < len(parts)):
            terms = dict(learner.plan.task.loss(learner.parallel, batch, generator))
            if len(parts) > 1:
                terms = {name: term / len(parts) for name, term in terms.items()}
            first, *others = terms.values()
            fabric.backward(sum(others, first))
        for name, term in terms.items():
            sums[name] = sums.get(name, 0) + term.detach().float()
    fabric.clip_gradients(learner.parallel, learner.optimiser, max_norm=training.clip_norm, error_if_nonfinite=False)
    values = torch.as_tensor(fabric.all_reduce(torch.stack([*sums.values()]))).tolist()
    if isfinite(sum(values)):
        learner.optimiser.step()
        learner.update_ema(ema_decay(number, training))
    learner.optimiser.zero_grad(set_to_none=True)
    return dict(zip(sums, values, strict=True))


def _on_device(batch: Batch, fabric: Fabric, *, channels_last: bool) -> Batch:
    """A batch where the network is, its image in the memory format of the network."""
    batch = fabric.to_device(batch)
    if not channels_last:
        return batch
    return batch._replace(image=batch.image.contiguous(memory_format=layout(batch.image.ndim - 2)))


def _step_facts(plan: Plan, fabric: Fabric, losses: Mapping[str, float], rate: float, took_s: float) -> dict[str, Any]:
    """What the log says of a step: its losses, its learning rate, and what it took."""
    return {
        "loss": sum(losses.values()),
        "losses": dict(losses),
        "learning_rate": rate * plan.optimiser.learning_rate,
        "samples_per_s": round(plan.training.batch_size / took_s, 2),
        "memory_gb": _memory_gb(fabric),
    }


def _started(learner: Learner, log: TrainLog, data: RunData, *, own_modules: bool, online: bool) -> State:
    """Where a new run stands, whose folder is made once all that it starts from was read."""
    plan = learner.plan
    others = initialise(learner.ema, plan.init, own_modules=own_modules, online=online)
    weights = plan.init.weights
    if learner.fabric.is_global_zero:
        start_folder(log.run, plan)
        if plan.cascade.first is not None:
            copy_first(Path(plan.cascade.first), log.run, own_modules=own_modules)
    if weights is not None:
        learner.begin_from_average()
        if learner.fabric.is_global_zero:
            log.add(step=0, event=f"weights from {weights}{'; '.join(['', *others]) or ', all of them'}")
            if warning := leaked(Path(weights), data):
                log.add(step=0, event=warning)
    return State(accumulate=plan.training.accumulate, data=data)


def _resumed(learner: Learner, log: TrainLog, data: RunData) -> State:
    """Where a run stood when it was saved last; what learns is filled with what was learnt."""
    state = State.read(log.run, learner)
    if learner.fabric.is_global_zero:
        log.drop_after(state.step, state.validations)
        note_places(log.run, learner.plan.data)
        if state.data is None:
            event = "an earlier version saved this run and did not note its samples, so whether they have changed is unknown"
            log.add(step=state.step, event=event)
    state.data = data
    return state


@dataclass
class _Clock:
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


def open_data(plan: Plan) -> Splits:
    """The samples of a plan to train with and to validate with.

    Raises:
        UsageError: they are not there.
        FormatError: as `open_splits`.
    """
    data = plan.data
    try:
        return open_splits(data.train, data.val, fold=data.fold, skip=data.skip)
    except UnrecognisedError as error:
        for name, path in (("train", data.train), ("val", data.val)):
            if path is not None and not Path(path).exists():
                raise UsageError(
                    f"the plan has its data.{name} in {path}, which does not exist seen from {Path.cwd()}; go to where it "
                    f"does, or say where it is now: --set data.{name}=PATH"
                ) from error
        raise


def _checked_data(plan: Plan, train_set: Dataset, val_set: Dataset, resumed: Path | None) -> RunData:
    """What a run learns from, which is what it began with if it is `resumed`, and fits the network.

    Raises:
        FormatError: there is no saved run.
        UsageError: the data are others, or the network is for other classes than they have.
    """
    data = RunData.of(train_set, val_set)
    if resumed is not None:
        check_resumable(resumed)
        check_same_data(resumed, data, train_set.source)
    fitted = plan.task.fitted(plan.model, plan.data.preprocess.all_channels, train_set.classes)
    if fitted != plan.model:
        given = vars(plan.model)
        wrong = ", ".join(f"{name} {given[name]} and not {need}" for name, need in vars(fitted).items() if need != given[name])
        raise UsageError(
            f"{train_set.source} has {len(train_set.classes)} classes, and the network of the plan is for others ({wrong}); "
            f"make a plan for these data with: {command('plan', train_set.source, '--out', 'plan.toml')}"
        )
    return data


def _feed_from(state: State, crops: CropDataset, fabric: Fabric) -> Iterator[list[Batch]]:
    """The batches that come next."""
    return batches(crops, state.position, state.accumulate, rank=fabric.global_rank, world=fabric.world_size)


def _memory_gb(fabric: Fabric) -> float:
    """The memory that the GPU held at most since the last call, or that the process holds on a CPU."""
    if fabric.device.type == "cpu":
        return round(psutil.Process().memory_info().rss / 2**30, 2)
    peak = torch.cuda.max_memory_allocated(fabric.device) / 2**30
    torch.cuda.reset_peak_memory_stats(fabric.device)
    return round(peak, 2)


def _accumulate_more(state: State, learner: Learner, log: TrainLog) -> None:
    """Go on with the same batch in twice as many parts after memory ran out.

    Raises:
        TrainingError: a part is one sample, or an odd number of them.
    """
    training, divisors = learner.plan.training, getattr(learner.network, "divisors", (1,) * len(learner.plan.training.crop))
    share = training.batch_size // learner.fabric.world_size
    if share % (2 * state.accumulate):
        crop = [max(side // 2 // divisor, 1) * divisor for side, divisor in zip(training.crop, divisors, strict=True)]
        raise TrainingError(
            f"out of memory at step {state.step} with {share // state.accumulate} samples at a time; plan again with less "
            f"--memory-gb, or take a smaller crop: {start_anew(log.run, f'training.crop={crop}'.replace(' ', ''))}"
        )
    state.accumulate *= 2
    if learner.fabric.is_global_zero:
        event = f"out of memory: a batch of {training.batch_size} is now taken in {state.accumulate} parts"
        log.add(step=state.step, event=event, accumulate=state.accumulate)


def _check_finite(loss: float, state: State, parts: Sequence[Batch], run: Path, plan: Plan) -> None:
    """Stop a run whose loss is lost.

    Raises:
        TrainingError: the loss is NaN or infinite; the message names step, samples and the last good model.
    """
    if not isfinite(loss):
        best, rate = run / MODEL_FILE, "optimiser.learning_rate"
        if (run / STATE_FILE).exists():
            way = f"lower {rate} in {run / PLAN_FILE} and go on with: {command('train', '--resume', run, plan=run)}"
        else:
            way = f"learn more slowly: {start_anew(run, f'{rate}={plan.optimiser.learning_rate / SLOWER:g}')}"
        keys = ", ".join(key for part in parts for key in part.keys)
        raise TrainingError(
            f"the loss is {loss} at step {state.step + 1}, for the samples {keys}; "
            f"the last good model is {best if best.exists() else 'none yet'}; look at these samples, or {way}"
        )
