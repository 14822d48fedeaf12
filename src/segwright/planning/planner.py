"""Fingerprint and budget to a Plan whose training ends inside the time and the memory; each choice notes its reason."""

import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch

from segwright.core import Dataset
from segwright.core.errors import SettingError, UsageError, naming
from segwright.core.files import check_utf8
from segwright.encoders import timm
from segwright.formats import open_splits
from segwright.models import preset, segformer, unet
from segwright.planning.budget import Budget, Cost, measure
from segwright.planning.fingerprint import Fingerprint, fingerprint
from segwright.planning.rules import augmentation_rules, crop_for, data_rules, has_up, loss_rules
from segwright.plans import Inference, Plan, Precision, Training
from segwright.tasks.semantic import Semantic
from segwright.training.batches import Crops
from segwright.transforms.background import with_background
from segwright.transforms.channels import match_channels
from segwright.transforms.normalise import check_finite

PASSES = 12  # looks at each training pixel, from scratch: with fewer, a cheaper network has learnt more in the same time
FEWEST_STEPS = 600  # the same for small data sets, whose pixels are soon seen
SMALLEST_SIDE = 96  # pixels after the zoom: with less, objects vanish
VALIDATION_SHARE = 0.08  # of the time for looking at the validation samples on the way
ATLAS_SECONDS = 0.2e-6  # per pixel, to see where the errors of an image are: 0.34 s for 2 million pixels on two cores
REPORT_SECONDS = 8.0  # to score once more image by image, to draw the pages and to write them, beside the network's own time
MEASURED_CROPS = 4
CROP_LIMIT = 2  # of the sides of the largest image: beyond, a crop is mostly padding
CHECK_SHARE = 0.05  # of the time for reading all samples before training
PRECISION_SHARE = 0.1  # of the time for timing precisions: where a step is that slow, the first of them must do
MOST_VALIDATIONS = 10  # more would only crowd the curve
ENCODERS = tuple(f"regnetx_{size}" for size in ("002", "004", "008", "016", "032"))  # of timm: half a ResNet-18's time at 004
UNET_WIDTHS = {2: (16, 32, 64), 3: (8, 16, 32)}
BATCH = {"cpu": 4, "cuda": 16}  # larger ones save a CPU no time, and cost it steps; halved where memory ends
LEARNING_RATE = 2e-3  # high for AdamW, since runs from scratch are short
TILE_CROPS = 2  # sides of a crop that inference looks at in one go: fewer seams, and no gradients to keep in memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """A plan, and the `seconds_after` that scoring and reporting will take once the training ends."""

    plan: Plan
    seconds_after: float


def plan(
    data: str, *, val: str | None = None, budget: Budget | None = None, model: str | None = None, settings: Sequence[str] = ()
) -> Plan:
    """A plan for the data in `data`, made by looking at them and by timing real steps on this machine.

    `model` is a network by the name that `list_models` gives; without it one is chosen. `settings` such as
    "training.seed=1" replace what the planner chose.

    Raises:
        UsageError: the data cannot be used; the message says why.
    """
    return planned(data, val=val, budget=budget or Budget(), model=model, settings=settings).plan


def planned(data: str, *, val: str | None, budget: Budget, model: str | None, settings: Sequence[str]) -> Planned:
    """As `plan`, with the time that the run needs after its training."""
    started = time.monotonic()
    check_utf8(data)  # the plan names the data
    train_set, val_set = map(with_background, open_splits(data, val))
    found = fingerprint(train_set)
    check_truth(found, train_set.source)
    data_part, reasons = data_rules(found, data, val)
    geometric, intensity, more = augmentation_rules(found, data_part.channels)
    loss, why_loss = loss_rules(found)
    candidates = networks(found, model, data_part.channels)
    draft = Plan(
        data=data_part,
        model=candidates[0],
        loss=loss,
        geometric=geometric,
        intensity=intensity,
        training=Training(
            steps=1,
            batch_size=BATCH[budget.chosen_device],
            crop=(1,) * found.axes,
            learning_rate=LEARNING_RATE,
            device=budget.chosen_device,
        ),
        inference=Inference(tile=(1,) * found.axes),
        reasons=reasons | more | why_loss,
    )
    draft = fastest_precision(with_network(draft, candidates[0], 1.0, found), PRECISION_SHARE * 60 * budget.minutes)
    look_through((train_set, val_set), draft.with_settings(settings).data.channels, CHECK_SHARE * 60 * budget.minutes)
    left = max(0.0, 60 * budget.minutes - (time.monotonic() - started))
    chosen, cost = choose(draft, candidates, found, left, budget.memory_bytes)
    if settings:
        chosen = chosen.with_settings(settings)
        check_crop(chosen, found)
        cost = measure(chosen)
        if math.isinf(cost.seconds):
            raise UsageError(
                f"a step with {', '.join(settings)} takes more memory than there is; choose a smaller crop, batch or network"
            )
    left = max(0.0, 60 * budget.minutes - (time.monotonic() - started))
    made = scheduled(chosen, cost, train_set, len(val_set), found, left)
    return replace(made, plan=made.plan.with_settings(settings)) if settings else made


def check_truth(found: Fingerprint, source: str) -> None:
    """See that there is something to learn.

    Raises:
        UsageError: images have no masks, or the masks do not hold two classes.
    """
    if found.with_truth < found.looked_at:
        raise UsageError(f"{source} has images without masks; add the masks, or use segwright predict on them")
    present = [name for name, share in zip(found.class_names, found.class_fractions, strict=True) if share > 0]
    if len(present) < 2:
        raise UsageError(
            f"the masks in {source} hold {f'only the class {present[0]!r}' if present else 'void alone'}; "
            "two classes are needed to tell apart: look at the masks with segwright inspect"
        )


def look_through(datasets: Sequence[Dataset], channels: int, seconds: float) -> None:
    """Read the samples once, so that one that cannot be used is named now and not after an hour of training; as time allows.

    Raises:
        UsageError: a sample cannot be used; the message names its file.
    """
    end, total = time.monotonic() + seconds, sum(map(len, datasets))
    for number, sample in enumerate(chain.from_iterable(datasets)):
        if time.monotonic() > end:
            log.info("looked through %d of %d samples for damage; the others are read while training", number, total)
            return
        if sample.truth is None:
            raise UsageError(f"sample {sample.key!r} has no mask to learn from; add it, or take the image out")
        with naming(f"sample {sample.key!r}"):
            match_channels(sample.image[(slice(None), *[slice(1)] * (sample.image.ndim - 1))], channels)  # one pixel tells
            check_finite(sample.image)


def networks(found: Fingerprint, model: str | None, channels: int) -> list[Any]:
    """The networks to choose from for a data set, in growing order of cost; one alone where a person named it."""
    facts = {"in_channels": channels, "num_classes": len(found.class_names)}
    if model is not None:
        return [replace(preset(model), **facts)]
    if found.axes == 3:
        network = unet.Config(axes=3, depth=4, max_width=256, norm="instance")
        known: list[Any] = [replace(network, width=width) for width in UNET_WIDTHS[3]]
    elif not has_up(found):  # sections and smears: texture and thin borders, so full resolution
        known = [replace(unet.Config(max_width=512), width=width) for width in UNET_WIDTHS[2]]
    else:  # scenes: what a thing is depends on what is far around it
        known = [segformer.Config(encoder=timm.Config(name=name), decoder_width=128) for name in ENCODERS]
    return [replace(network, **facts) for network in known]


def with_network(draft: Plan, network: Any, zoom: float, found: Fingerprint) -> Plan:
    """A draft with another network and zoom, and with the crop that goes with them."""
    crop = crop_for(found, zoom, divisor_of(network))
    return replace(
        draft,
        model=network,
        data=replace(draft.data, zoom=zoom),
        training=replace(draft.training, crop=crop),
        inference=replace(draft.inference, tile=tuple(TILE_CROPS * side for side in crop)),
    )


def divisor_of(network: Any) -> int:
    """What the sides of images must be multiples of for a network; no weights are drawn, or fetched, to learn it."""
    with torch.device("meta"):
        return network.build().divisor


def check_crop(plan: Plan, found: Fingerprint) -> None:
    """See that the network can take the crop, and that images can fill it.

    Raises:
        SettingError: it cannot, or they cannot.
    """
    crop, divisor = plan.training.crop, divisor_of(plan.model)
    most = [math.ceil(CROP_LIMIT * side * plan.data.zoom / divisor) * divisor for side in found.size_max]
    sides = crop if len(crop) == found.axes else most
    fitting = [min(max(round(side / divisor), 1) * divisor, limit) for side, limit in zip(sides, most, strict=True)]
    if list(crop) != fitting:
        raise SettingError(
            f"training.crop is {list(crop)}; {found.axes} sides are needed, multiples of {divisor} and at most {most}, "
            f"{CROP_LIMIT} times the largest image: --set training.crop=[{','.join(map(str, fitting))}]"
        )


def fastest_precision(draft: Plan, limit: float) -> Plan:
    """The draft with the precision and memory layout that take the least time here, found by `limit` seconds of timing."""
    precisions: tuple[Precision, ...] = (
        ("bf16-mixed", "32-true") if draft.training.device == "cpu" or has_bfloat16() else ("16-mixed", "32-true")
    )
    options = [replace(draft.training, precision=p, channels_last=c) for p in precisions for c in (True, False)]
    end = time.monotonic() + limit
    seconds: dict[tuple[Precision, bool], float] = {}
    for tried in options:
        if not seconds or time.monotonic() < end:
            seconds[tried.precision, tried.channels_last] = measure(replace(draft, training=tried)).seconds
    precision, layout = min(seconds, key=lambda option: seconds[option])
    timings = ", ".join(f"{p}{' channels-last' if c else ''} {s:.2f} s" for (p, c), s in seconds.items())
    training = replace(draft.training, precision=precision, channels_last=layout)
    return replace(
        draft, training=training, reasons=draft.reasons | {"training.precision": f"timed on this machine: {timings}"}
    )


def has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def choose(draft: Plan, candidates: Sequence[Any], found: Fingerprint, seconds: float, memory: int) -> tuple[Plan, Cost]:
    """The largest zoom, then the largest network, that still see each training pixel often enough; with their cost a step.

    The zoom comes first: what is shrunk away no network brings back.
    """
    zoom = 1.0
    best = option(draft, candidates[0], zoom, found, seconds, memory)
    while not best.learns and zoom / 2 * min(found.size_median) >= SMALLEST_SIDE:
        zoom /= 2
        best = option(draft, candidates[0], zoom, found, seconds, memory)
    for network in candidates[1:]:
        larger = option(draft, network, zoom, found, seconds, memory)
        if not larger.learns:
            break
        best = larger
    reason = (
        f"{best.steps:.0f} steps and {best.passes:.0f} looks at each training pixel in {seconds:.0f} s; "
        f"to go larger, {FEWEST_STEPS} and {PASSES} are needed"
    )
    return replace(best.plan, reasons=best.plan.reasons | {"model": reason, "data.zoom": reason}), best.cost


@dataclass(frozen=True)
class Option:
    """A plan that could be chosen, the cost of its steps, how many there would be, and the looks at each training pixel."""

    plan: Plan
    cost: Cost
    steps: float
    passes: float

    @property
    def learns(self) -> bool:
        """Whether time is enough for this network, so that a cheaper one would learn no more."""
        return self.passes >= PASSES and self.steps >= FEWEST_STEPS


def option(draft: Plan, network: Any, zoom: float, found: Fingerprint, seconds: float, memory: int) -> Option:
    """A network at a zoom, with the largest batch that fits the memory.

    Raises:
        UsageError: not even one crop does.
    """
    candidate = with_network(draft, network, zoom, found)
    cost = measure(candidate)
    while candidate.training.batch_size > 1 and cost.memory_bytes > memory:
        candidate = replace(candidate, training=replace(candidate.training, batch_size=candidate.training.batch_size // 2))
        cost = measure(candidate)
    if cost.memory_bytes > memory:
        needed = f"{cost.memory_bytes / 2**30:.2g} GB" if cost.memory_bytes < sys.maxsize else "more than there is"
        raise UsageError(
            f"one crop of {candidate.training.crop} takes {needed} in training and "
            f"{memory / 2**30:.2g} GB are granted; grant more with --memory-gb, or choose a smaller network with --model"
        )
    steps = seconds / cost.seconds
    looked_at = steps * candidate.training.batch_size * math.prod(candidate.training.crop)
    return Option(candidate, cost, steps, looked_at / (found.count * math.prod(found.size_median) * zoom**found.axes))


def scheduled(chosen: Plan, cost: Cost, train_set: Dataset, val_count: int, found: Fingerprint, seconds: float) -> Planned:
    """The plan with as many steps and validations as fit into the seconds, and the time that scoring and reporting take."""
    batch, crop = chosen.training.batch_size, chosen.training.crop
    crops = Crops(train_set, chosen, Semantic(chosen.loss))
    crops[0]  # compiles what is not compiled yet
    started = time.perf_counter()
    for position in range(1, 1 + MEASURED_CROPS):
        crops[position]
    step_seconds = cost.seconds + batch * (time.perf_counter() - started) / MEASURED_CROPS
    size = math.prod(found.size_median) * chosen.data.zoom**found.axes
    look_seconds = 0.02 + cost.seconds / (batch * math.prod(crop)) * size / 2  # a forward pass is about a third of a step
    val_seconds = val_count * look_seconds
    atlas_seconds = ATLAS_SECONDS * val_count * math.prod(found.size_median)
    after = REPORT_SECONDS + 2 * val_seconds + atlas_seconds  # the last validation comes when the time is over; then the scores
    validations = max(1, min(MOST_VALIDATIONS, int(VALIDATION_SHARE * seconds / val_seconds)))
    steps = max(1, int((seconds - after - (validations - 1) * val_seconds) / step_seconds))
    reasons = {
        "training.steps": f"a step takes {step_seconds:.3g} s here, {seconds:.0f} s are left, {after:.0f} s of them for scores",
        "training.batch_size": f"a step takes {cost.memory_bytes / 2**30:.1f} GB",
        "training.validations": f"{val_count} images take {val_seconds:.0f} s each time",
    }
    training = replace(chosen.training, steps=steps, validations=validations)
    return Planned(replace(chosen, training=training, reasons=chosen.reasons | reasons), after)
