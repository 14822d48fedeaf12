"""Fingerprint and budget to a Plan whose training ends inside the time and the memory; each choice notes its reason."""

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from segwright.core import Dataset
from segwright.core.atomic_files import check_utf8
from segwright.core.errors import SettingError, UsageError
from segwright.core.lookup import find
from segwright.data.fingerprint import Fingerprint
from segwright.data.splits import Fold, Splits, open_splits, remembered
from segwright.data.value_range import ValueRange
from segwright.models import preset, task_of
from segwright.optimisers import adamw
from segwright.planning.budget import Budget, Cost, step_cost
from segwright.planning.class_weight_rules import with_class_weights
from segwright.planning.imbalance import ClassBalance
from segwright.planning.memory import check_fits, within
from segwright.planning.rules import augmentation_rules, crop_for, preprocess_rules, sampler_rules
from segwright.planning.start import Start, Wish, found_start, named_start, with_start
from segwright.planning.survey import Survey
from segwright.plans.kinds import class_of
from segwright.plans.plan import Data, Inference, Init, Plan, Precision, Training
from segwright.tasks import task_for
from segwright.training.dataloader import CropDataset

PASSES = 12  # times that each training pixel is seen, from scratch: with fewer, a cheaper network has learnt more by then
FEWEST_STEPS = 600  # the same for small data sets, whose pixels are soon seen
SMALLEST_SIDE = 96  # pixels of a view: with less, objects vanish
VALIDATION_SHARE = 0.08  # of the time for looking at the validation samples on the way
ATLAS_SECONDS = 0.2e-6  # per pixel, to see where the errors of an image are: 0.34 s for 2 million pixels on two cores
REPORT_SECONDS = 8.0  # to score once more image by image, to draw the pages and to write them, beside the network's own time
MEASURED_CROPS = 4
CROP_LIMIT = 2  # of the sides of the largest image: beyond, a crop is mostly padding
CHECK_SHARE = 0.05  # of the time for reading all samples before training
PRECISION_SHARE = 0.1  # of the time for timing precisions: where a step is that slow, the first of them must do
MOST_VALIDATIONS = 10  # more would only crowd the curve
BATCH = {"cpu": 4, "cuda": 16}  # larger ones save a CPU no time, and cost it steps; taken in parts where memory ends
LEARNING_RATE = 2e-3  # high for AdamW, since runs from scratch are short
NORMALISE = "data.preprocess.normalise"
TILE_CROPS = 2  # sides of a crop that inference looks at in one go: fewer seams, and no gradients to keep in memory

Candidates = Callable[[float], Sequence[Any]]  # the networks to choose from at a scale

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A plan, the data that it is for, and the `seconds_after` that scoring and reporting will take once training ends.

    `values` are those of the training images; `trial` tries other plans for the same data.
    """

    plan: Plan
    splits: Splits
    values: ValueRange
    seconds_after: float
    trial: "Trial"


def plan(
    data: str,
    *,
    val: str | None = None,
    fold: Fold | None = None,
    budget: Budget | None = None,
    task: str | None = None,
    model: str | None = None,
    init: str | None = None,
    new_head: bool = False,
    online: bool = False,
    own_modules: bool = False,
    settings: Sequence[str] = (),
) -> Plan:
    """A plan for the data in `data`, made by looking at them and by timing real steps on this machine.

    `task` is a file of tasks/, or a user's own module; `model` a network by the name that `list_models` gives; without them
    both are chosen, the task by what the data hold. `init` names the weights to start from, as `Init` says, `new_head` leaves
    out their head, which is for other classes; without it, trained weights are taken that lie on this machine, or none where it
    is "scratch". `online` lets weights be fetched, `own_modules` a run that is named import modules outside segwright. `fold`
    (i, n) validates on piece i of n. `settings` such as "training.seed=1" replace what the planner chose; a loss's
    `class_weights` may be the name of a rule there, "root", "inverse_frequency" or "median_frequency".

    Raises:
        UsageError: the data cannot be used; the message says why.
    """
    budget, wish = budget or Budget(), Wish(weights=init, new_head=new_head, online=online, own_modules=own_modules)
    return planned(data, val=val, fold=fold, budget=budget, task=task, model=model, wish=wish, settings=settings).plan


def planned(
    data: str,
    *,
    val: str | None,
    fold: Fold | None,
    budget: Budget,
    task: str | None,
    model: str | None,
    wish: Wish,
    settings: Sequence[str],
    splits: Splits | None = None,
    on_top: bool = False,
) -> Planned:
    """As `plan`, with the open data, which may be `splits`, and the time that the run needs after its training.

    With `on_top` the minutes are for training alone, and planning and scoring come on top of them.
    """
    started = time.monotonic()
    seconds = 60 * budget.minutes

    def left() -> float:
        return seconds if on_top else max(0.0, seconds - (time.monotonic() - started))

    check_utf8(data)  # the plan names the data
    splits = splits or remembered(open_splits(data, val, fold=fold))
    named = named_start(wish)
    task_class = class_of(find("segwright.tasks", task or _task_named(model, named, settings) or task_for(splits.train)))
    train_set, val_set = (task_class().dataset(part) for part in (splits.train, splits.val))
    survey = Survey.of(train_set, val_set)
    settings = with_class_weights(settings, survey.found)
    draft = drafted(Data(train=data, val=val, fold=fold), task_class, survey.found, train_set, budget)
    channels = draft.data.preprocess.channels
    if model is not None:
        known: Sequence[Any] = [preset(model)]
    elif named is not None and named.network is not None:
        known = [named.network]
    else:
        known = ()

    def candidates(scale: float) -> list[Any]:
        seen = survey.found.at_scale(scale)
        networks = known or draft.task.candidates(seen, from_scratch=wish.is_scratch)
        return [draft.task.fitted(network, channels, train_set.classes) for network in networks]

    if named is not None:
        named.check(candidates(1.0)[0], wish)
    trial = Trial(survey.found, train_set, wish, named)
    draft = trial.with_network(draft, candidates(1.0)[0], 1.0)
    draft = trial.fastest_precision(draft, PRECISION_SHARE * seconds, budget.memory_bytes)
    survey.check(draft.with_settings(settings).data.preprocess.channels, CHECK_SHARE * seconds)
    chosen, cost = trial.choose(draft, candidates, left(), budget.memory_bytes)
    if settings:
        chosen = trial.with_settings(chosen, settings)
        cost = _cost_of(chosen, settings, trial, budget)
    log.info(ClassBalance.of(CropDataset.of(train_set, chosen)).told())
    made, after = _scheduled(chosen, cost, trial, len(val_set), left(), on_top=on_top)
    made = _with_settings(made, settings, train_set) if settings else made
    return Planned(made, splits, ValueRange.of(survey.found), after, trial)


def _task_named(model: str | None, named: Start | None, settings: Sequence[str]) -> str | None:
    """The task of the network that a person names: by its kind among the settings, a preset, or its weights; None without."""
    kinds = [setting.partition("=")[2] for setting in settings if setting.partition("=")[0].strip() == "model.kind"]
    if kinds:
        return task_of(find("segwright.models", kinds[-1].strip().strip("'\"")).Config)
    if model is not None:
        return task_of(preset(model))
    return task_of(named.network) if named is not None and named.network is not None else None


def varied(made: Planned, settings: Sequence[str], wish: Wish, budget: Budget) -> Plan:
    """A finished plan with other settings, and with what its network starts from as `wish` says, for the same data and as many
    minutes of training.

    Where a step then costs something else, as with another network or crop, it is timed, and so many are planned as fit.

    Raises:
        UsageError: a setting does not exist, weights do not fit, or a step takes more memory than is granted.
    """
    trial, plan = made.trial, made.plan
    if wish != trial.wish:
        named = named_start(wish)
        if named is not None:
            named.check(plan.model, wish)
        trial = replace(trial, wish=wish, named=named)
        plan = trial.restarted(plan)
    if not settings:
        return plan
    changed = trial.with_settings(plan, with_class_weights(settings, trial.found))
    if _size_of_a_step(changed) == _size_of_a_step(plan):
        return changed
    cost = _cost_of(changed, settings, trial, budget)
    scheduled, _ = _scheduled(changed, cost, trial, len(made.splits.val), 60 * budget.minutes, on_top=True)
    why = scheduled.reasons["training.steps"]
    training = replace(changed.training, steps=scheduled.training.steps)
    return replace(changed, training=training, reasons=changed.reasons | {"training.steps": why})


def _size_of_a_step(plan: Plan) -> tuple[Any, ...]:
    """All that decides what a step of a plan costs, but for the loss, which takes little beside a network."""
    training = plan.training
    layout = training.precision, training.channels_last, training.device
    return (plan.model, plan.data.preprocess, training.crop, training.batch_size, training.accumulate, *layout)


def _cost_of(plan: Plan, settings: Sequence[str], trial: "Trial", budget: Budget) -> Cost:
    """The cost of a step of a plan with settings of a person.

    Raises:
        SettingError: the network cannot take the crop, or no image can fill it.
        UsageError: memory does not suffice.
    """
    _check_crop(plan, trial.found)
    check_fits(plan, budget.memory_bytes)
    cost = trial.cost(plan)
    if math.isinf(cost.seconds):
        raise UsageError(
            f"a step with {', '.join(settings)} takes more memory than there is; choose a smaller crop, batch or network"
        )
    return cost


def drafted(data: Data, task_class: Any, found: Fingerprint, train_set: Dataset, budget: Budget) -> Plan:
    """All of a plan that follows from the data alone; its network and crop stand for those to come."""
    task, why_task = task_class.planned(found)
    preprocess, why_preprocess = preprocess_rules(found)
    augmentation, why_augmentation = augmentation_rules(found, preprocess.channels)
    sampler, why_sampler = sampler_rules(found)
    device = budget.chosen_device
    return Plan(
        task=task,
        data=replace(data, preprocess=preprocess),
        sampler=sampler,
        augmentation=augmentation,
        model=task.fitted(task.candidates(found, from_scratch=True)[0], preprocess.channels, train_set.classes),
        optimiser=adamw.Config(learning_rate=LEARNING_RATE),
        training=Training(steps=1, batch_size=BATCH[device], crop=(1,) * found.axes, device=device),
        reasons=why_task | why_preprocess | why_augmentation | why_sampler,
    )


def _with_settings(plan: Plan, settings: Sequence[str], train_set: Dataset) -> Plan:
    """The plan with settings replaced; a network of another kind is first made to fit the data.

    Raises:
        SettingError: a setting does not exist.
    """
    changed = plan.with_settings(settings)
    if not any(setting.partition("=")[0].strip() == "model.kind" for setting in settings):
        return changed
    fitted = changed.task.fitted(changed.model, changed.data.preprocess.channels, train_set.classes)
    rest = [setting for setting in settings if setting.partition("=")[0].strip() != "model.kind"]
    again = replace(changed, model=fitted).with_settings(rest) if rest else replace(changed, model=fitted)
    return replace(again, reasons=changed.reasons)


def divisors_of(network: Any, axes: int) -> tuple[int, ...]:
    """What the sides of images must be multiples of for a network; no weights are drawn, or fetched, to learn it."""
    with torch.device("meta"):
        return tuple(getattr(network.build(), "divisors", (1,) * axes))


def _check_crop(plan: Plan, found: Fingerprint) -> None:
    """See that the network can take the crop, and that images can fill it.

    Raises:
        SettingError: it cannot, or they cannot.
    """
    crop, divisors = plan.training.crop, divisors_of(plan.model, found.axes)
    scale = plan.data.preprocess.scale or (1.0,) * found.axes
    largest = zip(found.size_max, scale, divisors, strict=True)
    most = [math.ceil(CROP_LIMIT * side * factor / divisor) * divisor for side, factor, divisor in largest]
    sides = crop if len(crop) == found.axes else most
    limits = zip(sides, most, divisors, strict=True)
    fitting = [min(max(round(side / divisor), 1) * divisor, limit) for side, limit, divisor in limits]
    if list(crop) != fitting:
        raise SettingError(
            f"training.crop is {list(crop)}; {found.axes} sides are needed, multiples of {' x '.join(map(str, divisors))} and "
            f"at most {most}, {CROP_LIMIT} times the largest image: --set training.crop=[{','.join(map(str, fitting))}]"
        )


def _has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(frozen=True)
class _Option:
    """A plan that could be chosen, the cost of its steps, how many there would be, and the epochs of training pixels."""

    plan: Plan
    cost: Cost
    steps: float
    passes: float

    @property
    def learns(self) -> bool:
        """Whether time is enough for this network, so that a cheaper one would learn no more."""
        return self.passes >= PASSES and self.steps >= FEWEST_STEPS


@dataclass(frozen=True, eq=False)
class Trial:
    """Tries plans on real crops of the training samples, on this machine, from where a person wishes."""

    found: Fingerprint
    train_set: Dataset
    wish: Wish
    named: Start | None

    def with_network(self, draft: Plan, network: Any, scale: float) -> Plan:
        """A draft with another network and scale, with the crop that goes with them, and what the network starts from."""
        axes = self.found.axes
        crop = crop_for(self.found, scale, divisors_of(network, axes))
        preprocess = replace(draft.data.preprocess, scale=None if scale == 1 else (scale,) * axes)
        fitted = replace(
            draft,
            model=network,
            data=replace(draft.data, preprocess=preprocess),
            training=replace(draft.training, crop=crop),
            inference=Inference(tile=tuple(TILE_CROPS * side for side in crop)),
        )
        return self.started(fitted)

    def started(self, plan: Plan) -> Plan:
        """A plan with what its network starts from."""
        return with_start(plan, self.found, found_start(plan.model) if self.wish.weights is None else self.named)

    def with_settings(self, plan: Plan, settings: Sequence[str]) -> Plan:
        """The plan with settings replaced; another network starts from what there is for it, not for the one before.

        Raises:
            SettingError: a setting does not exist.
        """
        changed = _with_settings(plan, settings, self.train_set)
        if changed.model == plan.model:
            return changed
        return _with_settings(self.restarted(changed), settings, self.train_set)

    def restarted(self, plan: Plan) -> Plan:
        """A plan with what its network starts from chosen anew, and with the images that this knows."""
        preprocess, reasons = preprocess_rules(self.found)
        data = replace(plan.data, preprocess=replace(plan.data.preprocess, normalise=preprocess.normalise))
        kept = {path: reason for path, reason in plan.reasons.items() if path != "init.weights"}
        fresh = replace(plan, data=data, init=Init(), reasons=kept | {NORMALISE: reasons[NORMALISE]})
        return self.started(fresh)

    def cost(self, plan: Plan) -> Cost:
        """The cost of a step of a plan."""
        training = plan.training
        crops = CropDataset.of(self.train_set, plan)
        return step_cost(plan, crops.parts(range(training.batch_size), training.accumulate))

    def crop_seconds(self, plan: Plan) -> float:
        """The time that one crop of a plan takes to make."""
        crops = CropDataset.of(self.train_set, plan)
        crops[0]  # compiles what is not compiled yet
        started = time.perf_counter()
        for position in range(1, 1 + MEASURED_CROPS):
            crops[position]
        return (time.perf_counter() - started) / MEASURED_CROPS

    def fastest_precision(self, draft: Plan, limit: float, memory: int) -> Plan:
        """The draft with the precision and memory layout that take the least time here, found by `limit` seconds of timing."""
        is_half_fine = draft.training.device == "cpu" or _has_bfloat16()
        precisions: tuple[Precision, ...] = ("bf16-mixed", "32-true") if is_half_fine else ("16-mixed", "32-true")
        parts = within(draft, memory).training  # what the machine cannot hold is told, not tried
        options = [replace(parts, precision=p, channels_last=c) for p in precisions for c in (True, False)]
        end = time.monotonic() + limit
        seconds: dict[tuple[Precision, bool], float] = {}
        for tried in options:
            if not seconds or time.monotonic() < end:
                seconds[tried.precision, tried.channels_last] = self.cost(replace(draft, training=tried)).seconds
        precision, layout = min(seconds, key=lambda option: seconds[option])
        timings = ", ".join(f"{p}{' channels-last' if c else ''} {s:.2f} s" for (p, c), s in seconds.items())
        training = replace(draft.training, precision=precision, channels_last=layout)
        reason = {"training.precision": f"timed on this machine: {timings}"}
        return replace(draft, training=training, reasons=draft.reasons | reason)

    def choose(self, draft: Plan, candidates: Candidates, seconds: float, memory: int) -> tuple[Plan, Cost]:
        """The largest scale, then the largest network, that still see each training pixel often enough; with the cost a step.

        The scale comes first: what is shrunk away no network brings back. `candidates` are the networks for a scale.
        """
        scale = 1.0
        best = self._option(draft, candidates(scale)[0], scale, seconds, memory)
        while not best.learns and scale / 2 * min(self.found.size_median) >= SMALLEST_SIDE:
            scale /= 2
            best = self._option(draft, candidates(scale)[0], scale, seconds, memory)
        for network in candidates(scale)[1:]:
            larger = self._option(draft, network, scale, seconds, memory)
            if not larger.learns:
                break
            best = larger
        reason = (
            f"{best.steps:.0f} steps and {best.passes:.0f} epochs of training pixels in {seconds:.0f} s; "
            f"to go larger, {FEWEST_STEPS} and {PASSES} are needed"
        )
        return replace(best.plan, reasons=best.plan.reasons | {"model": reason, "data.preprocess.scale": reason}), best.cost

    def _option(self, draft: Plan, network: Any, scale: float, seconds: float, memory: int) -> _Option:
        """A network at a scale, its batch taken in as few parts as fit the memory.

        Raises:
            UsageError: not even one crop does.
        """
        candidate = within(self.with_network(draft, network, scale), memory)
        cost = self.cost(candidate)
        while candidate.training.accumulate < candidate.training.batch_size and cost.memory_bytes > memory:
            accumulate = 2 * candidate.training.accumulate
            candidate = replace(candidate, training=replace(candidate.training, accumulate=accumulate))
            cost = self.cost(candidate)
        training, found = candidate.training, self.found
        if cost.memory_bytes > memory:
            needed = f"{cost.memory_bytes / 2**30:.2g} GB" if cost.memory_bytes < sys.maxsize else "more than there is"
            raise UsageError(
                f"one crop of {training.crop} takes {needed} in training and "
                f"{memory / 2**30:.2g} GB are granted; grant more with --memory-gb, or choose a smaller network with --model"
            )
        steps = seconds / cost.seconds
        pixels = found.count * math.prod(found.size_median) * scale**found.axes
        return _Option(candidate, cost, steps, steps * training.batch_size * math.prod(training.crop) / pixels)


def _scheduled(chosen: Plan, cost: Cost, trial: Trial, val_count: int, seconds: float, *, on_top: bool) -> tuple[Plan, float]:
    """The plan with as many steps and validations as fit into the seconds, and the time that scoring and reporting take.

    That time is in the seconds, unless it comes on top of them.
    """
    training, size = chosen.training, math.prod(trial.found.size_median)
    scale = math.prod(chosen.data.preprocess.scale or (1.0,))
    step_seconds = cost.seconds + training.batch_size * trial.crop_seconds(chosen)
    share = size * scale / (training.batch_size * math.prod(training.crop))  # of an image in the pixels of a step
    val_seconds = val_count * (0.02 + cost.seconds * share / 2)  # a forward pass is about a third of a step
    atlas_seconds = ATLAS_SECONDS * val_count * size
    after = REPORT_SECONDS + 2 * val_seconds + atlas_seconds  # the last validation comes when the time is over; then the scores
    scoring = 0.0 if on_top else after
    validations = max(1, min(MOST_VALIDATIONS, int(VALIDATION_SHARE * seconds / val_seconds)))
    steps = max(1, int((seconds - scoring - (validations - 1) * val_seconds) / step_seconds))
    reasons = {
        "training.steps": f"a step takes {step_seconds:.3g} s here, "
        f"{seconds:.0f} s are left, {scoring:.0f} s of them for scores",
        "training.batch_size": f"a step takes {cost.memory_bytes / 2**30:.1f} GB",
        "training.validations": f"{val_count} images take {val_seconds:.0f} s each time",
    }
    training = replace(training, steps=steps, validations=validations)
    return replace(chosen, training=training, reasons=chosen.reasons | reasons), after
