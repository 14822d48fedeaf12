"""What a run may cost, and what a step of it does cost on this machine. Axes: B batch, C channels, *S spatial axes."""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import psutil
import torch
from torch import nn

from segwright.core.errors import SettingError
from segwright.plans.plan import Plan, Training
from segwright.tasks import Batch
from segwright.training.frozen import ENCODER, MOST_BYTES, forget_answers, is_asked_once
from segwright.training.learner import Learner, is_out_of_memory, launch
from segwright.training.loop import step

MEMORY_SHARE = 0.8  # of what is free when planning starts: the rest is for the data, and for others on the machine
TIMED_STEPS = 2
LONG_STEP_S = 3.0  # a first step that takes longer is repeated once: the seconds that compiling took there are no step's
WEIGHT_COPIES = 5  # weights, gradients, two moments of AdamW, the average
FROZEN_COPIES = 2  # weights and their average
WORKSPACE = 1.5  # of what is kept for the backward pass: gradients on their way, and what convolutions need
# Python, torch and what a first step loads: beside what is told of a step a U-Net took 818 MB of a process on a CPU, flows 810,
# a volume 784, a SegFormer 682 and a Mask R-CNN 618; of their peaks 0.96, 0.96, 0.98, 1.09 and 1.12 were foreseen.
PROGRAM_BYTES = 760 << 20


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a person grants: `minutes` for everything, `memory_gb` for training, on `device` (auto: a GPU if there is one)."""

    minutes: float = 10.0
    memory_gb: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise SettingError(f"minutes is {self.minutes}; give a positive number, for example --minutes 10")
        if self.memory_gb is not None and not 0 < self.memory_gb < float("inf"):
            raise SettingError(f"memory_gb is {self.memory_gb}; give a positive number, or leave it out to use what is free")
        if self.device not in ("auto", "cpu", "cuda"):
            raise SettingError(f"device is '{self.device}'; known are auto, cpu and cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise SettingError("device is 'cuda', but torch finds no GPU here; use --device cpu, or look at nvidia-smi")

    @property
    def chosen_device(self) -> Literal["cpu", "cuda"]:
        """The device that training uses."""
        return "cuda" if self.device == "cuda" or (self.device == "auto" and torch.cuda.is_available()) else "cpu"

    @property
    def memory_bytes(self) -> int:
        """The memory that training may take."""
        if self.memory_gb is not None:
            return int(self.memory_gb * 2**30)
        free = torch.cuda.mem_get_info()[0] if self.chosen_device == "cuda" else psutil.virtual_memory().available
        return int(free * MEMORY_SHARE)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a training step takes: `seconds`, and `memory_bytes` beside the data and the program itself.

    Where crops come again and a frozen encoder is asked once for each, a step of new ones takes `first_seconds` more, and its
    answers take `answer_bytes` for each crop; the crop itself takes `crop_bytes` of the same memory.
    """

    seconds: float
    memory_bytes: int
    first_seconds: float = 0.0
    answer_bytes: int = 0
    crop_bytes: int = 0

    def steps(self, training: Training, seconds: float, crop_seconds: float = 0.0) -> float:
        """How many steps fit into some seconds, if each new crop takes `crop_seconds` to make."""
        first = self.seconds + self.first_seconds + training.batch_size * crop_seconds
        if training.num_crops is None:
            return seconds / first
        filling = training.num_crops / training.batch_size  # steps until all crops have come
        if seconds < filling * first:
            return seconds / first
        return filling + (seconds - filling * first) / self.later_seconds(training)

    def later_seconds(self, training: Training) -> float:
        """What a step takes once all crops have come; the encoder is asked again for those whose answers found no room."""
        if training.num_crops is None:
            return self.seconds
        return self.seconds + self.first_seconds * (1 - min(1.0, MOST_BYTES / max(training.num_crops * self.answer_bytes, 1)))

    def kept_bytes(self, training: Training) -> int:
        """The memory that crops which come again take, with what a frozen encoder says of them."""
        count = training.num_crops or 0
        return count * self.crop_bytes + min(count * self.answer_bytes, MOST_BYTES)


def step_cost(plan: Plan, parts: Sequence[Batch]) -> Cost:
    """The cost of a step of a plan on the parts of a batch, by taking a few after a first; endless if memory runs out."""
    try:
        return _measured(plan, parts)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return Cost(seconds=float("inf"), memory_bytes=sys.maxsize)


def _measured(plan: Plan, parts: Sequence[Batch]) -> Cost:
    """As `step_cost`, where memory suffices."""
    learner = Learner.new(plan, launch(plan.training))
    kept = KeptForBackward()
    started = time.perf_counter()
    with kept.counting():  # of one part, as what is kept for the others takes the same place
        step(learner, parts[:1], 0, 0.0)
    first = len(parts) * (time.perf_counter() - started)
    count, new_seconds = TIMED_STEPS if first <= LONG_STEP_S else 1, 0.0
    is_once = is_asked_once(plan.training)
    if is_once:
        forget_answers(learner.network.get_submodule(ENCODER))
        new_seconds = _timed(learner, parts, 1)
    seconds = _timed(learner, parts, count)
    cost = Cost(seconds=seconds, memory_bytes=int(weight_bytes(learner.network) + WORKSPACE * kept.total))
    if not is_once:
        return cost
    answers = forget_answers(learner.network.get_submodule(ENCODER)) // sum(len(part.keys) for part in parts)
    return replace(cost, first_seconds=max(0.0, new_seconds - seconds), answer_bytes=answers)


def _timed(learner: Learner, parts: Sequence[Batch], count: int) -> float:
    """The seconds of one of so many steps."""
    started = time.perf_counter()
    for number in range(count):
        step(learner, parts, number + 1, 0.0)
    return (time.perf_counter() - started) / count


def weight_bytes(network: nn.Module) -> int:
    """The memory that the weights of a network take while it is trained, less for those that are frozen."""
    return sum((WEIGHT_COPIES if value.requires_grad else FROZEN_COPIES) * value.nbytes for value in network.parameters())


class KeptForBackward:
    """Counts the bytes that a forward pass keeps for its backward pass: nearly all that training takes, on any device.

    What the process as a whole holds tells less: an allocator keeps what an earlier measurement freed.
    """

    def __init__(self) -> None:
        """Nothing is counted yet."""
        self.storages: dict[int, int] = {}

    def counting(self) -> AbstractContextManager:
        """A context in which kept tensors are counted, each storage once."""

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            self.storages[storage._cdata] = storage.nbytes()  # its address, which tensors without numbers have too
            return tensor

        return torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)

    @property
    def total(self) -> int:
        """The bytes that were counted."""
        return sum(self.storages.values())
