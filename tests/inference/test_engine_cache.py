import os

import pytest
import torch
from torch import nn

from segwright.inference import engine_cache
from segwright.inference.engine_cache import FILE, EngineCache, network_digest


def network(seed: int = 0, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 1))


# By hand


def test_what_is_remembered_is_recalled(empty_cache):
    found = EngineCache.of(network())
    assert found.recall() == {}
    found.remember("1x1x8x8", {"engine": "a"})
    found.remember("1x1x9x9", {"engine": "b"})
    assert EngineCache.of(network()).recall() == {"1x1x8x8": {"engine": "a"}, "1x1x9x9": {"engine": "b"}}
    assert [path.name for path in found.folder.iterdir()] == [FILE]
    assert found.folder.parent == empty_cache


def test_another_network_has_another_memory():
    EngineCache.of(network()).remember("a", {})
    assert EngineCache.of(network(seed=1)).recall() == {}


# By a law


def test_the_fingerprint_changes_with_weights_layers_and_nothing_else():
    first = network_digest(network())
    assert first == network_digest(network())
    assert first != network_digest(network(seed=1))
    assert first != network_digest(network(width=4))
    assert first != network_digest(nn.Sequential(*network(), nn.Identity()))


def test_the_fingerprint_changes_with_the_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x{}\n"
    (tmp_path / "net_of_a_user.py").write_text(source.format(""))
    import net_of_a_user

    before = network_digest(net_of_a_user.Net())
    assert before == network_digest(net_of_a_user.Net())
    (tmp_path / "net_of_a_user.py").write_text(source.format(" + 1"))
    assert before != network_digest(net_of_a_user.Net())


def test_half_precision_and_integer_weights_have_a_fingerprint():
    assert network_digest(network().bfloat16()) != network_digest(network())
    assert network_digest(nn.BatchNorm2d(3)) == network_digest(nn.BatchNorm2d(3))  # it counts its batches in an integer


def test_the_networks_used_longest_ago_go_when_all_grow_large(empty_cache, monkeypatch):
    folders = []
    for seed in range(4):
        folders.append(EngineCache.of(network(seed)).folder)
        (folders[-1] / "network.bin").write_bytes(bytes(1000))
        os.utime(folders[-1], (seed + 10, seed + 10))
    weights = folders[-1].parent / "weights" / "net.pth"  # not of this cache, and older than all
    weights.parent.mkdir()
    weights.write_bytes(bytes(5000))
    os.utime(weights.parent, (1, 1))
    monkeypatch.setattr(engine_cache, "MAX_BYTES", 2500)
    EngineCache.of(network(0))  # the oldest, now in use again
    assert [folder.exists() for folder in folders] == [True, False, False, True]
    assert weights.exists()


# By its failures: a memory that is lost costs time and nothing else


@pytest.mark.parametrize("damage", ["", "{", "[1, 2]", "\0\0"])
def test_a_damaged_file_is_an_empty_one(damage):
    found = EngineCache.of(network())
    found.remember("a", {"engine": "x"})
    (found.folder / FILE).write_text(damage)
    assert found.recall() == {}
    found.remember("b", {"engine": "y"})
    assert found.recall() == {"b": {"engine": "y"}}


def test_a_place_that_cannot_be_written_is_no_error(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "file").write_text("not a folder")
    found = EngineCache.of(network(), tmp_path / "file")
    found.remember("a", {})
    assert found.folder is None and found.recall() == {}
    assert "nothing is remembered between runs" in caplog.text
