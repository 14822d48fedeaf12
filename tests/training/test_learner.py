"""A step changes the weights as AdamW does, and nothing where the loss is lost."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.models import preset
from segwright.tasks import Batch
from segwright.training.learner import Learner, ema_decay, is_out_of_memory, launch
from segwright.training.loop import step


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
    step(learner, [batch], 0, 1.0)
    for before, average, now in zip(start, learner.ema.parameters(), learner.network.parameters(), strict=True):
        torch.testing.assert_close(average, before.lerp(now.detach(), 1.0))  # 8 steps: the average looks back over one


def test_a_lost_loss_leaves_the_weights(tiny_plan, batch):
    learner = Learner.new(tiny_plan, launch(tiny_plan.training))
    start = [value.clone() for value in learner.network.parameters()]
    batch.image[0, 0, 0, 0] = float("nan")
    assert not abs(step(learner, [batch], 0, 1.0)["loss"]) < float("inf")
    assert all(torch.equal(a, b) for a, b in zip(start, learner.network.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_each_precision_and_layout_learns(tiny_plan, batch, precision, channels_last):
    training = replace(tiny_plan.training, precision=precision, channels_last=channels_last)
    learner = Learner.new(replace(tiny_plan, training=training), launch(training))
    losses = [step(learner, [batch], number, 1.0)["loss"] for number in range(8)]
    assert losses[-1] < losses[0]


def test_a_network_that_asks_for_it_is_told_how_far_training_is(tiny_plan):
    learner, told = Learner.new(tiny_plan, launch(tiny_plan.training)), []
    learner.set_progress(0.25)  # that of the plan does not ask
    learner.network.set_progress = told.append
    learner.set_progress(0.5)
    assert told == [0.5]


def test_what_is_no_weight_is_copied_to_the_average():
    """Mixed, blocks of EoMT would go on masking long after their time."""
    network = preset("eomt_tiny").build()
    learner = Learner(None, None, network, copy.deepcopy(network), None, None)
    learner.set_progress(1.0)
    assert learner.ema.is_masked.all()
    learner.update_ema(0.99)
    assert not learner.ema.is_masked.any()


def test_a_missing_gpu_is_named(tiny_plan):
    if torch.cuda.is_available():
        pytest.skip("says what happens where there is no GPU")
    with pytest.raises(SettingError, match="the plan was made for a GPU"):
        launch(replace(tiny_plan.training, device="cuda"))


def test_a_batch_that_cannot_be_shared_is_named(tiny_plan, monkeypatch):
    monkeypatch.setattr("segwright.training.learner.Fabric", lambda **_: SimpleNamespace(launch=lambda: None, world_size=3))
    with pytest.raises(SettingError, match="a batch of 2 cannot be shared by 3 processes, 1 times each; .*batch_size=3"):
        launch(tiny_plan.training)
    launch(replace(tiny_plan.training, batch_size=3))


def test_what_out_of_memory_looks_like():
    assert is_out_of_memory(torch.OutOfMemoryError("x")) and is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_a_step_is_that_of_torch(tiny_plan, batch):
    """Twenty lines of plain PyTorch take the same steps, to the last bit."""
    learner = Learner.new(tiny_plan, launch(tiny_plan.training))
    network = copy.deepcopy(learner.network).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    average = [value.clone() for value in network.state_dict().values()]
    for number in range(3):
        losses = step(learner, [batch], number, 0.5)
        optimiser.param_groups[0]["lr"] = 0.5 * 1e-3
        torch.manual_seed(number)
        logits = network(batch.image)
        loss = tiny_plan.task.criterion(logits, batch.target)
        assert losses == {"loss": pytest.approx(torch.nn.functional.cross_entropy(logits, batch.target).item())}
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        decay = ema_decay(number, tiny_plan.training)
        for ours, now in zip(average, network.state_dict().values(), strict=True):
            ours.copy_(ours.lerp(now, 1 - decay) if now.is_floating_point() else now)
    assert all(torch.equal(a, b) for a, b in zip(learner.network.parameters(), network.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(learner.ema.state_dict().values(), average, strict=True))


def test_parts_of_a_batch_step_as_the_whole(tiny_plan):
    """With instance normalisation, so that no statistic reaches over the batch; what is left is the order of sums."""
    plan = replace(tiny_plan, model=replace(tiny_plan.model, norm="instance"))
    generator = torch.Generator().manual_seed(0)
    image, target = torch.randn(4, 1, 32, 48, generator=generator), torch.randint(2, (4, 32, 48), generator=generator)
    parts = [Batch(["a", "b"], image[n : n + 2], target[n : n + 2]) for n in (0, 2)]
    one, two = (Learner.new(plan, launch(plan.training)) for _ in range(2))
    for number in range(3):
        whole = step(one, [Batch(["a", "b", "c", "d"], image, target)], number, 1.0)
        assert step(two, parts, number, 1.0)["loss"] == pytest.approx(whole["loss"], rel=1e-4)
    for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("setting", ["optimiser.kind=sgd", "schedule.kind=poly", "training.ema=0", "training.clip_norm=12"])
def test_other_recipes_learn(tiny_plan, batch, setting):
    plan = tiny_plan.with_settings([setting])
    learner = Learner.new(plan, launch(plan.training))
    losses = [step(learner, [batch], number, plan.schedule(number / 8))["loss"] for number in range(8)]
    assert losses[-1] < losses[0]
    if setting == "training.ema=0":
        assert all(torch.equal(a, b) for a, b in zip(learner.network.parameters(), learner.ema.parameters(), strict=True))


def test_each_term_of_the_loss_is_told(tiny_plan, batch):
    plan = tiny_plan.with_settings(["task.criterion.kind=weighted_sum"])
    terms = step(Learner.new(plan, launch(plan.training)), [batch], 0, 1.0)
    assert list(terms) == ["cross_entropy", "dice"] and all(value > 0 for value in terms.values())


def test_the_average_forgets_the_start_and_then_looks_back_over_two_per_cent(tiny_plan):
    long, short = (replace(tiny_plan.training, steps=steps) for steps in (1000, 10))
    assert ema_decay(0, long) == pytest.approx(0.1)
    assert ema_decay(999, long) == pytest.approx(1 - 1 / 20)
    assert ema_decay(5, short) == 0  # of ten steps, the last alone
