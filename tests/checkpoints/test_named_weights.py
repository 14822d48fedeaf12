"""A name becomes tensors: of a run, of a file, of published weights."""

import pytest
import torch
from safetensors.torch import save_file

from segwright.checkpoints import published_files
from segwright.checkpoints.model_file import ModelFile
from segwright.checkpoints.named_weights import named_weights
from segwright.core import Classes
from segwright.core.errors import FormatError, UnknownNameError, UsageError

TENSORS = {"a": torch.ones(2)}


@pytest.fixture
def run(tiny_plan, tmp_path):
    (tmp_path / "run").mkdir()
    ModelFile(TENSORS, tiny_plan, Classes.of(["x", "y"])).write(tmp_path / "run" / "model.safetensors")
    return tmp_path / "run"


def test_a_run_and_its_file(run):
    for place in (run, run / "model.safetensors"):
        found = named_weights(str(place))
        assert found.tensors.keys() == TENSORS.keys() and found.classes.names == ("x", "y") and found.source == str(place)


def test_a_file_of_others(tmp_path):
    torch.save(TENSORS, tmp_path / "a.pth")
    save_file(TENSORS, tmp_path / "model.safetensors")
    for place in (tmp_path / "a.pth", tmp_path / "model.safetensors", tmp_path):
        found = named_weights(str(place))
        assert torch.equal(found.tensors["a"], TENSORS["a"]) and found.classes is None and found.facts is None


def test_published_weights(caches):
    folder = published_files.weights_folder()
    folder.mkdir(parents=True)
    torch.save(TENSORS, folder / "mit_b0_imagenet.bin")
    found = named_weights("mit_b0_imagenet")
    assert found.facts.preset == "mit_b0" and found.source == "mit_b0_imagenet" and list(found.tensors) == ["a"]
    torch.save(TENSORS, folder / "me--net.bin")
    assert list(named_weights("hf:me/net").tensors) == ["a"]


def test_what_is_not_there_is_told(caches, run, tmp_path):
    with pytest.raises(UsageError, match="the weights segformer_b0_ade20k are not on this machine; add --online"):
        named_weights("segformer_b0_ade20k")
    with pytest.raises(UsageError, match="the weights hf:me/net are not on this machine"):
        named_weights("hf:me/net")
    with pytest.raises(UnknownNameError, match="there are no weights 'segformer_b0_ade', did you mean 'segformer_b0_ade20k'"):
        named_weights("segformer_b0_ade")
    with pytest.raises(UnknownNameError, match="its weights are segformer_b0_ade20k or segformer_b0_cityscapes; give one"):
        named_weights("segformer_b0")
    for name in ("nothing.pth", "nothing/here"):
        with pytest.raises(FormatError, match=f"cannot read {name}"):
            named_weights(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="cannot read .*model.safetensors .*; give a run's folder or a file of weights"):
        named_weights(str(tmp_path / "empty"))


def test_a_run_of_ones_own_network_opens_only_where_that_is_allowed(run, tiny_plan, monkeypatch):
    text = tiny_plan.to_toml().replace('kind = "unet"', 'kind = "segwright.models.unet"')
    monkeypatch.setattr(type(tiny_plan), "to_toml", lambda plan: text)
    ModelFile(TENSORS, tiny_plan, Classes.of(["x", "y"])).write(run / "model.safetensors")
    with pytest.raises(UsageError, match="a module outside segwright"):
        named_weights(str(run))
    assert named_weights(str(run), own_modules=True).classes.names == ("x", "y")
