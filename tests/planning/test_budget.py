"""A budget is checked, and a step is timed as it is."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.data.splits import open_splits
from segwright.encoders import resnet
from segwright.models import encoder_unet
from segwright.planning import budget
from segwright.planning.budget import Budget, Cost, KeptForBackward, step_cost
from segwright.training.dataloader import CropDataset
from segwright.training.frozen import MOST_BYTES

FROZEN = ['training.frozen=["encoder"]']


def test_what_is_granted():
    assert Budget(memory_gb=2).memory_bytes == 2 * 2**30
    assert Budget(device="cpu").chosen_device == "cpu"
    assert 0 < Budget(device="cpu").memory_bytes < 2**50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 0}, "minutes is 0; give a positive number"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"memory_gb": -1}, "memory_gb is -1"),
        ({"memory_gb": float("nan")}, "memory_gb is nan; give a positive number"),
        ({"memory_gb": float("inf")}, "memory_gb is inf; .*leave it out to use what is free"),
        ({"device": "tpu"}, "device is 'tpu'; known are"),
    ],
)
def test_a_wrong_budget_is_named(settings, message):
    with pytest.raises(SettingError, match=message):
        Budget(**settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_a_gpu_that_is_not_there_is_named():
    with pytest.raises(SettingError, match="torch finds no GPU here"):
        Budget(device="cuda")


def test_what_a_forward_pass_keeps_by_hand():
    kept = KeptForBackward()
    image = torch.ones(10, 100, requires_grad=True)
    with kept.counting():
        (image.exp() * 2).sum()
    assert kept.total == 10 * 100 * 4  # exp keeps its result; times two keeps nothing


def parts_of(plan) -> list:
    training = plan.training
    return CropDataset.of(open_splits(plan.data.train).train, plan).parts(range(training.batch_size), training.accumulate)


MEMORY = """
import sys
from dataclasses import replace
from pathlib import Path
from segwright.planning.budget import step_cost
from segwright.data.splits import open_splits
from segwright.plans.plan import Plan
from segwright.training.dataloader import CropDataset
plan = Plan.read(Path(sys.argv[1]))
data = open_splits(plan.data.train).train
def parts(plan): return CropDataset.of(data, plan).parts(range(8), int(sys.argv[2]))
def held(field): return int(Path("/proc/self/status").read_text().split(field)[1].split()[0]) * 1024
small = replace(plan, training=replace(plan.training, crop=(32, 32)))
step_cost(small, parts(small))  # what a first step loads and compiles is the program's, not the step's
crops = parts(plan)
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
before = held("VmRSS:")
cost = step_cost(plan, crops)
print(held("VmHWM:") - before, cost.memory_bytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_memory_that_is_told_is_what_a_fresh_process_takes(tiny_plan, tmp_path, accumulate):
    training = replace(tiny_plan.training, batch_size=8, accumulate=accumulate, crop=(192, 192))
    plan = replace(tiny_plan, model=replace(tiny_plan.model, width=16), training=training)
    (tmp_path / "plan.toml").write_text(plan.to_toml())
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "plan.toml"), str(accumulate)],
        capture_output=True,
        text=True,
        check=True,
    )
    taken, told = map(int, result.stdout.split())
    assert 0.8 * taken < told < 1.2 * taken, result.stdout


def test_a_larger_batch_costs_more(tiny_plan):
    def seconds(batch_size):
        plan = replace(tiny_plan, training=replace(tiny_plan.training, batch_size=batch_size, crop=(96, 128)))
        return min(step_cost(plan, parts_of(plan)).seconds for _ in range(3))

    assert seconds(8) > 1.5 * seconds(1)


def test_what_a_first_step_compiles_is_no_part_of_the_cost_and_a_long_step_is_repeated_once(tiny_plan, monkeypatch):
    taken = []

    def slow_at_first(learner, parts, number, rate):
        taken.append(number)
        time.sleep(0.0 if number else 0.2)

    monkeypatch.setattr(budget, "step", slow_at_first)
    assert step_cost(tiny_plan, parts_of(tiny_plan)).seconds < 0.1 and taken == [0, 1, 2]
    monkeypatch.setattr(budget, "LONG_STEP_S", 0.1)
    assert step_cost(tiny_plan, parts_of(tiny_plan)).seconds < 0.1 and taken == [0, 1, 2, 0, 1]


def test_a_step_that_runs_out_of_memory_costs_without_end(tiny_plan, monkeypatch):
    def starved(*_):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(budget, "step", starved)
    assert step_cost(tiny_plan, parts_of(tiny_plan)).seconds == float("inf")


# Crops that come again


def test_steps_whose_crops_come_again_by_hand(tiny_plan):
    training = replace(tiny_plan.training, batch_size=4, num_crops=40)
    cost = Cost(seconds=1.0, memory_bytes=10, first_seconds=2.0, answer_bytes=5, crop_bytes=3)
    assert cost.steps(training, 35.0, crop_seconds=0.125) == 10  # each of 3.5 s, and then all crops have come
    assert cost.steps(training, 7.0, crop_seconds=0.125) == 2
    assert cost.steps(training, 135.0, crop_seconds=0.125) == 110
    assert cost.kept_bytes(training) == 40 * 8
    plain = replace(training, num_crops=None)
    assert Cost(seconds=1.0, memory_bytes=10).steps(plain, 30.0, crop_seconds=0.125) == 20 and cost.kept_bytes(plain) == 0


def test_answers_that_find_no_room_are_asked_for_again(tiny_plan):
    training = replace(tiny_plan.training, num_crops=40)
    cost = Cost(seconds=1.0, memory_bytes=10, first_seconds=2.0, answer_bytes=MOST_BYTES // 10)
    assert cost.later_seconds(training) == pytest.approx(1 + 2 * 0.75)
    assert cost.kept_bytes(training) == MOST_BYTES


def test_a_frozen_encoder_costs_less_and_its_kept_answers_less_still(tiny_plan):
    network = encoder_unet.Config(
        in_channels=1,
        num_classes=2,
        encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)),
        decoder_widths=(16, 8, 8, 8, 8),
    )
    plan = replace(tiny_plan, model=network, training=replace(tiny_plan.training, crop=(64, 64)))
    whole, frozen, kept = (
        step_cost(each, parts_of(each))
        for each in (plan, plan.with_settings(FROZEN), plan.with_settings([*FROZEN, "training.num_crops=8"]))
    )
    assert frozen.memory_bytes < 0.7 * whole.memory_bytes and kept.memory_bytes <= frozen.memory_bytes
    assert whole.first_seconds == frozen.first_seconds == frozen.answer_bytes == 0
    with torch.no_grad():
        maps = network.encoder.build(1)(torch.zeros(1, 1, 64, 64))
    assert kept.answer_bytes == sum(level.nbytes for level in maps) and kept.first_seconds > 0
