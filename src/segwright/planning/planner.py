"""Fingerprint and budget to a Plan whose training ends inside the time and the memory; each choice notes its reason."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from segwright.core import Classes, Dataset
from segwright.core.atomic_files import check_utf8
from segwright.core.errors import SettingError, UsageError
from segwright.core.lookup import find, names
from segwright.data.fingerprint import Fingerprint
from segwright.data.splits import Fold, Splits, open_splits, remembered
from segwright.data.unreadable import unreadable_keys
from segwright.data.value_range import ValueRange
from segwright.evaluation.conformal import looked_at
from segwright.models import preset, tasks_of
from segwright.optimisers import adamw
from segwright.planning.budget import PROGRAM_BYTES, Budget, Cost
from segwright.planning.cascade import after_first, first_named, with_cascade_reason
from segwright.planning.class_weight_rules import with_class_weights
from segwright.planning.imbalance import ClassBalance
from segwright.planning.memory import check_fits
from segwright.planning.rules import augmentation_rules, on_grid, preprocess_rules, sampler_rules, view_factors
from segwright.planning.scoring_time import clicking_time, seconds_before
from segwright.planning.start import Start, Wish, named_start
from segwright.planning.starting_model import StartingModel, starting_model
from segwright.planning.survey import Survey
from segwright.planning.trial import BATCH, Candidates, Trial, divisors_of, set_by_hand
from segwright.planning.tuning import kept_part, with_kept, with_low_rank_reason
from segwright.plans.kinds import assign, class_of
from segwright.plans.plan import Data, Plan, Training
from segwright.tasks import DEFAULT, OVERLAPPING, TellsUncertainty, task_for
from segwright.training.dataloader import CropDataset

VALIDATION_SHARE = 0.08  # of the time for looking at the validation samples on the way
MIRROR_SHARE = 0.02  # of the time, for one look at the validation volumes and all of their mirror images
ATLAS_SECONDS = 0.2e-6  # per pixel, to see where the errors of an image are: 0.34 s for 2 million pixels on two cores
REPORT_SECONDS = 8.0  # to score once more image by image, to draw the pages and to write them, beside the network's own time
CROP_LIMIT = 2  # of the sides of the largest image: beyond, a crop is mostly padding
CHECK_SHARE = 0.05  # of the time for reading all samples before training
PRECISION_SHARE = 0.1  # of the time for timing precisions: where a step is that slow, the first of them must do
MOST_VALIDATIONS = 10  # more would only crowd the curve
WHAT_LEARNS = ("training.frozen", "training.low_rank", "training.low_rank_layers")
LEARNING_RATE = 2e-3  # high for AdamW, since runs from scratch are short

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
    trial: Trial


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
    skip_bad: bool = False,
    settings: Sequence[str] = (),
) -> Plan:
    """A plan for the data in `data`, made by looking at them and by timing real steps on this machine.

    `task` is a file of tasks/, or a user's own module; `model` a network by the name that `list_models` gives; without them
    both are chosen, the task by what the data hold. `init` names the weights to start from, as `Init` says, `new_head` leaves
    out their head, which is for other classes; without it, trained weights are taken that lie on this machine, or none where it
    is "scratch". `online` lets weights be fetched, `own_modules` a run that is named import modules outside segwright. `fold`
    (i, n) validates on piece i of n. With `skip_bad` samples that cannot be read are left out, and named in the log and the
    plan. `settings` such as "training.seed=1" replace what the planner chose; a loss's `class_weights` may be the name of a
    rule there, "root", "inverse_frequency" or "median_frequency".

    Raises:
        UsageError: the data cannot be used; the message says why.
    """
    budget, wish = budget or Budget(), Wish(weights=init, new_head=new_head, online=online, own_modules=own_modules)
    skip = unreadable_keys(data, *([] if val is None else [val])) if skip_bad else ()
    return planned(
        data, val=val, fold=fold, skip=skip, budget=budget, task=task, model=model, wish=wish, settings=settings
    ).plan


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
    skip: Sequence[str] = (),
    on_top: bool = False,
) -> Planned:
    """As `plan`, with the open data, which may be `splits`, and the time that the run needs after its training.

    Samples with a key in `skip` are left out. With `on_top` the minutes are for training alone, and planning and scoring come
    on top of them.
    """
    started = time.monotonic()
    seconds = 60 * budget.minutes

    def left() -> float:
        return seconds if on_top else max(0.0, seconds - (time.monotonic() - started))

    check_utf8(data)  # the plan names the data
    splits = splits or remembered(open_splits(data, val, fold=fold, skip=skip))
    named = named_start(wish)
    kind = _task_named(task, model, named, settings, splits.train.classes) or task_for(splits.train)
    task_class = class_of(find("segwright.tasks", kind))
    train_set, val_set = (task_class().dataset(part) for part in (splits.train, splits.val))
    survey = Survey.of(train_set, val_set)
    settings = with_class_weights(settings, survey.found)
    draft = drafted(Data(train=data, val=val, fold=fold, skip=tuple(skip)), task_class, survey.found, train_set, budget)
    first = first_named(settings, (train_set, val_set), device=budget.chosen_device, own_modules=wish.own_modules)
    draft = after_first(draft, first, train_set.classes)
    channels, found = draft.data.preprocess.all_channels, on_grid(survey.found, draft.data.preprocess)
    known = preset(model) if model is not None else named and named.network

    def candidates(scale: float) -> list[Any]:
        seen = found.at_scale(scale)
        networks = [known] if known is not None else draft.task.candidates(seen, from_scratch=wish.is_scratch)
        return [draft.task.fitted(network, channels, train_set.classes) for network in networks]

    if named is not None:
        named.check(candidates(1.0)[0], wish, draft.data.preprocess.class_channels)
    trial = Trial(found, train_set if first is None else first.added(train_set), wish, named)
    draft = trial.with_network(draft, candidates(1.0)[0], 1.0)
    asked = draft.with_settings(settings)  # a misspelt setting is told before steps are timed
    survey.check(asked.data.preprocess.channels, CHECK_SHARE * seconds)
    chosen, cost = _chosen(draft, trial, candidates, settings, left, budget, asked.training.batch_size)
    if settings:
        chosen = trial.with_settings(chosen, settings)
        cost = _cost_of(chosen, settings, trial, budget)
    log.info(ClassBalance.of(CropDataset.of(trial.train_set, chosen)).told())
    before = None if on_top else starting_model(chosen, splits.train, own_modules=wish.own_modules)
    made, after = _scheduled(chosen, cost, trial, len(val_set), left(), on_top=on_top, before=before)
    made = set_by_hand(made, settings, train_set) if settings else made
    made = with_cascade_reason(made, found, first, (train_set, val_set))
    return Planned(with_low_rank_reason(made), splits, ValueRange.of(survey.found), after, trial)


def _chosen(
    draft: Plan,
    trial: Trial,
    candidates: Candidates,
    settings: Sequence[str],
    left: Callable[[], float],
    budget: Budget,
    batch_size: int,
) -> tuple[Plan, Cost]:
    """A network that has time to learn in what is `left`, at a scale and in a precision, with the cost of a step.

    Settings make the batch one of `batch_size`.

    Raises:
        UsageError: memory does not suffice.
    """
    limit, memory = PRECISION_SHARE * 60 * budget.minutes, budget.memory_bytes
    first, *others = candidates(1.0)
    if not others:
        draft = _with_what_learns(draft, settings)
    if (part := kept_part(draft, trial, first, settings, left())) is not None:
        kept = with_kept(draft, part, trial, first, left(), memory, limit, batch_size=batch_size)
        if kept is not None:
            return kept
    draft = trial.fastest_precision(draft, limit, memory)
    return trial.choose(draft, candidates, left(), memory)


def _with_what_learns(draft: Plan, settings: Sequence[str]) -> Plan:
    """A draft with those settings that say what learns of its network, on which memory and time depend.

    Settings of the network may leave other parts in it; then all of them come later.
    """
    paths = {setting: setting.partition("=")[0].strip() for setting in settings}
    if any(path.startswith("model.") for path in paths.values()):
        return draft
    chosen = [setting for setting, path in paths.items() if path in WHAT_LEARNS]
    return draft.with_settings(chosen) if chosen else draft


def _task_named(
    task: str | None, model: str | None, named: Start | None, settings: Sequence[str], classes: Classes
) -> str | None:
    """The task that a person names, or that of the network: by its kind among the settings, a preset, or its weights.

    What a network for semantic segmentation learns of classes that are regions is these.

    Raises:
        SettingError: nothing trains such a network, the task is among the settings, or one is no assignment.
    """
    for setting in settings:
        assign({}, setting)  # one that is no assignment is told now, and not once all was timed
    kinds = {setting.partition("=")[0].strip(): setting.partition("=")[2].strip().strip("'\"") for setting in settings}
    if "task.kind" in kinds:
        raise SettingError(
            f"task.kind={kinds['task.kind']}: network, loss and scores follow from the task, so that it is no setting of a new "
            f"plan; choose it with --task {kinds['task.kind']}"
        )
    network: Any = named.network if named is not None else None
    if "model.kind" in kinds:
        network = class_of(find("segwright.models", kinds["model.kind"]))
    elif model is not None:
        network = preset(model)
    if network is None:
        return task
    first = tasks_of(network)[0]
    if first not in names("segwright.tasks") and "." not in first:  # which would be a person's own
        raise SettingError(
            f"the network is for {first} segmentation, which nothing here trains; leave it out to have one chosen for the "
            f"data, or choose one for {', '.join(names('segwright.tasks'))} segmentation: segwright models lists them"
        )
    return task or (OVERLAPPING if first == DEFAULT and classes.regions else first)


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
            named.check(plan.model, wish, plan.data.preprocess.class_channels)
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
    kept = training.frozen, training.num_crops, training.low_rank, training.low_rank_layers
    return (plan.model, plan.data.preprocess, training.crop, training.batch_size, training.accumulate, *layout, *kept)


def _cost_of(plan: Plan, settings: Sequence[str], trial: Trial, budget: Budget) -> Cost:
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
    why_skip = {"data.skip": "they cannot be read"} if data.skip else {}
    device, networks = budget.chosen_device, task.candidates(on_grid(found, preprocess), from_scratch=True)
    return Plan(
        task=task,
        data=replace(data, preprocess=preprocess),
        sampler=sampler,
        augmentation=augmentation,
        model=task.fitted(networks[0], preprocess.channels, train_set.classes),
        optimiser=adamw.Config(learning_rate=LEARNING_RATE),
        training=Training(steps=1, batch_size=BATCH[device], crop=(1,) * found.axes, device=device),
        reasons=why_task | why_preprocess | why_augmentation | why_sampler | why_skip,
    )


def _check_crop(plan: Plan, found: Fingerprint) -> None:
    """See that the network can take the crop, and that images can fill it.

    Raises:
        SettingError: it cannot, or they cannot.
    """
    crop, divisors = plan.training.crop, divisors_of(plan.model, found.axes)
    largest = zip(found.size_max, view_factors(plan.data.preprocess, found), divisors, strict=True)
    most = [math.ceil(CROP_LIMIT * side * factor / divisor) * divisor for side, factor, divisor in largest]
    sides = crop if len(crop) == found.axes else most
    limits = zip(sides, most, divisors, strict=True)
    fitting = [min(max(round(side / divisor), 1) * divisor, limit) for side, limit, divisor in limits]
    if list(crop) != fitting:
        raise SettingError(
            f"training.crop is {list(crop)}; {found.axes} sides are needed, multiples of {' x '.join(map(str, divisors))} and "
            f"at most {most}, {CROP_LIMIT} times the largest image: --set training.crop=[{','.join(map(str, fitting))}]"
        )


def _scheduled(
    chosen: Plan,
    cost: Cost,
    trial: Trial,
    val_count: int,
    seconds: float,
    *,
    on_top: bool,
    before: StartingModel | None = None,
) -> tuple[Plan, float]:
    """The plan with as many steps and validations as fit into the seconds, and the time that scoring and reporting take.

    That time is in the seconds, unless it comes on top of them. With it the model `before`, which is tuned, is scored too.
    """
    training, size = chosen.training, math.prod(trial.found.size_median)
    scale = math.prod(view_factors(chosen.data.preprocess, trial.found))
    crop_seconds = trial.crop_seconds(chosen)
    share = size * scale / (training.batch_size * math.prod(training.crop))  # of an image in the pixels of a step
    forward = cost.seconds / 2 + cost.first_seconds  # about a third of a step; a frozen encoder takes no more the first time
    val_seconds = val_count * (0.02 + forward * share)
    flip_axes, why_mirrored = _mirrored(chosen, val_seconds, seconds)
    val_seconds *= 2 ** len(flip_axes)
    atlas_seconds = ATLAS_SECONDS * val_count * size
    last_seconds = val_seconds
    if (clicking := clicking_time(chosen, trial.train_set)) is not None:
        val_seconds, last_seconds = (val_count * each for each in clicking)
    before_seconds = val_count * seconds_before(before, chosen, last_seconds / val_count)
    again = len(looked_at(val_count)) / val_count if isinstance(chosen.task, TellsUncertainty) else 0
    # The last validation comes when the time is over; then images are scored one by one, and some are asked what to expect.
    after = REPORT_SECONDS + val_seconds + (1 + again) * last_seconds + atlas_seconds + before_seconds
    scoring = 0.0 if on_top else after
    validations = max(1, min(MOST_VALIDATIONS, int(VALIDATION_SHARE * seconds / val_seconds)))
    steps = max(1, int(cost.steps(training, seconds - scoring - (validations - 1) * val_seconds, crop_seconds)))
    kept_bytes = cost.memory_bytes + cost.kept_bytes(training)
    reasons = {
        "training.steps": f"a step takes {_step_times(cost, training, crop_seconds)}, "
        f"{seconds:.0f} s are left, {scoring:.0f} s of them for scores"
        f"{f', {before_seconds:.0f} s of these for those before' if before_seconds and not on_top else ''}",
        "training.batch_size": f"a step takes {cost.memory_bytes / 2**30:.1f} GB, and on a CPU the process "
        f"{(kept_bytes + PROGRAM_BYTES) / 2**30:.1f} GB beside the samples that it keeps",
        "training.validations": f"{val_count} images take {val_seconds:.0f} s each time",
    }
    training = replace(training, steps=steps, validations=validations)
    inference = replace(chosen.inference, flip_axes=flip_axes)
    return replace(chosen, training=training, inference=inference, reasons=chosen.reasons | reasons | why_mirrored), after


def _step_times(cost: Cost, training: Training, crop_seconds: float) -> str:
    """What a step takes, in words: less where its crops have come before, and need neither be made nor be shown the encoder."""
    making = training.batch_size * crop_seconds
    if training.num_crops is None:
        return f"{cost.seconds + making:.3g} s here"
    first = cost.seconds + cost.first_seconds + making
    return f"{cost.later_seconds(training):.3g} s here, and {first:.3g} s while its crops are the first {training.num_crops}"


def _mirrored(chosen: Plan, val_seconds: float, seconds: float) -> tuple[tuple[int, ...], dict[str, str]]:
    """The axes over whose mirror images outputs are averaged in prediction, and why: of volumes those of training.

    What a person set stays. `val_seconds` is the time that the validation volumes take without, `seconds` that of the run.
    """
    inference, axes = chosen.inference, chosen.augmentation.geometric.flip_axes
    if len(chosen.training.crop) != 3 or inference.flip_axes or not axes:
        return inference.flip_axes, {}
    times, path = 2 ** len(axes), "inference.flip_axes"
    if times * val_seconds > MIRROR_SHARE * seconds:
        return (), {
            path: f"mirror images would take {times * val_seconds:.0f} s of {seconds:.0f}, each time that volumes are scored"
        }
    return axes, {
        path: f"volumes are seen mirrored too, as in training, which takes {times} times as long and makes fewer errors"
    }
