"""Which network, at which scale, in which precision: plans tried on real crops of the training samples, on this machine."""

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from segwright.core import Dataset
from segwright.core.errors import UsageError
from segwright.data.fingerprint import Fingerprint
from segwright.planning.budget import Cost, step_cost
from segwright.planning.memory import shortened, within
from segwright.planning.rules import batch_for_volumes, crop_for, preprocess_rules
from segwright.planning.start import Start, Wish, found_start, with_start
from segwright.plans.plan import Inference, Init, Plan, Precision
from segwright.training.dataloader import CropDataset
from segwright.transforms.prepare import Preprocess

PASSES = 12  # times that each training pixel is seen, from scratch: with fewer, a cheaper network has learnt more by then
TRAINED_PASSES = 5  # from trained weights: street scenes seen 5 times taught more than the same at half scale seen 13 times
# of volumes, before a larger network is taken: in the same time 16 channels came to a Dice of 0.872 in 47 passes over small
# volumes, and 32 to 0.869 in 17 (benchmarks/fit_hippocampus.py tells of the data)
VOLUME_PASSES = 48
FEWEST_STEPS = 600  # the same for small data sets, whose pixels are soon seen
SMALLEST_SIDE = 96  # pixels of a view: with less, objects vanish
MEASURED_CROPS = 4
BATCH = {"cpu": 4, "cuda": 16}  # larger ones save a CPU no time, and cost it steps; taken in parts where memory ends
VOLUME_BATCH = {"cpu": 2, "cuda": 16}  # of the smallest volumes: 2 came to a Dice of 0.875, and 4 to 0.872 in half the steps
NORMALISE = "data.preprocess.normalise"
TILE_CROPS = 2  # sides of a crop that inference looks at in one go: fewer seams, and no gradients to keep in memory

Candidates = Callable[[float], Sequence[Any]]  # the networks to choose from at a scale

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Option:
    """A plan that could be chosen, the cost of its steps, how many there would be, and the epochs of training pixels."""

    plan: Plan
    cost: Cost
    steps: float
    passes: float

    @property
    def passes_needed(self) -> int:
        """The epochs of training pixels that make time enough for this network."""
        return PASSES if self.plan.init.weights is None else TRAINED_PASSES

    @property
    def passes_before(self) -> int:
        """The epochs that would have to be left before this network is taken instead of a smaller one."""
        return max(self.passes_needed, VOLUME_PASSES) if len(self.plan.training.crop) == 3 else self.passes_needed

    @property
    def learns(self) -> bool:
        """Whether time is enough for this network, so that a cheaper one would learn no more."""
        return self.passes >= self.passes_needed and self.steps >= FEWEST_STEPS


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
        device = draft.training.device
        batch_size = batch_for_volumes(crop, VOLUME_BATCH[device]) if axes == 3 else BATCH[device]
        fitted = replace(
            draft,
            model=network,
            data=replace(draft.data, preprocess=self._scaled(draft.data.preprocess, scale)),
            training=replace(draft.training, crop=crop, batch_size=batch_size),
            inference=Inference(tile=tuple(TILE_CROPS * side for side in crop)),
        )
        return self.started(fitted)

    def _scaled(self, preprocess: Preprocess, scale: float) -> Preprocess:
        """How images are prepared with `scale` times the pixels along each axis: said in mm where all come to one spacing."""
        if preprocess.spacing_mm is not None and self.found.spacing_mm is not None:
            return replace(preprocess, spacing_mm=tuple(round(step / scale, 4) for step in self.found.spacing_mm))
        return replace(preprocess, scale=None if scale == 1 else (scale,) * self.found.axes)

    def started(self, plan: Plan) -> Plan:
        """A plan with what its network starts from."""
        return with_start(plan, self.found, found_start(plan.model) if self.wish.weights is None else self.named)

    def with_settings(self, plan: Plan, settings: Sequence[str]) -> Plan:
        """The plan with settings replaced; another network starts from what there is for it, not for the one before.

        Raises:
            SettingError: a setting does not exist.
        """
        changed = set_by_hand(plan, settings, self.train_set)
        if changed.model == plan.model:
            return changed
        return set_by_hand(self.restarted(changed), settings, self.train_set)

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
        cost = step_cost(plan, crops.parts(range(training.batch_size), training.accumulate))
        return cost if training.device != "cpu" else replace(cost, crop_bytes=crops.kept_bytes)  # a GPU keeps none

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
        parts = self._within(draft, 1.0, memory).training  # what the machine cannot hold is told, not tried
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

    def _within(self, plan: Plan, scale: float, memory: int) -> Plan:
        """A plan at a scale that seems to fit the memory: of volumes smaller crops are taken, then fewer of them at once.

        Raises:
            UsageError: not even one crop does.
        """
        if self.found.axes == 3:
            divisors = divisors_of(plan.model, self.found.axes)
            plan = shortened(plan, self.found.at_scale(scale).size_median, divisors, memory)
            plan = replace(plan, inference=Inference(tile=tuple(TILE_CROPS * side for side in plan.training.crop)))
        return within(plan, memory)

    def choose(self, draft: Plan, candidates: Candidates, seconds: float, memory: int) -> tuple[Plan, Cost]:
        """The largest scale, then the largest network, that still see each training pixel often enough; with the cost a step.

        The scale comes first: what is shrunk away no network brings back. An earlier run that training starts from keeps its
        own, in which it has learnt how large objects are. `candidates` are the networks for a scale.
        """
        learnt = None if self.named is None else self.named.scale
        scale = 1.0 if learnt is None else learnt
        best = self._option(draft, candidates(scale)[0], scale, seconds, memory)
        while learnt is None and not best.learns and scale / 2 * min(self.found.size_median) >= SMALLEST_SIDE:
            scale /= 2
            best = self._option(draft, candidates(scale)[0], scale, seconds, memory)
        for network in candidates(scale)[1:]:
            larger = self._larger(best, draft, network, scale, seconds, memory)
            if larger is None or not larger.learns or larger.passes < larger.passes_before:
                break
            best = larger
        reason = (
            f"{best.steps:.0f} steps and {best.passes:.0f} epochs of training pixels in {seconds:.0f} s; "
            f"to go larger, {FEWEST_STEPS} and {best.passes_before} are needed"
        )
        why_scale = reason if learnt is None else "that of the run which training starts from"
        return replace(best.plan, reasons=best.plan.reasons | {"model": reason, "data.preprocess.scale": why_scale}), best.cost

    def measured(self, draft: Plan, network: Any, scale: float, seconds: float, memory: int) -> tuple[Plan, Cost]:
        """The plan with a network at a scale, its batch in as few parts as fit the memory, and what a step costs.

        Raises:
            UsageError: not even one crop fits.
        """
        found = self._option(draft, network, scale, seconds, memory)
        learnt = self.named is not None and self.named.scale is not None
        why = "that of the run which training starts from" if learnt else "that of the images"
        return replace(found.plan, reasons=found.plan.reasons | {"data.preprocess.scale": why}), found.cost

    def _larger(self, best: _Option, draft: Plan, network: Any, scale: float, seconds: float, memory: int) -> _Option | None:
        """A larger network at a scale; None where it would see less at once for want of memory than what was best so far."""
        try:
            found = self._option(draft, network, scale, seconds, memory)
        except UsageError as error:
            log.info("a larger network does not fit: %s", error)
            return None
        sees_less = math.prod(found.plan.training.crop) < math.prod(best.plan.training.crop)
        return None if self.found.axes == 3 and sees_less else found

    def _option(self, draft: Plan, network: Any, scale: float, seconds: float, memory: int) -> _Option:
        """A network at a scale, its batch taken in as few parts as fit the memory.

        Raises:
            UsageError: not even one crop does.
        """
        candidate = self.with_network(draft, network, scale)
        candidate = self._within(candidate, scale, memory)
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
        steps = cost.steps(training, seconds)
        pixels = found.count * math.prod(found.size_median) * scale**found.axes
        return _Option(candidate, cost, steps, steps * training.batch_size * math.prod(training.crop) / pixels)


def set_by_hand(plan: Plan, settings: Sequence[str], train_set: Dataset) -> Plan:
    """The plan with settings replaced; a network of another kind is first made to fit the data.

    Raises:
        SettingError: a setting does not exist.
    """
    changed = plan.with_settings(settings)
    if not any(setting.partition("=")[0].strip() == "model.kind" for setting in settings):
        return changed
    fitted = changed.task.fitted(changed.model, changed.data.preprocess.all_channels, train_set.classes)
    rest = [setting for setting in settings if setting.partition("=")[0].strip() != "model.kind"]
    again = replace(changed, model=fitted).with_settings(rest) if rest else replace(changed, model=fitted)
    return replace(again, reasons=changed.reasons)


def divisors_of(network: Any, axes: int) -> tuple[int, ...]:
    """What the sides of images must be multiples of for a network; no weights are drawn, or fetched, to learn it."""
    with torch.device("meta"):
        return tuple(getattr(network.build(), "divisors", (1,) * axes))


def _has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16 itself."""
    return torch.cuda.is_bf16_supported(including_emulation=False)
