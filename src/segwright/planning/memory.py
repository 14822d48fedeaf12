"""What a training step will take, before anything of it is allocated. Axes: B batch, C channels, K classes, *S spatial axes.

The network is built and run on tensors that have shapes and no numbers, so that one that a machine cannot hold is told as such:
a step that is tried instead is killed by the system, which says nothing.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from segwright.core.errors import UsageError
from segwright.inference.engine import tensors_of
from segwright.planning.budget import WORKSPACE, KeptForBackward, weight_bytes
from segwright.plans.plan import Plan, Training
from segwright.training.frozen import ENCODER, MOST_BYTES, freeze, is_asked_once
from segwright.training.low_rank import adapt

LOSS_MAPS = 4  # of all classes at full size in float32, that a loss keeps: interpolated, and for cross-entropy and Dice
LEAST_MAP = 2  # voxels of a side at the deepest stage, of which a norm can tell a deviation
GB = 2**30

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a network has in `parameters`, and what a step takes in bytes: for its weights, and with the crops of one part.

    Where crops come again, `kept_bytes` are for them and for what a frozen encoder says of them, beside the step.
    """

    parameters: int
    weight_bytes: int
    memory_bytes: int
    kept_bytes: int = 0


def need(plan: Plan) -> Need | None:
    """What a step of a plan takes beside the data and the program; None for a network that cannot be run without numbers."""
    training = plan.training
    shape = (training.batch_size // training.accumulate, plan.data.preprocess.all_channels, *training.crop)
    kept = KeptForBackward()
    try:
        with torch.device("meta"):
            network = plan.model.build().train()
        with _shapes_alone(plan):
            network._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))  # as if on a CPU, which autocast knows
            freeze(network, training.frozen)
            adapt(network, training)
            with kept.counting():
                outputs = tensors_of(network(torch.empty(shape)))
            parameters = sum(value.numel() for value in network.parameters())
            weights, kept_bytes = weight_bytes(network), _kept_bytes(network, training, shape[1:])
            maps = sum(output.shape[1] for output in outputs if output.ndim == len(shape))
    except Exception as error:  # any network of a user's own may look at values; it is measured then, as all are
        log.debug("what %s takes is not known before it runs: %s", type(plan.model).__module__, error)
        return None
    loss = LOSS_MAPS * 4 * maps * shape[0] * math.prod(training.crop)
    return Need(
        parameters=parameters,
        weight_bytes=weights,
        memory_bytes=int(weights + WORKSPACE * (kept.total + loss)),
        kept_bytes=kept_bytes,
    )


def _kept_bytes(network: nn.Module, training: Training, shape: Sequence[int]) -> int:
    """What crops of a shape (C, *S) take that come again, with what a frozen encoder says of them; nothing is allocated."""
    if training.num_crops is None:
        return 0
    image, answers = torch.empty(1, *shape), 0
    if is_asked_once(training):
        encoder = network.get_submodule(ENCODER)
        with torch.no_grad():
            said = getattr(encoder, "last_map", encoder)(image)
        answers = sum(level.nbytes for level in ([said] if isinstance(said, torch.Tensor) else said))
    crops = training.num_crops * image.nbytes if training.device == "cpu" else 0  # a GPU keeps none
    return crops + min(training.num_crops * answers, MOST_BYTES)


@contextmanager
def _shapes_alone(plan: Plan) -> Iterator[None]:
    """Tensors made here take no memory; what is drawn for them leaves the state of the generator as it was."""
    is_half = plan.training.precision != "32-true"
    with torch.random.fork_rng(devices=[]), FakeTensorMode(), torch.autocast("cpu", torch.bfloat16, enabled=is_half):
        yield


def within(plan: Plan, memory_bytes: int) -> Plan:
    """The plan with its batch taken in as few parts as seem to fit the memory.

    Raises:
        UsageError: not even one crop does.
    """
    training, needed = plan.training, need(plan)
    while needed is not None and needed.memory_bytes > memory_bytes and plan.training.accumulate < training.batch_size:
        accumulate = min(2 * plan.training.accumulate, training.batch_size)
        while training.batch_size % accumulate:
            accumulate += 1
        plan = replace(plan, training=replace(plan.training, accumulate=accumulate))
        needed = need(plan)
    if needed is not None and needed.memory_bytes > memory_bytes:
        raise UsageError(
            f"{_told(plan.model, needed)}: one crop of {plan.training.crop} takes {gigabytes(needed.memory_bytes)} GB in "
            f"training and {gigabytes(memory_bytes)} GB are granted; grant more with --memory-gb "
            f"{rounded_up(needed.memory_bytes)} where there is as much, or choose a smaller network with --model"
        )
    return plan


def shortened(plan: Plan, usual: Sequence[int], divisors: Sequence[int], memory_bytes: int) -> Plan:
    """The plan for volumes (n,) whose usual shape is `usual` with a crop so small that one fits the memory.

    As in nnU-Net, of the sides the one is shortened, by what the network takes, that is the longest for what the usual volume
    has. Where none can be any more the plan is as it is then, which `within` refuses.
    """
    needed = _need_of_one(plan)
    while needed is not None and needed.memory_bytes > memory_bytes:
        crop = list(plan.training.crop)
        room = max(memory_bytes - needed.weight_bytes, 0) / (needed.memory_bytes - needed.weight_bytes)
        voxels = room * math.prod(crop)  # what a crop takes grows with them
        while math.prod(crop) > voxels:
            long = [axis for axis in range(len(crop)) if crop[axis] > LEAST_MAP * divisors[axis]]
            if not long:
                break
            longest = max(long, key=lambda axis: crop[axis] / usual[axis])
            crop[longest] -= divisors[longest]
        if tuple(crop) == plan.training.crop:
            break
        plan = replace(plan, training=replace(plan.training, crop=tuple(crop)))
        needed = _need_of_one(plan)
    return plan


def check_fits(plan: Plan, memory_bytes: int) -> None:
    """See that a machine can hold a step of a finished plan.

    Raises:
        UsageError: it cannot; the message names settings with which it could, where there are any.
    """
    needed = need(plan)
    if needed is None or needed.memory_bytes + needed.kept_bytes <= memory_bytes:
        return
    training = plan.training
    if needed.memory_bytes <= memory_bytes:
        raise UsageError(_told_of_crops(training, needed, memory_bytes))
    part = training.batch_size // training.accumulate
    raise UsageError(
        f"{_told(plan.model, needed)}: a step with {part} crops of {training.crop} at once takes "
        f"{gigabytes(needed.memory_bytes)} GB and {gigabytes(memory_bytes)} GB may be used; {_remedy(plan, memory_bytes)}"
    )


def _told_of_crops(training: Training, needed: Need, memory_bytes: int) -> str:
    """That the crops which come again do not fit beside a step, and what to do."""
    count = training.num_crops or 0
    fitting = int(count * (memory_bytes - needed.memory_bytes) / needed.kept_bytes)
    way = "leave training.num_crops out" if fitting < training.batch_size else f"--set training.num_crops={fitting}"
    return (
        f"{count} crops that come again, with what a frozen encoder says of them, take {gigabytes(needed.kept_bytes)} GB "
        f"beside the {gigabytes(needed.memory_bytes)} GB of a step, and {gigabytes(memory_bytes)} GB may be used; keep fewer: "
        f"{way}"
    )


def _remedy(plan: Plan, memory_bytes: int) -> str:
    """What to do about a plan whose steps do not fit."""
    training = plan.training
    for accumulate in range(training.accumulate + 1, training.batch_size + 1):
        if training.batch_size % accumulate == 0:
            parted = need(replace(plan, training=replace(training, accumulate=accumulate)))
            if parted is not None and parted.memory_bytes <= memory_bytes:
                return f"take the batch in more parts: --set training.accumulate={accumulate}"
    return f"plan again with a smaller network, or train where {rounded_up(need_of_one(plan))} GB are free"


def need_of_one(plan: Plan) -> int:
    """The bytes that a step takes which sees one crop at a time."""
    single = _need_of_one(plan)
    return 0 if single is None else single.memory_bytes


def _need_of_one(plan: Plan) -> Need | None:
    """What a step takes which sees one crop at a time; None where that is not known."""
    return need(replace(plan, training=replace(plan.training, accumulate=plan.training.batch_size)))


def _told(network: Any, needed: Need) -> str:
    """A network in a message: its kind, its parameters, and what they take."""
    name = type(network).__module__.rpartition(".")[2]
    count = f"{needed.parameters / 1e9:.3g} billion" if needed.parameters >= 1e9 else f"{needed.parameters / 1e6:.3g} million"
    return f"{name} has {count} parameters, {gigabytes(needed.weight_bytes)} GB while they learn"


def gigabytes(count: int) -> str:
    """A number of bytes in GB, to two digits."""
    return f"{count / GB:.2g}" if count < 100 * GB else f"{count / GB:.0f}"


def rounded_up(count: int) -> str:
    """A number of bytes in GB that is enough when it is granted."""
    step = 10 ** (math.floor(math.log10(max(count, 1) / GB)) - 1)  # two digits
    return f"{math.ceil(count / GB / step) * step:.6g}"
