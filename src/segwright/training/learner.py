"""What learns: a network, the moving average of its weights and its optimiser. Axes: B batch, C channels, *S spatial axes."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn

from segwright.core.errors import SettingError
from segwright.plans import Plan, Training
from segwright.tasks.semantic import Semantic
from segwright.training.batches import Batch
from segwright.training.schedule import average_decay
from segwright.training.state import State

CLIP_NORM = 1.0  # longer gradients are shortened: one odd batch must not undo a run
WEIGHT_DECAY = 0.01  # AdamW's own default


@dataclass(frozen=True, eq=False)
class Learner:
    """`network` is the bare module, `parallel` the same under Fabric's precision and gradient exchange."""

    plan: Plan
    fabric: Fabric
    task: Semantic
    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    parallel: nn.Module

    @classmethod
    def new(cls, plan: Plan, fabric: Fabric) -> "Learner":
        """A learner with fresh weights that depend on the plan's seed alone."""
        torch.manual_seed(plan.training.seed)
        network = plan.model.build().to(fabric.device)
        if plan.training.channels_last:
            network = network.to(memory_format=channels_last(len(plan.training.crop)))
        if (
            fabric.world_size > 1 and fabric.device.type == "cuda"
        ):  # batch statistics over all processes; torch has it on GPU only
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        average = copy.deepcopy(network).requires_grad_(False).eval()
        optimiser = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
        parallel, optimiser = fabric.setup(network, optimiser)
        return cls(plan, fabric, Semantic(plan.loss), network, average, optimiser, parallel)

    def restore(self, run: Path) -> State:
        """Take back what a run saved last, and return where it stood."""
        return State.read(run, self)

    def step(self, batch: Batch, step: int, learning_rate: float) -> float:
        """One step of gradient descent on a batch; the loss, averaged over all processes."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        torch.manual_seed(self.plan.training.seed + step)  # what dropout draws depends on the step alone
        image, target = self.fabric.to_device((batch.image, batch.target))
        if self.plan.training.channels_last:
            image = image.contiguous(memory_format=channels_last(image.ndim - 2))
        self.parallel.train()
        loss = self.task.loss(self.parallel(image), target)
        self.fabric.backward(loss)
        self.fabric.clip_gradients(self.parallel, self.optimiser, max_norm=CLIP_NORM, error_if_nonfinite=False)
        value = torch.as_tensor(self.fabric.all_reduce(loss.detach())).item()
        if value == value and abs(value) != float("inf"):  # weights stay good when the loss is not
            self.optimiser.step()
            self.follow(average_decay(step, self.plan.training.steps))
        self.optimiser.zero_grad(set_to_none=True)
        return value

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average a little towards the network; counters are copied."""
        pairs = list(zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True))
        weights = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
        torch._foreach_lerp_([ours for ours, _ in weights], [theirs for _, theirs in weights], 1 - decay)
        for ours, theirs in pairs:
            if not ours.is_floating_point():
                ours.copy_(theirs)


def launch(training: Training) -> Fabric:
    """The device, precision and processes of a run; under torchrun, all its processes.

    Raises:
        SettingError: there is no such device, or the batch cannot be shared evenly.
    """
    if training.device == "cuda" and not torch.cuda.is_available():
        raise SettingError(
            "the plan was made for a GPU and this machine has none; plan again, or add --set training.device=cpu"
        )
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=training.device,
        devices=processes,
        num_nodes=int(os.environ.get("WORLD_SIZE", processes)) // processes,
        strategy="ddp" if "LOCAL_WORLD_SIZE" in os.environ else "auto",
        precision=training.precision,
    )
    fabric.launch()
    if training.batch_size % fabric.world_size:
        raise SettingError(
            f"a batch of {training.batch_size} cannot be shared by {fabric.world_size} processes; "
            f"add --set training.batch_size={-(-training.batch_size // fabric.world_size) * fabric.world_size}"
        )
    return fabric


def channels_last(axes: int) -> torch.memory_format:
    """The memory format with channels innermost, for 2 or 3 spatial axes."""
    return torch.channels_last if axes == 2 else torch.channels_last_3d


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU (where torch raises a plain RuntimeError)."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
