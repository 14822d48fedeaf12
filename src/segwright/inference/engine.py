"""Engines: the ways to run a network, and the choice between them by timing.

An engine takes images float32 (B, C, *S) and gives a tuple of the network's outputs, each with B in front, all numpy and valid
until its next call. What outputs mean, and how far those of two engines agree, the task says.
Axes: B batch, C channels, *S spatial axes of the image.
"""

import copy
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segwright.decoding.run import Engine, Outputs
from segwright.inference.engine_cache import EngineCache
from segwright.inference.openvino_model import openvino_model
from segwright.inference.quiet_openvino import cpu_knows_bfloat16, quiet_openvino

log = logging.getLogger(__name__)

Agreement = Callable[[Outputs, Outputs, tuple[int, ...]], float]  # of a task: outputs, reference, shape of the images

AGREEMENT = 0.999  # of what float32 eager says, such as the class of each pixel, an engine must say too, or it is out
PATIENCE_S = 3.0  # half of what it takes to convert a network and try all engines: the choice serves later runs too
TURNS = 5  # timed runs of each engine, of which the fastest counts: what else the machine does only ever adds time
HOPELESS = 1.5  # an engine that much slower than the best after two turns gets no third
# Times as fast as plain PyTorch that an engine has to be, for it takes more memory: OpenVINO holds most weights once more, as
# its kernels read them. Mask2Former on Swin-T took 1479 ms there and 1657 ms in PyTorch, both in float32.
WORTH = 1.25
RACE_S = 10.0  # after that the turn is the last; runs that long tell enough
COMPILED_SHAPES = 4  # OpenVINO networks kept ready, each with weights of its own
# Convolutions at either end, in the order in which they run, where rounding to 8 bits does most harm. With them in float32 the
# labels of a DeepLabV3 on ResNet-50 agreed on 99.97 % instead of 99.85 %, and one image took 865 ms instead of 812 (2963 all in
# float32, one core). With the first alone, or without the last two, it were 99.89 % and 99.92 %.
FIRST_CONVOLUTIONS, LAST_CONVOLUTIONS = 5, 2


class TorchEngine:
    """PyTorch on one device, channels first or last, in float32 or with bfloat16 where autocast finds it safe.

    With `float32_ends` the first and the last convolutions, to which rounding does most harm, stay in float32.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str | None = None,
        *,
        channels_last: bool = False,
        bfloat16: bool = False,
        float32_ends: bool = False,
    ) -> None:
        parameter = next(network.parameters(), torch.empty(0))
        device = device or parameter.device.type  # where the network lies
        if channels_last or float32_ends or parameter.device.type != device:
            network = _copied(network, device, _arranged if channels_last else _as_it_is)  # the caller's stays as it is
        self.network, self.device, self.channels_last, self.bfloat16 = network, device, channels_last, bfloat16
        self.ends_to_find = float32_ends

    def __call__(self, batch: np.ndarray) -> Outputs:
        """The outputs for images float32 (B, C, *S)."""
        images = torch.from_numpy(batch).to(self.device)
        images = _arranged(images) if self.channels_last else images
        if self.ends_to_find:
            order = _convolutions_in_order(self.network, lambda: self._outputs(images))
            for module in {*order[:FIRST_CONVOLUTIONS], *order[-LAST_CONVOLUTIONS:]}:
                vars(module)["forward"] = _in_float32(module.forward, self.device)
            self.ends_to_find = False
        outputs = self._outputs(images)
        return tuple((each.float() if each.is_floating_point() else each).cpu().contiguous().numpy() for each in outputs)

    def _outputs(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the network gives in evaluation, whether it is being trained or not."""
        in_training = [module for module in self.network.modules() if module.training]
        self.network.eval()
        try:
            # Without autocast's cache a weight is in half where it is used, and not all of them until the run ends.
            half = torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False)
            with torch.inference_mode(), half:
                return tensors_of(self.network(images))
        finally:
            for module in in_training:
                module.training = True


def _copied(network: nn.Module, device: str, arranged: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """A network of the same weights on a device; those that are there, and arranged as they should be, it shares."""
    tensors: dict[int, torch.Tensor] = {}  # by the id of what they stand for, as `deepcopy` wants them
    for weight in network.parameters():
        tensors[id(weight)] = nn.Parameter(arranged(weight.detach().to(device)), requires_grad=weight.requires_grad)
    for buffer in network.buffers():
        tensors[id(buffer)] = buffer.to(device)
    return copy.deepcopy(network, tensors)


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor."""
    return tensor


def _convolutions_in_order(network: nn.Module, run: Callable[[], Any]) -> list[nn.Module]:
    """The convolutions of a network in the order in which a run calls them."""
    order: list[nn.Module] = []
    kernels = [module for module in network.modules() if getattr(getattr(module, "weight", None), "ndim", 0) >= 4]
    hooks = [module.register_forward_hook(lambda each, *_: order.append(each)) for module in kernels]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return order


def _in_float32(forward: Callable[[torch.Tensor], torch.Tensor], device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A layer's forward that computes in float32 whatever autocast does around it."""

    def whole(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device, enabled=False):
            return forward(x.float())

    return whole


def tensors_of(outputs: Any) -> tuple[torch.Tensor, ...]:
    """What a network returns as a flat tuple: a tensor alone, or those in a tuple, a list, a dict or a dataclass, in order."""
    if isinstance(outputs, torch.Tensor):
        return (outputs,)
    if is_dataclass(outputs):
        outputs = [getattr(outputs, part.name) for part in fields(outputs)]
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs if isinstance(outputs, list | tuple) else ()
    return tuple(tensor for part in parts for tensor in tensors_of(part))


class _Flat(nn.Module):
    """A network whose outputs are a flat tuple, as a compiler wants them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = False  # it does nothing by itself

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tensors_of(self.network(image))


def _arranged(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of 4 or 5 axes with its channels innermost in memory; others as they are."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=layouts[tensor.ndim]) if tensor.ndim in layouts else tensor


class OpenVINOEngine:
    """OpenVINO on the CPU: the network compiled for each shape of images, in float32 or bfloat16.

    Fixed shapes run up to twice as fast as a network compiled for any shape, and compiling takes a fraction of a second. What
    was converted, which takes many, is kept in `folder`, if there is one, so that the next process starts at once. OpenVINO's
    own store of what was compiled is left alone: it saves no time here, and costs as much memory as the weights.
    """

    def __init__(self, network: nn.Module, *, bfloat16: bool = False, folder: Path | None = None) -> None:
        self.network, self.bfloat16, self.folder = _Flat(network), bfloat16, folder
        self.core = quiet_openvino().Core()
        self.settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",  # one image after the other, with all threads on each
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self.model: Any = None  # the network in OpenVINO's form, for any shape
        self.requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()  # compiled, by shape, used last at the end

    def __call__(self, batch: np.ndarray) -> Outputs:
        """The outputs for images float32 (B, C, *S)."""
        if batch.shape not in self.requests:
            self.model = self.model or openvino_model(self.network, batch, bfloat16=self.bfloat16, folder=self.folder)
            self.model.reshape(list(batch.shape))
            compiled = self.core.compile_model(self.model, "CPU", self.settings)
            self.requests[batch.shape] = compiled.create_infer_request()
            if len(self.requests) > COMPILED_SHAPES:
                self.requests.popitem(last=False)
        self.requests.move_to_end(batch.shape)
        found = self.requests[batch.shape].infer({0: np.ascontiguousarray(batch)}, share_inputs=True, share_outputs=True)
        return tuple(found[number] for number in range(len(found)))


@dataclass(frozen=True)
class EngineKind:
    """One way to run a network, by a name that is remembered."""

    name: str
    make: Callable[[nn.Module, str, Path | None], Engine]


PLAIN = EngineKind("torch float32", lambda network, device, _: TorchEngine(network, device))
LAST = EngineKind("torch float32 channels-last", lambda network, device, _: TorchEngine(network, device, channels_last=True))
HALF = EngineKind(
    "torch bfloat16 channels-last", lambda network, device, _: TorchEngine(network, device, channels_last=True, bfloat16=True)
)
HALF_BETWEEN = EngineKind(
    "torch bfloat16 between float32 ends",
    lambda network, device, _: TorchEngine(network, device, channels_last=True, bfloat16=True, float32_ends=True),
)
VINO = EngineKind("openvino float32", lambda network, _, folder: OpenVINOEngine(network, folder=folder))
VINO_HALF = EngineKind("openvino bfloat16", lambda network, _, folder: OpenVINOEngine(network, bfloat16=True, folder=folder))
KINDS = {kind.name: kind for kind in (PLAIN, LAST, HALF, HALF_BETWEEN, VINO, VINO_HALF)}


def candidates(device: str) -> list[EngineKind]:
    """What may beat plain PyTorch on a device, the likeliest first, so that the others are given up early."""
    if device != "cpu":
        return [HALF, HALF_BETWEEN, LAST]
    return [VINO_HALF, VINO, HALF, HALF_BETWEEN, LAST] if cpu_knows_bfloat16() else [VINO, LAST]


def pick_engine(
    network: nn.Module,
    agreement: Agreement,
    example: np.ndarray,
    cache: EngineCache | None = None,
    *,
    least: float = AGREEMENT,
) -> Engine:
    """The fastest engine for images of the shape of `example`, float32 (1, C, *S), whose outputs on it are right.

    Where none is `WORTH` times as fast as plain PyTorch, that is taken, which needs the least memory. Right means that they
    agree with those of float32 PyTorch by `least` at least. What fails, or cannot run the network, is out. The choice is
    remembered for this network, this shape and this machine.
    """
    cache = cache or EngineCache.of(network)
    device = _fastest_device()
    plain = TorchEngine(network, device)
    reference = _kept(plain(example))
    engines: dict[str, Engine] = {PLAIN.name: plain}
    found: dict[str, str] = {}
    for kind in candidates(device):
        try:
            engine = kind.make(network, device, cache.folder)
            share = agreement(engine(example), reference, example.shape[2:])
        except Exception as error:  # a compiler may fail on a network in any way; plain PyTorch has just run it
            found[kind.name] = f"cannot run it ({_first_line(error)})"
            continue
        if share >= least:
            engines[kind.name] = engine
        else:
            found[kind.name] = f"out, {100 * share:.2f} % agrees"
    seconds = race(engines, example)
    fastest = min(seconds, key=lambda name: seconds[name])
    chosen = fastest if WORTH * seconds[fastest] <= seconds[PLAIN.name] else PLAIN.name
    found |= {name: f"{1000 * took:.1f} ms" for name, took in seconds.items()}
    log.info("engine for %s: %s (%s)", _name_of(example.shape), chosen, "; ".join(f"{k}: {v}" for k, v in found.items()))
    cache.remember(_name_of(example.shape), {"engine": chosen, "found": found})
    return engines[chosen]


def _fastest_device() -> str:
    """The graphics card if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _kept(outputs: Outputs) -> Outputs:
    """Outputs that outlive the next call of their engine."""
    return tuple(output.copy() for output in outputs)


def race(engines: dict[str, Engine], example: np.ndarray) -> dict[str, float]:
    """Seconds of the fastest run of each engine. They take turns, so that what else the machine does strikes all alike."""
    fastest = dict.fromkeys(engines, np.inf)
    running = list(engines)
    start = time.perf_counter()
    for turn in range(TURNS):
        for name in running:
            begin = time.perf_counter()
            engines[name](example)
            fastest[name] = min(fastest[name], time.perf_counter() - begin)
        if turn > 0:
            running = [name for name in running if fastest[name] <= HOPELESS * min(fastest.values())]
        if len(running) == 1 or time.perf_counter() - start > RACE_S:
            break
    return fastest


def _name_of(shape: tuple[int, ...]) -> str:
    """A shape as a key of the memory, such as "1x3x512x512"."""
    return "x".join(map(str, shape))


def _first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class AutoEngine:
    """The engine of one network, picked once that pays.

    A choice remembered from an earlier run is used at once. Else plain PyTorch answers until it has taken as long as picking
    takes, or until so many images are known to lie ahead (`ahead`) that it would. On a graphics card picking takes a second,
    and is done at once. Other shapes then get the engine that was picked for the first, from their second image on and if
    their labels agree too. The network must not be trained any further meanwhile.

    `least` is the agreement that is asked for, and `patience_s` half of what picking takes, `PATIENCE_S` for most networks.
    """

    def __init__(
        self, network: nn.Module, agreement: Agreement, *, least: float = AGREEMENT, patience_s: float | None = None
    ) -> None:
        self.least, self.patience_s = least, patience_s
        self.network, self.agreement, self.ahead, self.spent_s = network, agreement, 0, 0.0
        self.plain = TorchEngine(network, _fastest_device())
        self.picked: Engine | None = None  # for the shape that came first
        self.engines: dict[tuple[int, ...], Engine] = {}
        self.recalled: dict[str, Engine] = {}  # by kind
        self.seen: set[tuple[int, ...]] = set()

    @property
    def device(self) -> str:
        """Where the network runs."""
        return self.plain.device

    def __call__(self, batch: np.ndarray) -> Outputs:
        """The outputs for images float32 (B, C, *S)."""
        shape = batch.shape
        if shape not in self.engines and shape not in self.seen:
            self.recall(shape)
        if shape in self.engines:
            return self.answer(batch)
        start = time.perf_counter()
        outputs = self.plain(batch)
        took = time.perf_counter() - start
        self.spent_s += took
        if self.picked is not None and shape in self.seen:
            self.engines[shape] = self.confirmed(self.picked, batch, outputs)
        elif self.picked is None and (self.device != "cpu" or self.spent_s + took * self.ahead > self.patience()):
            self.engines[shape] = self.picked = pick_engine(self.network, self.agreement, batch, self.cache, least=self.least)
        self.seen.add(shape)
        return outputs

    def patience(self) -> float:
        """How many seconds PyTorch may take before an engine is picked."""
        return PATIENCE_S if self.patience_s is None else self.patience_s

    @cached_property
    def cache(self) -> EngineCache:
        """What is known of the network; looked up when it is first run, since that reads all weights."""
        return EngineCache.of(self.network)

    def recall(self, shape: tuple[int, ...]) -> None:
        """Take the engine that an earlier run picked for this shape."""
        fact = self.cache.recall().get(_name_of(shape))
        kind = KINDS.get(str(fact.get("engine"))) if isinstance(fact, dict) else None
        if kind is not None:
            if kind.name not in self.recalled:
                self.recalled[kind.name] = kind.make(self.network, self.device, self.cache.folder)
            self.engines[shape] = self.recalled[kind.name]
            self.picked = self.picked or self.engines[shape]

    def answer(self, batch: np.ndarray) -> Outputs:
        """The outputs of the engine for this shape, or of PyTorch from now on if that engine fails."""
        engine = self.engines[batch.shape]
        try:
            return engine(batch)
        except Exception as error:  # what was kept may be damaged; if the images are at fault, PyTorch says so
            log.warning("the engine for %s fails (%s); going on with PyTorch", _name_of(batch.shape), _first_line(error))
            self.engines[batch.shape] = self.plain
            return self.plain(batch)

    def confirmed(self, picked: Engine, batch: np.ndarray, reference: Outputs) -> Engine:
        """The engine picked for another shape if its outputs agree with those of PyTorch on this one, else PyTorch."""
        reference = _kept(reference)
        try:
            share = self.agreement(picked(batch), reference, batch.shape[2:])
        except Exception as error:  # traced for another shape, it may not fit this one
            log.info("the engine for other shapes cannot run %s (%s)", _name_of(batch.shape), _first_line(error))
            return self.plain
        return picked if share >= self.least else self.plain
