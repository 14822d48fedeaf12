"""A step changes the weights as AdamW does, and nothing where the loss is lost."""

from dataclasses import replace

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.training.batches import Batch
from segwright.training.learner import Learner, is_out_of_memory, launch


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(["a"], torch.randn(2, 1, 32, 48, generator=generator), torch.randint(2, (2, 32, 48), generator=generator))


def test_the_weights_depend_on_the_seed_alone(tiny_plan):
    first, second = (Learner.new(tiny_plan, launch(tiny_plan.training)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True))


def test_the_average_follows_the_network(tiny_plan, batch):
    learner = Learner.new(tiny_plan, launch(tiny_plan.training))
    start = [value.clone() for value in learner.network.parameters()]
    learner.step(batch, 0, 1e-2)
    for before, average, now in zip(start, learner.average.parameters(), learner.network.parameters(), strict=True):
        torch.testing.assert_close(average, before.lerp(now.detach(), 1.0))  # 8 steps: the average looks back over one


def test_a_lost_loss_leaves_the_weights(tiny_plan, batch):
    learner = Learner.new(tiny_plan, launch(tiny_plan.training))
    start = [value.clone() for value in learner.network.parameters()]
    batch.image[0, 0, 0, 0] = float("nan")
    assert not abs(learner.step(batch, 0, 1e-2)) < float("inf")
    assert all(torch.equal(a, b) for a, b in zip(start, learner.network.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_each_precision_and_layout_learns(tiny_plan, batch, precision, channels_last):
    training = replace(tiny_plan.training, precision=precision, channels_last=channels_last)
    learner = Learner.new(replace(tiny_plan, training=training), launch(training))
    losses = [learner.step(batch, step, 1e-2) for step in range(8)]
    assert losses[-1] < losses[0]


def test_a_missing_gpu_is_named(tiny_plan):
    if torch.cuda.is_available():
        pytest.skip("says what happens where there is no GPU")
    with pytest.raises(SettingError, match="the plan was made for a GPU"):
        launch(replace(tiny_plan.training, device="cuda"))


def test_what_out_of_memory_looks_like():
    assert is_out_of_memory(torch.OutOfMemoryError("x")) and is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))
