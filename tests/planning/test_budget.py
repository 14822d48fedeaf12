"""A budget is checked, and a step is timed as it is."""

from dataclasses import replace

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.planning.budget import Budget, PeakMemory, measure


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


def test_peak_memory_sees_what_was_freed_again():
    with PeakMemory("cpu") as memory:
        block = torch.ones(64 << 20, dtype=torch.uint8)
        for _ in range(20):
            block += 1
        del block
    assert 48 << 20 < memory.peak < 512 << 20


def test_a_larger_batch_costs_more(tiny_plan):
    def seconds(batch_size):
        plan = replace(tiny_plan, training=replace(tiny_plan.training, batch_size=batch_size, crop=(96, 128)))
        return min(measure(plan).seconds for _ in range(3))

    assert seconds(8) > 1.5 * seconds(1)
