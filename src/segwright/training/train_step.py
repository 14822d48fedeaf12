"""What learns: a network, the moving average of its weights and its optimiser. Axes: B batch, C channels, *S spatial axes."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from segwright.core.errors import SettingError
from segwright.plans.plan import Plan, Training
from segwright.tasks import Batch


@dataclass(frozen=True, eq=False)
class Learner:
    """`network` is the bare module, `parallel` the same under Fabric's precision and gradient exchange, `ema` its average."""

    plan: Plan
    fabric: Fabric
    network: nn.Module
    ema: nn.Module
    optimiser: torch.optim.Optimizer
    parallel: Any

    @classmethod
    def new(cls, plan: Plan, fabric: Fabric) -> "Learner":
        """A learner with fresh weights that depend on the plan's seed alone."""
        torch.manual_seed(plan.training.seed)
        network = plan.model.build().to(fabric.device)
        if plan.training.channels_last:
            network = network.to(memory_format=channels_last(len(plan.training.crop)))
        if fabric.world_size > 1 and fabric.device.type == "cuda":  # statistics over all processes; torch has it on GPU only
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        ema = copy.deepcopy(network).requires_grad_(False).eval()
        parallel, optimiser = fabric.setup(network, plan.optimiser.build(network.parameters()))
        return cls(plan, fabric, network, ema, optimiser, parallel)

    def step(self, parts: Sequence[Batch], step: int, rate: float) -> dict[str, float]:
        """One step of gradient descent on the parts of a batch, at a share `rate` of the peak learning rate.

        Returns the terms of the loss by name, averaged over the parts and over all processes.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate * self.plan.optimiser.learning_rate
        torch.manual_seed(self.plan.training.seed + step)  # what dropout draws depends on the step alone
        generator = torch.Generator(self.fabric.device).manual_seed(self.plan.training.seed + step)
        self.parallel.train()
        sums: dict[str, torch.Tensor] = {}
        for number, part in enumerate(parts):
            with self.fabric.no_backward_sync(self.parallel, enabled=number + 1 < len(parts)):
                for name, term in self.backward(part, generator, len(parts)).items():
                    sums[name] = sums[name] + term if name in sums else term
        self.fabric.clip_gradients(
            self.parallel, self.optimiser, max_norm=self.plan.training.clip_norm, error_if_nonfinite=False
        )
        values = torch.stack([*sums.values(), torch.stack([*sums.values()]).sum()])
        *terms, total = torch.as_tensor(self.fabric.all_reduce(values)).tolist()
        if -float("inf") < total < float("inf"):  # weights stay good when the loss is not
            self.optimiser.step()
            self.update_ema(ema_decay(step, self.plan.training))
        self.optimiser.zero_grad(set_to_none=True)
        return dict(zip(sums, terms, strict=True))

    def backward(self, batch: Batch, generator: torch.Generator, parts: int) -> dict[str, torch.Tensor]:
        """Add to the gradients what one of several parts of a batch says; its share of each term of the loss."""
        batch = self.fabric.to_device(batch)
        if self.plan.training.channels_last:
            image = batch.image.contiguous(memory_format=channels_last(batch.image.ndim - 2))
            batch = batch._replace(image=image)
        terms = dict(self.plan.task.loss(self.parallel, batch, generator))
        if parts > 1:
            terms = {name: term / parts for name, term in terms.items()}
        first, *others = terms.values()
        self.fabric.backward(sum(others, first))
        return {name: term.detach().float() for name, term in terms.items()}

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Move the average a little towards the network; counters are copied."""
        pairs = list(zip(self.ema.state_dict().values(), self.network.state_dict().values(), strict=True))
        weights = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
        torch._foreach_lerp_([ours for ours, _ in weights], [theirs for _, theirs in weights], 1 - decay)
        for ours, theirs in pairs:
            if not ours.is_floating_point():
                ours.copy_(theirs)


def ema_decay(step: int, training: Training) -> float:
    """Decay of the weights' moving average at a step: it looks back over a share of the run, less at the start."""
    horizon = max(1.0, training.ema * training.steps)
    return min(1 - 1 / horizon, (1 + step) / (10 + step))


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
    pieces = fabric.world_size * training.accumulate
    if training.batch_size % pieces:
        raise SettingError(
            f"a batch of {training.batch_size} cannot be shared by {fabric.world_size} processes, {training.accumulate} times "
            f"each; add --set training.batch_size={-(-training.batch_size // pieces) * pieces}"
        )
    return fabric


def channels_last(axes: int) -> torch.memory_format:
    """The memory format with channels innermost, for 2 or 3 spatial axes."""
    return torch.channels_last if axes == 2 else torch.channels_last_3d


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU (where torch raises a plain RuntimeError)."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
