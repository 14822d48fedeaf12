"""Which part of a trained network learns where few images tune it within few minutes: what comes after its encoder.

The encoder stays as it is and is asked once for each of some crops of an image; these answers are kept and come again, so that
a step costs the rest alone, and few minutes hold many.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from segwright.core.errors import UsageError
from segwright.optimisers import adamw
from segwright.planning.budget import Cost
from segwright.planning.trial import Trial
from segwright.plans.plan import Plan
from segwright.tasks import KeepsEncoder
from segwright.training.frozen import MOST_BYTES, freeze
from segwright.training.low_rank import adapt

FEW_IMAGES = 100  # to train with: of more, crops enough fit into neither the minutes nor the memory
FEW_SECONDS = 600.0  # of more, all of the network has time to learn
CROPS_OF_AN_IMAGE = 16  # that differ, as in benchmarks/fit_sam_nano.py
FILLING_SHARE = 0.25  # of the time, at most, to ask the encoder for all of them
LEARNING_RATE = 3e-4  # of weights that are good already
OWN = ("training.frozen", "training.num_crops", "model.kind", "init.weights")  # settings of a person who chooses otherwise

log = logging.getLogger(__name__)


def kept_part(draft: Plan, trial: Trial, network: Any, settings: Sequence[str], seconds: float) -> str | None:
    """The encoder of a network, if it should stay as it is: few images and few minutes are to tune trained weights of it all.

    Only some tasks have such networks, and a person may choose otherwise by `settings`.
    """
    if not isinstance(draft.task, KeepsEncoder) or trial.named is None or trial.named.network is None:
        return None
    if trial.found.count > FEW_IMAGES or seconds > FEW_SECONDS:
        return None
    if any(setting.partition("=")[0].strip() in OWN for setting in settings):
        return None
    with torch.device("meta"):
        return draft.task.stays if hasattr(network.build(), draft.task.stays) else None


def with_kept(
    draft: Plan, part: str, trial: Trial, network: Any, seconds: float, memory: int, limit: float, *, batch_size: int = 1
) -> tuple[Plan, Cost] | None:
    """The plan of a draft in which a part stays, with what a step costs; precisions are timed for `limit` seconds.

    None where not one crop of each image, and not a batch of them, of the draft or of a person's `batch_size`, can be kept, for
    want of memory or of time.
    """
    images, batch_size = trial.found.count, max(draft.training.batch_size, batch_size)
    wanted = max(CROPS_OF_AN_IMAGE * images, batch_size)
    training = replace(draft.training, frozen=(part,), num_crops=wanted)
    kept = replace(draft, training=training, optimiser=adamw.Config(learning_rate=LEARNING_RATE))
    scale = (trial.named.scale if trial.named is not None else None) or 1.0
    try:
        plan, cost = trial.measured(trial.fastest_precision(kept, limit, memory), network, scale, seconds, memory)
    except UsageError as error:
        log.info("all of the network learns, as a step of what comes after the %s does not fit: %s", part, error)
        return None
    each_s = (cost.seconds + cost.first_seconds) / plan.training.batch_size + trial.crop_seconds(plan)
    each_bytes = max(cost.answer_bytes + cost.crop_bytes, 1)
    room = min(memory - cost.memory_bytes, MOST_BYTES)
    count = min(wanted, int(FILLING_SHARE * seconds / each_s), room // each_bytes)
    if count < max(images, batch_size):
        log.info("all of the network learns, as what its %s says of %d crops has no room, or takes too long", part, wanted)
        return None
    reasons = {
        "training.frozen": f"{images} images and {seconds / 60:.1f} minutes are few, and {plan.init.weights} knows images",
        "training.num_crops": f"up to {CROPS_OF_AN_IMAGE} of an image, each shown to the {part} once, which takes "
        f"{count * each_s:.0f} s of {seconds:.0f}, and {count * each_bytes / 2**30:.1f} GB for what it says of them",
        "optimiser.learning_rate": "low, for weights that are good already",
        "model": f"that of {plan.init.weights}",
    }
    training = replace(plan.training, num_crops=count)
    return replace(plan, training=training, reasons=plan.reasons | reasons), cost


def with_low_rank_reason(plan: Plan) -> Plan:
    """A plan that says beside its rank how much learns with it; as it is where it has none."""
    training = plan.training
    if training.low_rank is None:
        return plan
    with torch.device("meta"):
        network = plan.model.build()
    freeze(network, training.frozen)
    others = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    count = len(adapt(network, training))
    learning = sum(weight.numel() for weight in network.parameters() if weight.requires_grad)
    every = sum(weight.numel() for weight in network.parameters())
    why = plan.reasons.get("training.low_rank", "set by hand")
    reason = (
        f"{why}: {learning - others} weights beside {count} linear layers of {', '.join(training.frozen)} learn, and {others} "
        f"of what is not frozen, of {every}; the network runs as a whole in each step"
    )
    return replace(plan, reasons=plan.reasons | {"training.low_rank": reason})
