"""Golden arrays: what the authors' code put out, for weights and inputs that a rule makes from their names alone."""

import json
import math
import re
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "golden"
MANIFESTS = Path(__file__).parents[3] / "shared" / "parity" / "manifests"


def drawn(text: str, shape: list[int]) -> np.ndarray:
    """Normal numbers that depend on a text alone; numpy keeps this generator's stream as it is."""
    return np.asarray(np.random.RandomState(zlib.crc32(text.encode())).standard_normal(tuple(shape)), np.float64)


def made_weight(key: str, shape: list[int], seed: int, scales: dict[str, float]) -> Tensor:
    """The tensor that the rule of the golden files makes for a name and a shape."""
    values = drawn(f"{seed}:{key}", shape)
    if key.endswith("running_var"):
        values = 1 + 0.5 * abs(values)
    elif key.endswith(("running_mean", "bias")):
        values = 0.1 * values
    elif len(shape) <= 1:
        values = 1 + 0.1 * values
    elif shape[0] == 1:
        values = 0.2 * values
    else:
        values = (1.2 if len(shape) >= 4 else 1.0) * values / math.sqrt(max(1, math.prod(shape[1:])))
    for pattern, factor in scales.items():
        values = values * factor if re.search(pattern, key) else values
    return torch.from_numpy(np.ascontiguousarray(values, np.float32).reshape(shape))


class Golden:
    """One golden file by its name: its config, the weights under the authors' names, its inputs, and its outputs to equal."""

    def __init__(self, name: str) -> None:
        self.meta = json.loads((GOLDEN / f"{name}.json").read_text())
        self.arrays = load_file(GOLDEN / f"{name}.safetensors")
        self.config = self.meta["config"]

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The authors' state dict."""
        if self.meta["weights"] == "stored":
            return {key[2:]: tensor for key, tensor in self.arrays.items() if key.startswith("w/")}
        recipe, counters = self.meta["recipe"], self.meta["weight_int_keys"]
        return {
            key: torch.zeros(shape, dtype=torch.int64)
            if key in counters
            else made_weight(key, shape, recipe["seed"], recipe["scales"])
            for key, shape in self.meta["weight_shapes"].items()
        }

    def input(self, name: str) -> Tensor:
        """An input; one that is not stored is drawn by the rule."""
        if f"in/{name}" in self.arrays:
            return self.arrays[f"in/{name}"]
        facts = self.meta["inputs"][name]
        assert facts["not_stored_make_with"].startswith("recipe.randn("), facts
        return torch.from_numpy(drawn(f"{self.meta['recipe']['seed']}:in:{name}", facts["shape"]).astype(np.float32))

    def check(self, depth: str, ours: Tensor) -> None:
        """See that an output equals the authors': exactly enough in float64, within the stated tolerance in float32.

        The authors' ran in float32, so that float64 may differ by as much as theirs did from their own in float64.
        """
        facts = self.meta["outputs"][depth]
        assert list(ours.shape) == facts["shape"], (depth, ours.shape)
        limits = self.meta["tolerance"][depth]
        if ours.dtype == torch.float64:
            limits = {"atol": 2 * facts["f32_vs_f64_maxdiff"], "rtol": 1e-7}
        wanted = self.arrays.get(f"out/{depth}")
        got = ours.reshape(-1)[:: facts["stride"]] if wanted is None else ours
        wanted = self.arrays[f"out/{depth}@sample"] if wanted is None else wanted
        torch.testing.assert_close(got, wanted.to(ours.dtype), msg=lambda text: f"{depth}: {text}", **limits)


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def manifest():
    """The names and shapes of a published file's tensors, as empty tensors; from ../shared, which may be absent."""

    def read(name: str) -> dict[str, Tensor]:
        if not MANIFESTS.exists():
            pytest.skip("the lists of published tensors lie in ../shared/parity, which is not part of the repository")
        facts = json.loads((MANIFESTS / f"{name}.json").read_text())
        others = {key: getattr(torch, kind) for key, kind in facts.get("dtypes_not_float32", {}).items()}
        return {
            key: torch.empty(shape, dtype=others.get(key, torch.float32), device="meta")
            for key, shape in facts["tensors"].items()
        }

    return read
