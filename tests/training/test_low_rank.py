"""What is frozen stays to the bit while factors beside it learn; the model is a plain network. Axes: B, C, H, W."""

import copy
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from segwright.checkpoints.model_file import ModelFile, read_tensors
from segwright.core import Classes
from segwright.core.errors import SettingError
from segwright.core.run_files import MODEL_FILE, STATE_FILE
from segwright.data.splits import open_splits
from segwright.encoders import mit, resnet, sam_vit
from segwright.inference.load import load
from segwright.layers.low_rank import LowRankLinear, plain_state
from segwright.models import sam, sam_nano, segformer
from segwright.tasks import Batch
from segwright.tasks.promptable import Promptable
from segwright.training import loop
from segwright.training.dataloader import CropDataset
from segwright.training.frozen import freeze, is_asked_once
from segwright.training.learner import Learner, launch
from segwright.training.loop import step, train
from segwright.training.low_rank import adapt

SMALL = segformer.Config(
    in_channels=1,
    num_classes=2,
    decoder_width=8,
    encoder=mit.Config(hidden_sizes=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
)
CLICKS = sam.Config(
    in_channels=1, width=32, mlp_width=32, encoder=sam_vit.Config(width=16, depth=2, num_heads=2, global_blocks=(1,))
)


def with_rank(plan, **settings):
    """A plan on SegFormer whose encoder is frozen but for factors."""
    given = {"frozen": ("encoder",), "low_rank": 2, "crop": (32, 64), "ema": 0.0} | settings
    return replace(plan, model=SMALL, training=replace(plan.training, **given))


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(["a", "b"], torch.randn(2, 1, 32, 64, generator=generator), torch.randint(2, (2, 32, 64), generator=generator))


def learner_of(plan) -> Learner:
    return Learner.new(plan, launch(plan.training))


def frozen_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of what is frozen; factors are not."""
    return {name: tensor.detach().clone() for name, tensor in network.named_parameters() if not tensor.requires_grad}


def test_it_begins_where_the_plain_network_does(tiny_plan, batch):
    adapted, plain = learner_of(with_rank(tiny_plan)), learner_of(with_rank(tiny_plan, low_rank=None))
    assert any(isinstance(module, LowRankLinear) for module in adapted.network.modules())
    with torch.no_grad():
        assert torch.equal(adapted.network.eval()(batch.image), plain.network.eval()(batch.image))
        assert torch.equal(adapted.ema(batch.image), plain.ema(batch.image))


@pytest.mark.parametrize(("precision", "parts"), [("32-true", 1), ("bf16-mixed", 2)])
def test_what_is_frozen_stays_and_factors_learn(tiny_plan, batch, precision, parts):
    """In half precision too, and where a batch comes in parts."""
    learner = learner_of(with_rank(tiny_plan, precision=precision, accumulate=parts))
    before = frozen_tensors(learner.network)
    factors = {name: tensor.detach().clone() for name, tensor in learner.network.named_parameters() if name not in before}
    split = [Batch([key], batch.image[[i]], batch.target[[i]]) for i, key in enumerate(batch.keys)] if parts == 2 else [batch]
    for number in range(2):
        step(learner, split, number, 1.0)
    now = dict(learner.network.named_parameters())
    assert any(name.startswith("encoder.") for name in before) and all(torch.equal(now[n], t) for n, t in before.items())
    assert not any(torch.equal(now[name], tensor) for name, tensor in factors.items() if name.startswith("encoder."))
    learning = sum(len(group["params"]) for group in learner.optimiser.param_groups)
    assert learning == len(factors)


def test_the_average_is_a_plain_network_whose_file_says_the_same(tiny_plan, batch, tmp_path):
    """With an average over no more than the last step."""
    learner = learner_of(with_rank(tiny_plan))
    assert learner.ema.state_dict().keys() == SMALL.build().state_dict().keys()
    first = {name: tensor.clone() for name, tensor in learner.ema.state_dict().items()}
    for number in range(3):
        step(learner, [batch], number, 1.0)
    ModelFile(learner.ema.state_dict(), learner.plan, Classes.of(["a", "b"])).write(tmp_path / MODEL_FILE)
    with torch.no_grad():
        trained = learner.network.eval()(batch.image)
        torch.testing.assert_close(learner.ema(batch.image), trained)
        torch.testing.assert_close(load(tmp_path).network.eval()(batch.image), trained)
    changed = {name for name, tensor in learner.ema.state_dict().items() if not torch.equal(tensor, first[name])}
    layers = {name for name, module in learner.ema.encoder.named_modules() if isinstance(module, nn.Linear)}
    assert {name for name in changed if name.startswith("encoder.")} == {f"encoder.{name}.weight" for name in layers}


def test_the_average_looks_back(tiny_plan, batch):
    learner, sums = learner_of(with_rank(tiny_plan)), []
    name = next(n for n in learner.ema.state_dict() if n.endswith("query.weight"))
    for number in range(2):
        step(learner, [batch], number, 1.0)
        sums.append(plain_state(learner.network)[name].clone())
    before = learner.ema.state_dict()[name].clone()
    learner.update_ema(0.75)
    torch.testing.assert_close(learner.ema.state_dict()[name], before.lerp(sums[-1], 0.25))


def test_it_learns_more_than_what_is_not_frozen_alone(tiny_plan, batch):
    """Squares of 8 x 8 pixels by heart, of two images of noise."""
    squares = torch.randint(2, (2, 4, 8), generator=torch.Generator().manual_seed(1))
    batch = batch._replace(target=squares.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2))
    losses = {}
    for rank in (None, 2):
        learner = learner_of(with_rank(tiny_plan, low_rank=rank).with_settings(["optimiser.learning_rate=0.01"]))
        losses[rank] = [step(learner, [batch], number, 1.0)["loss"] for number in range(40)]
    assert losses[2][0] == pytest.approx(losses[None][0], abs=1e-5)
    assert losses[None][-1] < losses[None][0] and losses[2][-1] < 0.9 * losses[None][-1], losses


def test_a_run_ends_with_a_plain_model_and_goes_on_to_the_bit(tiny_plan, tmp_path, monkeypatch):
    """Also from the weights of an earlier run, below the factors; stopped after its first validation."""
    train(with_rank(tiny_plan, low_rank=None, frozen=(), steps=2), tmp_path / "first")
    plan = with_rank(tiny_plan, steps=4, ema=0.5).with_settings([f"init.weights={tmp_path / 'first'}"])
    train(plan, tmp_path / "whole")
    begun = read_tensors(tmp_path / "first" / MODEL_FILE)[0]
    ended = ModelFile.read(tmp_path / "whole" / MODEL_FILE).weights
    state = read_tensors(tmp_path / "whole" / STATE_FILE)[0]
    assert ended.keys() == begun.keys() and load(tmp_path / "whole").network.state_dict().keys() == begun.keys()
    stays = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith("network/encoder.") and not name.endswith((".down", ".up"))
    }
    assert all(torch.equal(t, begun[n.removeprefix("network/").replace(".base.", ".")]) for n, t in stays.items())
    assert len(stays) == sum(name.startswith("encoder.") for name in begun)
    assert any(name.endswith(".up") and tensor.any() for name, tensor in state.items())
    keep = loop.Checkpointer.keep

    def killed(checkpointer, learner, state, progress):
        keep(checkpointer, learner, state, progress)
        if state.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.Checkpointer, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "killed")
    monkeypatch.setattr(loop.Checkpointer, "keep", keep)
    train(plan, tmp_path / "killed", resume=True)
    for file in (MODEL_FILE, STATE_FILE):
        whole, killed = (read_tensors(tmp_path / run / file)[0] for run in ("whole", "killed"))
        assert whole.keys() == killed.keys() and all(torch.equal(tensor, killed[name]) for name, tensor in whole.items())


def test_networks_that_answer_prompts_learn_so(tiny_plan):
    training = replace(with_rank(tiny_plan).training, crop=(32, 48), precision="bf16-mixed")
    plan = replace(tiny_plan, task=Promptable(), model=CLICKS, training=training)
    learner = learner_of(plan)
    crops = CropDataset.of(plan.task.dataset(open_splits(plan.data.train).train), plan)
    for number in range(2):
        step(learner, crops.parts(range(2 * number, 2 * number + 2), 1), number, 1.0)
    assert learner.ema.state_dict().keys() == CLICKS.build().state_dict().keys()
    ups = [weight for name, weight in learner.network.encoder.named_parameters() if name.endswith(".up")]
    assert len(ups) == 2 * 4 and all(weight.any() for weight in ups)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ((), 8),
        (("query_key_value",), 2),
        (("encoder.blocks.1",), 4),
        (("encoder.blocks.0.output", "widen"), 3),
        (("encoder",), 8),
    ],
)
def test_layers_are_named_in_full_by_their_last_name_or_by_a_part(tiny_plan, wanted, count):
    network = CLICKS.build()
    freeze(network, ["encoder"])
    names = adapt(network, replace(with_rank(tiny_plan).training, low_rank_layers=wanted))
    assert len(names) == count == sum(isinstance(module, LowRankLinear) for module in network.modules())
    assert all(name.startswith("encoder.") for name in names)


def test_an_encoder_with_factors_is_not_asked_once(tiny_plan):
    training = replace(with_rank(tiny_plan).training, num_crops=4)
    assert not is_asked_once(training) and is_asked_once(replace(training, low_rank=None))


# Messages, and their remedies


def test_a_name_that_no_layer_has_is_told_with_those_that_there_are(tiny_plan):
    training = replace(with_rank(tiny_plan).training, low_rank_layers=("query_key_valeu",))
    network = CLICKS.build()
    freeze(network, ["encoder"])
    with pytest.raises(
        SettingError,
        match="names 'query_key_valeu', and .*did you mean 'query_key_value'.*called narrow, output, query_key_value, widen, "
        r"the first in full encoder.blocks.0.query_key_value$",
    ):
        adapt(network, training)
    assert adapt(network, replace(training, low_rank_layers=("query_key_value",)))
    with pytest.raises(SettingError, match="names 'decoder'"):  # which is not frozen
        adapt(network, replace(training, low_rank_layers=("decoder",)))


def test_a_rank_beyond_the_sides_of_a_layer_is_told_with_the_most(tiny_plan):
    training = replace(with_rank(tiny_plan).training, low_rank=17)
    network = CLICKS.build()
    freeze(network, ["encoder"])
    with pytest.raises(SettingError, match=r"is 17, and the weight of encoder\.blocks.* is 48 x 16.*--set (\S+),") as caught:
        adapt(copy.deepcopy(network), training)
    most = int(re.search(r"low_rank=(\d+)", str(caught.value))[1])
    assert adapt(network, replace(training, low_rank=most))


def test_where_nothing_frozen_has_a_linear_layer_the_way_is_told(tiny_plan):
    convolutions = sam_nano.Config(
        in_channels=1, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16)
    ).build()
    freeze(convolutions, ["encoder"])
    training = with_rank(tiny_plan).training
    with pytest.raises(
        SettingError, match=r"\(encoder\) has no linear layer.*leave training.low_rank out, or choose a network"
    ):
        adapt(convolutions, training)
    assert adapt(convolutions, replace(training, low_rank=None)) == []
    with pytest.raises(SettingError, match=r"\(batch_norms\) has no linear.*--set 'training.frozen=\[\"encoder\"\]'$"):
        learner_of(with_rank(tiny_plan, frozen=("batch_norms",)))
    assert learner_of(with_rank(tiny_plan).with_settings(['training.frozen=["encoder"]']))


@pytest.mark.parametrize("rank", [0, -3])
def test_a_rank_below_one_is_refused(tiny_plan, rank):
    with pytest.raises(SettingError, match=f"training.low_rank is {rank}; give 1 or more, such as 4"):
        with_rank(tiny_plan, low_rank=rank)
    assert with_rank(tiny_plan, low_rank=4)


def test_a_rank_without_anything_frozen_and_layers_without_a_rank_are_refused(tiny_plan):
    with pytest.raises(SettingError, match=r"training.low_rank is 4, which adds to .*--set 'training.frozen=\[\"encoder\"\]'"):
        tiny_plan.with_settings(["training.low_rank=4"])
    assert tiny_plan.with_settings(["training.low_rank=4", 'training.frozen=["encoder"]']).training.low_rank == 4
    with pytest.raises(
        SettingError, match=r"low_rank_layers is \['query'\], and the rank is missing; add --set training.low_rank=4"
    ):
        with_rank(tiny_plan, low_rank=None, low_rank_layers=("query",))
    assert with_rank(tiny_plan, low_rank=4, low_rank_layers=("query",))
