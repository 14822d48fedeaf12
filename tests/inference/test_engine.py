import copy
import json
import logging
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from segwright.inference import engine
from segwright.inference.engine import (
    KINDS,
    PLAIN,
    VINO,
    VINO_HALF,
    AutoEngine,
    EngineKind,
    OpenVINOEngine,
    TorchEngine,
    pick_engine,
)
from segwright.inference.engine_cache import EngineCache
from segwright.tasks.semantic import Semantic


class Net(nn.Module):
    """Two classes that differ clearly, at half the size."""

    def __init__(self, axes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[axes - 2]
        self.layers = nn.Sequential(convolution(3, 8, 3, stride=2, padding=1), norm(8), nn.ReLU(), convolution(8, 2, 1))
        self.calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if image.shape[-1] % 2:
            raise ValueError("odd side")
        return self.layers(image)


class Refusing(nn.Module):
    """A network that cannot be traced."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not with me\nat all")
        return torch.cat([image[:, :1], -image[:, :1]], dim=1)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def eager(network: nn.Module, batch: np.ndarray) -> np.ndarray:
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        return network(torch.from_numpy(batch)).numpy()


EXAMPLE = noise(1, 3, 16, 24)
AGREE = Semantic().agreement


class Several(nn.Module):
    """A network of several outputs in a tree: a tensor, and two in a dict, one of them of whole numbers."""

    def forward(self, image: torch.Tensor) -> tuple:
        return image.mean(dim=1), {"sum": image.sum(dim=(2, 3)), "winner": image.flatten(1).argmax(dim=1)}


# By hand: each engine says what float32 eager says


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("axes", [2, 3])
def test_all_engines_agree(name, axes):
    network, batch = Net(axes).eval(), noise(2, 3, *(8, 16, 24)[-axes:])
    (found,), wanted = KINDS[name].make(network, "cpu", None)(batch), eager(network, batch)
    assert found.dtype == np.float32 and found.shape == wanted.shape and found.flags.c_contiguous
    np.testing.assert_allclose(found, wanted, atol=0.05 if "bfloat16" in name else 1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_all_engines_give_all_outputs_in_order(name):
    mean, total, winner = KINDS[name].make(Several().eval(), "cpu", None)(EXAMPLE)
    np.testing.assert_allclose(mean, EXAMPLE.mean(axis=1), atol=0.02)
    np.testing.assert_allclose(total, EXAMPLE.sum(axis=(2, 3)), atol=1)
    assert winner.tolist() == [EXAMPLE.argmax()] and winner.dtype.kind == "i"


@pytest.mark.parametrize("name", KINDS)
def test_the_network_stays_as_it_is(name):
    network = Net().train()
    network.layers[2].eval()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    KINDS[name].make(network, "cpu", None)(EXAMPLE)
    assert [module.training for module in network.layers] == [True, True, False, True] and network.training
    assert all((weights[name] == value).all() for name, value in network.state_dict().items())
    assert network.layers[0].weight.is_contiguous() and next(network.parameters()).requires_grad


def test_the_ends_of_a_network_stay_in_float32():
    torch.manual_seed(0)
    deep = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(10)]).eval()
    seen: dict[int, torch.dtype] = {}
    halves = TorchEngine(deep, bfloat16=True, float32_ends=True)
    for number, layer in enumerate(halves.network):
        layer.register_forward_hook(lambda _, __, out, number=number: seen.update({number: out.dtype}))
    found = halves(EXAMPLE)[0]
    assert [number for number, dtype in seen.items() if dtype == torch.float32] == [0, 1, 2, 3, 4, 8, 9]
    assert all("forward" not in vars(layer) for layer in deep)  # the caller's network stays as it is
    exact, half = eager(deep, EXAMPLE), TorchEngine(deep, bfloat16=True)(EXAMPLE)[0]
    assert np.abs(found - exact).mean() < np.abs(half - exact).mean()


@pytest.mark.parametrize("ends", [False, True])
def test_a_copy_of_a_network_holds_those_weights_alone_that_are_arranged_anew(ends):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(2), nn.Linear(6, 4)).eval()
    run = TorchEngine(network, channels_last=True, bfloat16=True, float32_ends=ends)
    run(noise(1, 3, 4, 5))
    own, theirs = network.state_dict(), run.network.state_dict()
    assert {name for name in own if own[name].data_ptr() != theirs[name].data_ptr()} == {"0.weight"}
    assert theirs["0.weight"].is_contiguous(memory_format=torch.channels_last) and own["0.weight"].is_contiguous()
    assert all("forward" not in vars(layer) for layer in network)


def test_openvino_gets_no_group_norms_of_its_own():
    """Its operation for them may end the process inside a residual block."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.Conv2d(8, 2, 1)).eval()
    nn.init.normal_(network[1].weight)
    found = OpenVINOEngine(network)
    assert np.allclose(found(EXAMPLE)[0], eager(network, EXAMPLE), atol=1e-5)
    assert "GroupNormalization" not in {operation.get_type_name() for operation in found.model.get_ops()}
    assert type(network[1]) is nn.GroupNorm  # the caller's stays as it is


def test_openvino_takes_one_shape_after_the_other():
    network = Net().eval()
    run = OpenVINOEngine(network)
    for shape in [(16, 24), (8, 8), (32, 16), (8, 24), (64, 8), (16, 24)]:
        batch = noise(1, 3, *shape, seed=sum(shape))
        np.testing.assert_allclose(run(batch)[0], eager(network, batch), atol=1e-5)
    assert len(run.requests) == engine.COMPILED_SHAPES


def test_openvino_starts_from_what_was_kept(tmp_path):
    first = OpenVINOEngine(Net().eval(), folder=tmp_path)(EXAMPLE)[0].copy()
    untouched = Net().eval()
    (found,) = OpenVINOEngine(untouched, folder=tmp_path)(EXAMPLE)
    assert untouched.calls == 0
    np.testing.assert_array_equal(found, first)


# The choice


class Slow:
    """An engine that waits."""

    def __init__(self, wait_s: float, sign: float = 1.0) -> None:
        self.run, self.wait_s, self.sign, self.calls = TorchEngine(Net().eval()), wait_s, sign, 0

    def __call__(self, batch: np.ndarray) -> tuple[np.ndarray, ...]:
        self.calls += 1
        time.sleep(self.wait_s)
        return tuple(self.sign * output for output in self.run(batch))


def test_the_fastest_is_picked_and_remembered(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(engine, "TorchEngine", lambda network, device: Slow(0.1))
    kinds = [
        EngineKind("slow", lambda *_: Slow(0.2)),
        EngineKind("fast", lambda *_: Slow(0.001)),
        EngineKind("middle", lambda *_: Slow(0.05)),
    ]
    monkeypatch.setattr(engine, "candidates", lambda device: kinds)
    network = Net().eval()
    assert pick_engine(network, AGREE, EXAMPLE).wait_s == 0.001
    fact = json.loads(json.dumps(EngineCache.of(network).recall()["1x3x16x24"]))
    assert fact["engine"] == "fast" and list(fact["found"]) == [PLAIN.name, "slow", "fast", "middle"]
    assert "engine for 1x3x16x24: fast (torch float32: 1" in caplog.text


@pytest.mark.parametrize(("seconds", "chosen"), [(0.9, PLAIN.name), (0.81, PLAIN.name), (0.79, VINO.name)])
def test_an_engine_that_is_hardly_faster_is_not_worth_its_memory(monkeypatch, seconds, chosen):
    monkeypatch.setattr(engine, "candidates", lambda device: [EngineKind(VINO.name, lambda *_: Slow(0))])
    monkeypatch.setattr(engine, "race", lambda engines, example: {PLAIN.name: 1.0, VINO.name: seconds})
    network = Net().eval()
    found = pick_engine(network, AGREE, EXAMPLE)
    assert isinstance(found, TorchEngine) == (chosen == PLAIN.name)
    assert EngineCache.of(network).recall()["1x3x16x24"]["engine"] == chosen


def test_an_engine_with_other_labels_is_out(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(engine, "candidates", lambda device: [EngineKind("wrong", lambda *_: Slow(0, sign=-1.0))])
    assert isinstance(pick_engine(Net().eval(), AGREE, EXAMPLE), TorchEngine)
    assert "wrong: out, 0.00 % agrees" in caplog.text


def test_an_engine_that_cannot_run_the_network_is_out(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(engine, "candidates", lambda device: [VINO])
    assert isinstance(pick_engine(Refusing(), AGREE, EXAMPLE), TorchEngine)
    assert "openvino float32: cannot run it (" in caplog.text


def test_hopeless_engines_leave_the_race(monkeypatch):
    now = [0.0]  # a clock that only these engines move: a busy machine would slow one of two that are alike
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    engines = {"fast": Slow(0.001), "close": Slow(0.001), "slow": Slow(0.1)}
    seconds = engine.race(engines, EXAMPLE)
    assert engines["fast"].calls == engine.TURNS and engines["slow"].calls == 2
    assert seconds["slow"] >= 0.1 > seconds["fast"]


def test_a_race_ends(monkeypatch):
    monkeypatch.setattr(engine, "RACE_S", 0.0)
    engines = {"a": Slow(0.001), "b": Slow(0.001)}
    engine.race(engines, EXAMPLE)
    assert [run.calls for run in engines.values()] == [1, 1]


def test_the_real_choice_has_the_right_labels():
    network = Net().eval()
    found = pick_engine(network, AGREE, EXAMPLE)(EXAMPLE)
    assert AGREE(found, (eager(network, EXAMPLE),), (16, 24)) >= engine.AGREEMENT


# When to choose


def test_a_few_images_are_not_worth_a_choice(empty_cache):
    network = Net().eval()
    auto = AutoEngine(network, AGREE)
    for seed in range(5):
        batch = noise(1, 3, 16, 24, seed=seed)
        np.testing.assert_allclose(auto(batch)[0], eager(network, batch), atol=1e-5)
    assert auto.picked is None and not list(empty_cache.rglob("*.json"))


def test_many_images_ahead_are(monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE_S", 1.0)
    auto = AutoEngine(Net().eval(), AGREE)
    auto.ahead = 10**6
    auto(EXAMPLE)
    assert auto.picked is not None and auto.engines == {EXAMPLE.shape: auto.picked}


def test_what_an_earlier_run_picked_is_used_at_once():
    network = Net().eval()
    EngineCache.of(network).remember("1x3x16x24", {"engine": VINO.name})
    auto = AutoEngine(network, AGREE)
    np.testing.assert_allclose(auto(EXAMPLE)[0], eager(network, EXAMPLE), atol=1e-5)
    assert isinstance(auto.picked, OpenVINOEngine)


@pytest.mark.parametrize("fact", [{"engine": "from another version"}, {}, "text", None, {"engine": ["x"]}])
def test_what_is_not_understood_is_passed_over(fact):
    network = Net().eval()
    EngineCache.of(network).remember("1x3x16x24", fact)
    np.testing.assert_allclose(AutoEngine(network, AGREE)(EXAMPLE)[0], eager(network, EXAMPLE), atol=1e-5)


def test_a_damaged_cache_falls_back_to_pytorch(caplog):
    network = Net().eval()
    cache = EngineCache.of(network)
    cache.remember("1x3x16x24", {"engine": VINO_HALF.name})
    (cache.folder / "network.xml").write_text("<xml")
    auto = AutoEngine(network, AGREE)
    for _ in range(2):
        np.testing.assert_allclose(auto(EXAMPLE)[0], eager(network, EXAMPLE), atol=1e-5)
    assert "going on with PyTorch" in caplog.text


def test_other_shapes_get_the_same_engine_once_they_repeat(monkeypatch):
    network = Net().eval()
    EngineCache.of(network).remember("1x3x16x24", {"engine": VINO.name})
    auto = AutoEngine(network, AGREE)
    auto(EXAMPLE)
    other = noise(1, 3, 32, 8)
    for count in range(4):
        np.testing.assert_allclose(auto(other)[0], eager(network, other), atol=1e-5)
        assert (other.shape in auto.engines) == (count >= 1)
    assert auto.engines[other.shape] is auto.picked


def test_an_engine_that_fails_at_another_shape_is_not_used_for_it():
    network = Net().eval()
    auto = AutoEngine(network, AGREE)
    auto.picked = lambda batch: (np.zeros((1, 2, 3, 3), np.float32),)  # the wrong labels
    for _ in range(3):
        np.testing.assert_allclose(auto(EXAMPLE)[0], eager(network, EXAMPLE), atol=1e-5)
    assert auto.engines[EXAMPLE.shape] is auto.plain


# By its messages


def test_the_error_of_the_network_reaches_the_caller():
    auto = AutoEngine(Net().eval(), AGREE)
    with pytest.raises(ValueError, match="odd side"):
        auto(noise(1, 3, 16, 23))
