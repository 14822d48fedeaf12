"""Training starts from other weights, all of them, and says what is not as it was there."""

from dataclasses import replace

import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import FormatError, SettingError, UsageError
from segwright.encoders import mit, timm
from segwright.models import segformer
from segwright.plans.plan import Init
from segwright.training.init import initialise
from segwright.training.loop import train
from segwright.training.run_dir import read_log


@pytest.fixture
def earlier(tiny_plan, tmp_path):
    torch.manual_seed(1)
    network = tiny_plan.model.build()
    ModelFile(network.state_dict(), tiny_plan, Classes.of(["a", "b"])).write(tmp_path / "model.safetensors")
    return network


def test_all_weights_of_the_same_network_are_taken(earlier, tiny_plan, tmp_path):
    network = tiny_plan.model.build()
    for place in (tmp_path, tmp_path / "model.safetensors"):
        assert initialise(network, Init(weights=str(place))) == []
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), earlier.parameters(), strict=True))


def test_a_head_for_other_classes_stays_random_when_asked_and_is_named(earlier, tiny_plan, tmp_path):
    network = replace(tiny_plan.model, num_classes=5).build()
    head = network.head.weight.clone()
    with pytest.raises(SettingError, match=r"head.weight \(2 -> 5 classes\), .*--new-head"):
        initialise(network, Init(weights=str(tmp_path)))
    said = ["started anew: head.weight (2 -> 5 classes), head.bias (2 -> 5 classes)"]
    assert initialise(network, Init(weights=str(tmp_path), new_head=True)) == said
    assert torch.equal(network.head.weight, head) and torch.equal(network.encoder[0][0].weight, earlier.encoder[0][0].weight)


def test_published_weights_and_files_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    theirs = mit.Config().build().state_dict()
    (tmp_path / "segwright" / "weights").mkdir(parents=True)
    torch.save(theirs, tmp_path / "segwright" / "weights" / "mit_b0_imagenet.bin")
    network = segformer.Config(num_classes=3).build()
    (said,) = initialise(network, Init(weights="mit_b0_imagenet"))
    assert said.startswith("the encoder alone is in the file; random: decoder.project.0.weight")
    assert torch.equal(network.encoder.stages[3].norm.bias, theirs["stages.3.norm.bias"])
    with pytest.raises(UsageError, match="segformer_b0_ade20k are not on this machine; add --online"):
        initialise(network, Init(weights="segformer_b0_ade20k"))


def test_without_a_name_nothing_happens(tiny_plan):
    torch.manual_seed(0)
    network = tiny_plan.model.build()
    before = [value.clone() for value in network.parameters()]
    assert initialise(network, Init()) == []
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_a_run_starts_from_them_and_says_so(earlier, tiny_plan, tmp_path):
    plan = tiny_plan.with_settings([f"init.weights={tmp_path}", "optimiser.learning_rate=1e-9"])
    train(plan, tmp_path / "run")
    assert read_log(tmp_path / "run")[0]["event"] == f"weights from {tmp_path}, all of them"
    weights = ModelFile.read(tmp_path / "run" / "model.safetensors").weights
    torch.testing.assert_close(weights["head.weight"], earlier.head.weight.detach(), rtol=0, atol=1e-6)


def test_a_run_says_what_it_started_anew(earlier, tiny_plan, tmp_path):
    train(tiny_plan.with_settings([f"init.weights={tmp_path}", "init.new_head=true"]), tmp_path / "run")
    event = read_log(tmp_path / "run")[0]["event"]
    assert event == f"weights from {tmp_path}; started anew: head.weight (2 -> 2 classes), head.bias (2 -> 2 classes)"


def test_a_plan_for_fetching_asks_nobody_unless_online(tiny_plan, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("segwright.training.loop.initialise", lambda *_, online, **__: asked.append(online) or [])
    for online in (False, True):
        train(tiny_plan, tmp_path / f"run{online}", online=online)
    assert asked == [False, True]


@pytest.mark.parametrize("channels", [3, 4])
def test_the_encoder_of_timm_gets_timms_weights(monkeypatch, channels):
    config = segformer.Config(encoder=timm.Config(name="resnet10t"), num_classes=3, decoder_width=8, in_channels=channels)
    network = config.build()
    theirs = {name: torch.full_like(tensor, 2) for name, tensor in network.encoder.state_dict().items()}
    asked = []
    monkeypatch.setattr(timm, "fetch", lambda encoder, *, online: asked.append(online) or theirs)
    *adapted, random = initialise(network, Init(weights="timm"), online=True)
    assert asked == [True] and random.startswith("the encoder alone is in the file; random: decoder.project.0.weight")
    assert adapted == ([] if channels == 3 else ["adapted: encoder.network.conv1.0.weight (3 -> 4 channels)"])
    assert all((value == 2).all() for value in network.encoder.parameters())


def test_weights_that_do_not_fit_are_refused(earlier, tiny_plan, tmp_path):
    with pytest.raises(FormatError, match="is not of this network: none of its names, such as .*, is the network's"):
        initialise(torch.nn.Linear(2, 2), Init(weights=str(tmp_path)))
    with pytest.raises(FormatError, match="does not fit this network: .* tensors of the network are missing: "):
        initialise(replace(tiny_plan.model, depth=tiny_plan.model.depth + 1).build(), Init(weights=str(tmp_path)))
    with pytest.raises(UsageError, match='init.weights is "timm", and the encoder of this network is none of timm'):
        initialise(tiny_plan.model.build(), Init(weights="timm"))
    with pytest.raises(FormatError, match="cannot read"):
        initialise(tiny_plan.model.build(), Init(weights=str(tmp_path / "nothing")))
