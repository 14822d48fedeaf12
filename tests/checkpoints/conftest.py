"""Lists of what published files hold, and a folder for the caches in which they are looked for."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

MANIFESTS = Path(__file__).parents[3] / "shared" / "parity" / "manifests"


@pytest.fixture
def manifest():
    """The names and shapes of a published file's tensors, as empty tensors; from ../shared, which may be absent."""

    def read(name: str) -> dict[str, Tensor]:
        if not MANIFESTS.exists():
            pytest.skip("the lists of published tensors lie in ../shared/parity, which is not part of the repository")
        facts = json.loads((MANIFESTS / f"{name}.json").read_text())
        return {key: torch.empty(shape, device="meta") for key, shape in facts["tensors"].items()}

    return read


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    """An empty folder that all caches lie in: cache, torch and hub."""
    from huggingface_hub import constants

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path
