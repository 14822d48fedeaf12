"""Training starts from other weights, and says which it did not find."""

from dataclasses import replace

import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import FormatError, UsageError
from segwright.encoders import timm
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


def test_a_head_for_other_classes_stays_random_and_is_named(earlier, tiny_plan, tmp_path):
    network = replace(tiny_plan.model, num_classes=5).build()
    head = network.head.weight.clone()
    assert initialise(network, Init(weights=str(tmp_path))) == ["head.weight", "head.bias"]
    assert torch.equal(network.head.weight, head) and torch.equal(network.encoder[0][0].weight, earlier.encoder[0][0].weight)


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


def test_the_encoder_of_timm_gets_timms_weights(monkeypatch):
    network = segformer.Config(encoder=timm.Config(name="resnet10t"), num_classes=3, decoder_width=8).build()
    theirs = {name: torch.full_like(tensor, 2) for name, tensor in network.encoder.state_dict().items()}
    monkeypatch.setattr(timm, "fetch", lambda encoder: theirs)
    random = initialise(network, Init(weights="timm"))
    assert random and all(name.startswith("decoder.") for name in random)
    assert all((value == 2).all() for value in network.encoder.parameters())


def test_weights_that_do_not_fit_are_refused(earlier, tiny_plan, tmp_path):
    with pytest.raises(UsageError, match="hold nothing of this network's names and shapes; start from a run of the same"):
        initialise(torch.nn.Linear(2, 2), Init(weights=str(tmp_path)))
    with pytest.raises(UsageError, match='init.weights is "timm", and the encoder of this network is none of timm'):
        initialise(tiny_plan.model.build(), Init(weights="timm"))
    with pytest.raises(FormatError, match="cannot read"):
        initialise(tiny_plan.model.build(), Init(weights=str(tmp_path / "nothing")))
