"""What a step takes is told before it is tried, and a network that a machine cannot hold is refused with remedies that work."""

import re
from dataclasses import dataclass, replace

import psutil
import pytest
import torch
from torch import nn

from segwright.core.errors import UsageError
from segwright.data.splits import open_splits
from segwright.encoders import resnet
from segwright.models import encoder_unet, nnunet, segformer, unet
from segwright.planning.budget import WEIGHT_COPIES, step_cost
from segwright.planning.memory import GB, check_fits, gigabytes, need, need_of_one, rounded_up, shortened, within
from segwright.plans.plan import Inference
from segwright.training.dataloader import CropDataset

HUGE = unet.Config(in_channels=1, num_classes=2, width=1024, max_width=2**16, depth=6)  # that no machine would survive


@dataclass(frozen=True)
class OneLayer:
    """A network of one convolution; `looks` at values, as some networks do."""

    looks: bool = False

    def build(self) -> nn.Module:
        return Looking() if self.looks else nn.Conv2d(1, 2, 1, bias=False)


class Looking(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(1, 2, 1)

    def forward(self, image):
        return super().forward(image) if image.max() > 0 else image


def with_training(plan, **changes):
    return replace(plan, training=replace(plan.training, **changes))


# By hand


def test_one_layer(tiny_plan):
    found = need(with_training(replace(tiny_plan, model=OneLayer()), batch_size=2, crop=(10, 10)))
    weights, image, logits = 2 * 4, 2 * 100 * 4, 2 * 2 * 100 * 4
    assert found.parameters == 2 and found.weight_bytes == 5 * weights
    assert found.memory_bytes == int(5 * weights + 1.5 * (weights + image + 4 * logits))  # a convolution keeps both its inputs


def test_numbers_of_bytes_in_words():
    assert [gigabytes(count) for count in (GB // 1000, 3 * GB // 2, 99 * GB, 1234 * GB)] == ["0.001", "1.5", "99", "1234"]
    assert [rounded_up(count) for count in (GB // 1000, 3 * GB // 2 + 1, 99 * GB, 1234 * GB)] == ["0.001", "1.6", "99", "1300"]
    assert float(rounded_up(123456789)) * GB >= 123456789


# By what is measured


@pytest.mark.parametrize(
    ("network", "precision"),
    [
        (unet.Config(in_channels=1, num_classes=2, width=8, depth=4), "32-true"),
        (unet.Config(in_channels=1, num_classes=2, width=8, depth=4), "bf16-mixed"),
        (segformer.Config(in_channels=1, num_classes=2, decoder_width=32), "32-true"),
        (segformer.Config(in_channels=1, num_classes=2, decoder_width=32), "bf16-mixed"),
    ],
)
def test_what_is_foreseen_is_what_a_step_keeps(tiny_plan, network, precision):
    plan = with_training(replace(tiny_plan, model=network), crop=(64, 64), precision=precision)
    parts = CropDataset.of(open_splits(plan.data.train).train, plan).parts(range(plan.training.batch_size), 1)
    assert need(plan).memory_bytes == pytest.approx(step_cost(plan, parts).memory_bytes, rel=0.15)


# By a law


def test_nothing_is_allocated_and_nothing_is_drawn(tiny_plan):
    huge = with_training(replace(tiny_plan, model=HUGE), crop=(64, 64))
    before, state = psutil.Process().memory_info().rss, torch.get_rng_state()
    assert need(huge).memory_bytes > 100 * GB
    assert psutil.Process().memory_info().rss - before < GB / 4
    assert torch.equal(torch.get_rng_state(), state)


def test_crops_that_are_taken_one_after_the_other_take_less(tiny_plan):
    plan = with_training(tiny_plan, batch_size=6)
    one, all_at_once = need_of_one(plan), need(plan).memory_bytes
    assert one < all_at_once
    assert within(plan, all_at_once) == plan
    assert within(plan, all_at_once - 1).training.accumulate == 2
    assert within(plan, one).training.accumulate == 6


def test_crops_of_volumes_are_shortened_until_one_fits(tiny_plan):
    network, usual, divisors = nnunet.Config(features=(4, 8, 8)), (64, 32, 32), (4, 4, 4)
    training = replace(tiny_plan.training, crop=(64, 32, 32), batch_size=4)
    plan = replace(tiny_plan, model=network, inference=Inference(), training=training)
    enough = need_of_one(plan)
    assert shortened(plan, usual, divisors, enough) == plan
    half = shortened(plan, usual, divisors, enough // 2)
    assert need_of_one(half) <= enough // 2 and not any(side % 4 for side in half.training.crop)
    sides = [side / whole for side, whole in zip(half.training.crop, usual, strict=True)]
    assert max(sides) - min(sides) <= 0.13 and min(sides) > 0.6  # each loses as much of what images have, up to one step
    longer = (half.training.crop[0] + 4, *half.training.crop[1:])
    assert need_of_one(with_training(half, crop=longer)) > 0.45 * enough  # and hardly more than it must
    least = shortened(plan, usual, divisors, 1)
    assert least.training.crop == (8, 8, 8)
    with pytest.raises(UsageError, match="grant more with --memory-gb"):
        within(least, 1)


def test_a_network_that_looks_at_values_is_not_foreseen(tiny_plan):
    plan = replace(tiny_plan, model=OneLayer(looks=True))
    assert need(plan) is None and need_of_one(plan) == 0
    assert within(plan, 1) == plan
    check_fits(plan, 1)


# By its messages


def test_a_network_beyond_what_is_granted(tiny_plan):
    huge = with_training(replace(tiny_plan, model=HUGE), crop=(64, 64))
    with pytest.raises(
        UsageError, match=r"unet has .* billion parameters, \d+ GB while they learn: one crop of .* takes \d+ GB"
    ):
        within(huge, GB)
    with pytest.raises(UsageError, match=r"and 0.0001 GB are granted; grant more with --memory-gb (\S+) where") as caught:
        within(tiny_plan, GB // 10000)
    granted = float(re.search(r"--memory-gb (\S+)", str(caught.value))[1])
    assert within(tiny_plan, int(granted * GB)).training.accumulate == tiny_plan.training.batch_size


def test_a_plan_for_a_larger_machine(tiny_plan):
    plan = with_training(tiny_plan, batch_size=6)
    check_fits(plan, need(plan).memory_bytes)
    with pytest.raises(UsageError, match=r"6 crops of \(32, 48\) at once .*: --set training.accumulate=2$"):
        check_fits(plan, need(plan).memory_bytes - 1)
    check_fits(plan.with_settings(["training.accumulate=2"]), need(plan).memory_bytes - 1)
    with pytest.raises(UsageError, match="plan again with a smaller network, or train where (.*) GB are free") as caught:
        check_fits(plan, need_of_one(plan) - 1)
    free = float(re.search(r"where (\S+) GB", str(caught.value))[1])
    check_fits(with_training(plan, accumulate=6), int(free * GB))


# Frozen parts, and crops that come again

WITH_ENCODER = encoder_unet.Config(
    in_channels=1, num_classes=2, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)), decoder_widths=(16, 8, 8, 8, 8)
)


def test_what_is_frozen_keeps_nothing_for_gradients(tiny_plan):
    plan = with_training(replace(tiny_plan, model=WITH_ENCODER), crop=(64, 64))
    whole, frozen = need(plan), need(with_training(plan, frozen=("encoder",)))
    assert frozen.parameters == whole.parameters and frozen.weight_bytes < 0.5 * whole.weight_bytes
    assert frozen.memory_bytes - frozen.weight_bytes < whole.memory_bytes - whole.weight_bytes
    parts = CropDataset.of(open_splits(plan.data.train).train, plan).parts(range(plan.training.batch_size), 1)
    assert frozen.memory_bytes == pytest.approx(
        step_cost(with_training(plan, frozen=("encoder",)), parts).memory_bytes, rel=0.15
    )


def test_low_rank_factors_alone_have_moments(tiny_plan):
    plan = with_training(
        replace(tiny_plan, model=segformer.Config(in_channels=1, num_classes=2, decoder_width=32)), crop=(64, 64)
    )
    whole, frozen = need(plan), need(with_training(plan, frozen=("encoder",)))
    adapted_plan = with_training(plan, frozen=("encoder",), low_rank=2)
    adapted = need(adapted_plan)
    factors = adapted.parameters - whole.parameters
    assert 0 < factors < 0.05 * whole.parameters
    assert adapted.weight_bytes - frozen.weight_bytes == WEIGHT_COPIES * 4 * factors
    assert frozen.memory_bytes < adapted.memory_bytes < whole.memory_bytes
    parts = CropDataset.of(open_splits(plan.data.train).train, plan).parts(range(plan.training.batch_size), 1)
    assert adapted.memory_bytes == pytest.approx(step_cost(adapted_plan, parts).memory_bytes, rel=0.15)


def test_crops_that_come_again_and_do_not_fit_are_told_with_how_many_do(tiny_plan):
    plan = with_training(replace(tiny_plan, model=WITH_ENCODER), crop=(64, 64), frozen=("encoder",), num_crops=1000)
    needed = need(plan)
    maps = 64 * 32**2 + 64 * 16**2 + 128 * 8**2 + 256 * 4**2 + 512 * 2**2  # of the encoder, in float32 as the image
    assert needed.kept_bytes == 1000 * 4 * (64 * 64 + maps)
    check_fits(plan, needed.memory_bytes + needed.kept_bytes)
    room = needed.memory_bytes + needed.kept_bytes // 2
    with pytest.raises(UsageError, match=r"1000 crops that come again.* keep fewer: --set training.num_crops=(\d+)") as caught:
        check_fits(plan, room)
    check_fits(plan.with_settings([str(caught.value).rpartition("--set ")[2]]), room)
    with pytest.raises(UsageError, match=r"keep fewer: leave training.num_crops out"):
        check_fits(plan, needed.memory_bytes)
    check_fits(with_training(plan, num_crops=None), needed.memory_bytes)
