"""Weights of others come out of their files by name, whatever they are wrapped in, and nothing in them is run."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segwright.checkpoints.foreign_weights import read_state_dict
from segwright.core.errors import FormatError

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, 2.0]), "count": torch.tensor(7)}


class Runs:
    """Makes a file that calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def check(found, wanted=TENSORS):
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


# By hand


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    found = read_state_dict(tmp_path / "a.safetensors")
    check({name: found[name] for name in TENSORS})


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "pytorch_model.bin", "a.pkl"])
@pytest.mark.parametrize("is_archive", [True, False])
def test_torch(tmp_path, name, is_archive):
    torch.save(OrderedDict(TENSORS), tmp_path / name, _use_new_zipfile_serialization=is_archive)
    check(read_state_dict(tmp_path / name))


def test_pickle_as_detectron2_writes_it(tmp_path):
    content = {
        "model": {name: tensor.numpy() for name, tensor in TENSORS.items()},
        "__author__": "x",
        "matching_heuristics": True,
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, 2))
    check(read_state_dict(tmp_path / "a.pkl"))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda tensors: {"state_dict": tensors, "epoch": 3, "best": np.float64(0.5), "meta": {"names": ["a"]}},
        lambda tensors: {"model": tensors, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda tensors: {"model_state": tensors},
        lambda tensors: {"network_weights": tensors, "init_args": {"fold": 0}, "logging": {"dice": [np.float32(0.1)]}},
        lambda tensors: {"model": {"state_dict": tensors}},
        lambda tensors: {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}},
        lambda tensors: {f"module._orig_mod.{name}": nn.Parameter(tensor, False) for name, tensor in tensors.items()},
    ],
)
def test_envelopes_are_taken_off(tmp_path, wrapped):
    torch.save(wrapped(TENSORS), tmp_path / "a.pth")
    check(read_state_dict(tmp_path / "a.pth"))


def test_a_prefix_of_some_names_alone_is_none(tmp_path):
    tensors = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(tensors, tmp_path / "a.pth")
    check(read_state_dict(tmp_path / "a.pth"), tensors)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_large_file_stays_on_disk(tmp_path, suffix):
    psutil = pytest.importorskip("psutil")
    big, path = {"a": torch.zeros(25_000_000)}, tmp_path / f"a{suffix}"  # 100 MB
    save_file(big, path) if suffix == ".safetensors" else torch.save(big, path)
    del big
    process = psutil.Process()
    before = process.memory_info()
    found = read_state_dict(path)
    after = process.memory_info()
    assert (after.rss - after.shared) - (before.rss - before.shared) < 20e6 and found["a"].shape == (25_000_000,)


# By its messages


@pytest.mark.parametrize("function", [(os.system, "touch ran"), (eval, "open('ran', 'w')"), (exec, "open('ran', 'w')")])
@pytest.mark.parametrize("nested", [lambda bomb: bomb, lambda bomb: {"state_dict": {**TENSORS, "b": [bomb]}}])
@pytest.mark.parametrize("kind", ["pth", "old.pth", "pkl", "bin"])
def test_a_malicious_file_is_refused_and_does_not_run(tmp_path, monkeypatch, function, nested, kind):
    monkeypatch.chdir(tmp_path)
    path, content = tmp_path / f"a.{kind}", nested(Runs(*function))
    if kind in ("pth", "old.pth"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "pth")
    else:
        if isinstance(content, dict):
            content["state_dict"] = {
                name: getattr(tensor, "numpy", lambda t=tensor: t)() for name, tensor in content["state_dict"].items()
            }
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(
        FormatError, match=r"holds (posix|nt|builtins|eval|exec)[\w.]*, which may be a program; .* nothing was run"
    ):
        read_state_dict(path)
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{kind}"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "is empty; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "only points to the weights .*git lfs pull"),
        (
            b"<!DOCTYPE html><html><title>Sign in</title></html>",
            "is a web page and no weights, perhaps one that asks to log in",
        ),
        (b"\n  <html>", "is a web page"),
        (b'{"error": "not found"}', "begins with .*, as no file of weights does"),
        (b"cos\nsystem\n(S'touch ran'\ntR.", "begins with .*, as no file of weights does"),
    ],
)
def test_what_is_no_file_of_weights_is_told(tmp_path, head, message):
    (tmp_path / "a.pth").write_bytes(head)
    with pytest.raises(FormatError, match=message):
        read_state_dict(tmp_path / "a.pth")


@pytest.mark.parametrize("kind", ["safetensors", "pth", "old.pth", "pkl"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_file_is_told(tmp_path, kind, share):
    path = tmp_path / f"a.{kind}"
    tensors = {f"layer{i}": torch.randn(50) for i in range(20)}
    if kind == "safetensors":
        save_file(tensors, path)
    elif kind == "pkl":
        path.write_bytes(pickle.dumps({name: tensor.numpy() for name, tensor in tensors.items()}))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "pth")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(
        FormatError, match="cannot be read .*; it is cut short, damaged or no file of weights: download or save"
    ):
        read_state_dict(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FormatError, match="cannot read .*nothing.pth .*; give a run's folder or a file of weights"):
        read_state_dict(tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "holds a list and no tensors by name; save network.state_dict"),
        ({"epoch": 3, "weights": TENSORS}, "should hold tensors by name, .* and holds 'epoch', 'weights'; save its state dict"),
        ({"state_dict": {}}, "and holds nothing"),
        ({1: torch.ones(1)}, "and holds 1;"),
    ],
)
def test_a_file_without_a_state_dict_is_told(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(FormatError, match=message):
        read_state_dict(tmp_path / "a.pth")


def test_a_whole_network_is_refused(tmp_path):
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "a.pth")
    with pytest.raises(FormatError, match="holds torch.nn.modules.conv.Conv2d, which may be a program; .*its tensors alone"):
        read_state_dict(tmp_path / "a.pth")
