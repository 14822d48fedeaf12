"""Frozen parts stay as they are, to the bit; frozen encoders are asked for each image once. Axes: B, C, H, W."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from segwright.core.errors import SettingError
from segwright.encoders import resnet
from segwright.models import encoder_unet
from segwright.tasks import Batch
from segwright.training.frozen import forget_answers, freeze, hold, is_asked_once, remember
from segwright.training.learner import Learner, launch
from segwright.training.loop import step, train

SMALL = encoder_unet.Config(
    in_channels=1, num_classes=2, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)), decoder_widths=(16, 8, 8, 8, 8)
)


class Counting(nn.Module):
    """An encoder with two maps, which counts the images that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        self.asked += len(image)
        return [2 * image, image[:, :, ::2, ::2] + 1]


class CountingOne(Counting):
    def last_map(self, image: torch.Tensor) -> torch.Tensor:
        return Counting.forward(self, image)[1]

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [self.last_map(image)]


def batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 1, 64, 64, generator=generator)
    return Batch(["a", "b"], image, torch.randint(2, (2, 64, 64), generator=generator))


def test_what_is_frozen_stays_and_the_rest_learns(tiny_plan):
    training = replace(tiny_plan.training, frozen=("encoder",))
    learner = Learner.new(replace(tiny_plan, model=SMALL, training=training), launch(training))
    before = {name: value.clone() for name, value in learner.network.state_dict().items()}
    for number in range(2):
        step(learner, [batch()], number, 1.0)
    is_same = {name: torch.equal(value, before[name]) for name, value in learner.network.state_dict().items()}
    assert all(same for name, same in is_same.items() if name.startswith("encoder."))
    assert not any(is_same[name] for name, _ in learner.network.named_parameters() if name.startswith("head."))
    assert sum(len(group["params"]) for group in learner.optimiser.param_groups) == sum(
        not name.startswith("encoder.") for name, _ in learner.network.named_parameters()
    )


def test_batch_norms_keep_their_statistics_where_they_are_frozen():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    freeze(network, ["batch_norms"])
    network.train()
    hold(network, ["batch_norms"])
    network(torch.randn(2, 1, 8, 8)).sum().backward()
    assert not network[1].running_mean.any() and network[1].weight.grad is None and network[0].weight.grad is not None


@pytest.mark.parametrize("kind", [Counting, CountingOne])
def test_an_encoder_that_remembers_says_the_same_and_is_asked_once(kind):
    plain, kept = kind(), kind()
    remember(kept)
    first, second = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    for images in (first, first.flip(0), torch.cat([second[:2], first[:1]]), second[[0, 0]]):
        for ours, theirs in zip(kept(images), plain(images), strict=True):
            assert torch.equal(ours, theirs)
    assert kept.asked == 5


@pytest.mark.parametrize("kind", [Counting, CountingOne])
def test_what_is_forgotten_is_asked_again(kind, tiny_plan):
    encoder = kind()
    remember(encoder)
    images = torch.randn(2, 1, 4, 4)
    encoder(images)
    assert forget_answers(encoder) == 2 * 4 * {Counting: 16 + 4, CountingOne: 4}[kind] and forget_answers(encoder) == 0
    encoder(images)
    assert encoder.asked == 4
    training = replace(tiny_plan.training, num_crops=4)
    assert is_asked_once(replace(training, frozen=("encoder",))) and not is_asked_once(training)
    assert not is_asked_once(replace(training, frozen=("encoder",), num_crops=None))


def test_an_image_twice_in_a_batch_and_one_beyond_memory(monkeypatch):
    monkeypatch.setattr("segwright.training.frozen.MOST_BYTES", 0)
    encoder = Counting()
    remember(encoder)
    images = torch.randn(2, 1, 4, 4)
    assert torch.equal(encoder(images[[0, 1, 0]])[0], 2 * images[[0, 1, 0]])
    assert torch.equal(encoder(images)[0], 2 * images) and encoder.asked == 4


def test_a_run_with_a_frozen_encoder_is_the_same_with_and_without_memory(tiny_plan, tmp_path, monkeypatch):
    from segwright.inference.load import load

    training = replace(tiny_plan.training, steps=4, frozen=("encoder",), num_crops=4, crop=(64, 64))
    plan = replace(tiny_plan, model=SMALL, training=training)
    kept = load(train(plan, tmp_path / "kept")).network.state_dict()
    monkeypatch.setattr("segwright.training.learner.remember", lambda encoder: None)
    plain = load(train(plan, tmp_path / "plain")).network.state_dict()
    assert all(torch.allclose(value, plain[name], atol=1e-5) for name, value in kept.items())


def test_parts_that_are_not_there_are_named(tiny_plan):
    network = nn.Sequential()
    network.encoder, network.head = nn.Sequential(nn.Conv2d(1, 1, 1)), nn.Conv2d(1, 1, 1)
    with pytest.raises(SettingError, match="names 'encodr'.*did you mean 'encoder'.*its parts are encoder, head, and"):
        freeze(network, ["encodr"])
    with pytest.raises(SettingError, match="names 'batch_norms', which this network does not have"):
        freeze(network, ["batch_norms"])
    with pytest.raises(SettingError, match="names ''"):
        freeze(network, [""])
    with pytest.raises(SettingError, match="leaves nothing to learn"):
        freeze(network, ["encoder", "head"])
    fresh = nn.Sequential()
    fresh.encoder, fresh.head = nn.Sequential(nn.Conv2d(1, 1, 1)), nn.Conv2d(1, 1, 1)
    freeze(fresh, ["encoder.0"])
    assert [name for name, weight in fresh.named_parameters() if weight.requires_grad] == ["head.weight", "head.bias"]
