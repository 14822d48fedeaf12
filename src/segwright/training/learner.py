"""What learns: a network, the moving average of its weights and its optimiser. Axes: B batch, C channels, *S spatial axes."""

import copy
import os
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from segwright.core.errors import SettingError
from segwright.layers.low_rank import load_plain_state, plain_state
from segwright.plans.plan import Plan, Training
from segwright.training.frozen import ENCODER, freeze, hold, is_asked_once, remember
from segwright.training.low_rank import adapt

CALLED = ("encode", "decode")  # methods of networks that a loss may call beside `forward`, in the precision of the run


@dataclass(frozen=True, eq=False)
class Learner:
    """`network` is the bare module, `parallel` the same under Fabric's precision and gradient exchange, `ema` its average.

    Where low-rank factors learn the average is still a plain network, whose weights follow the sums of both.
    """

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
            network = network.to(memory_format=layout(len(plan.training.crop)))
        if fabric.world_size > 1 and fabric.device.type == "cuda":  # statistics over all processes; torch has it on GPU only
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        freeze(network, plan.training.frozen)
        ema = copy.deepcopy(network).requires_grad_(False).eval()
        adapt(network, plan.training)
        learning = [weight for weight in network.parameters() if weight.requires_grad or not plan.training.frozen]
        parallel, optimiser = fabric.setup(network, plan.optimiser.build(learning))
        if is_asked_once(plan.training):
            remember(network.get_submodule(ENCODER))
        for name in CALLED:
            if hasattr(network, name):
                parallel.mark_forward_method(name)
        return cls(plan, fabric, network, ema, optimiser, parallel)

    def begin_from_average(self) -> None:
        """Give the network the weights of its average, into which those that a run starts from were put."""
        load_plain_state(self.network, self.ema.state_dict())

    def train(self) -> None:
        """Let the network train, but for the parts that are frozen."""
        self.parallel.train()
        hold(self.network, self.plan.training.frozen)

    def set_progress(self, progress: float) -> None:
        """Tell a network that learns otherwise as training goes on what share of it has passed, 0 to 1."""
        tell: Any = getattr(self.network, "set_progress", None)
        if tell is not None:
            tell(progress)

    def share_ema(self) -> None:
        """Give all processes the average of the first: statistics that a process counted by itself differ."""
        if self.fabric.world_size > 1:
            for tensor in self.ema.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Move the average a little towards the network; counters are copied."""
        learnt = plain_state(self.network)
        pairs = [(ours, learnt[name]) for name, ours in self.ema.state_dict().items()]
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


def layout(axes: int) -> torch.memory_format:
    """The memory format with channels innermost, for 2 or 3 spatial axes."""
    return torch.channels_last if axes == 2 else torch.channels_last_3d


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU (where torch raises a plain RuntimeError)."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)
