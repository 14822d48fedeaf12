"""Of networks, scales and precisions the one is chosen that learns most in the time and fits the memory."""

import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import UsageError
from segwright.encoders import timm
from segwright.formats import mask_folder, synthetic
from segwright.planning import planner, trial
from segwright.planning.budget import Budget, Cost
from segwright.planning.memory import GB, need, need_of_one
from segwright.planning.planner import plan
from segwright.plans.plan import Init
from segwright.tasks import semantic


def test_the_fastest_precision_is_taken_with_its_timings_as_reason(data, costs):
    made = plan(data, budget=Budget(minutes=1, device="cpu"))
    assert made.training.precision == "bf16-mixed" and made.training.channels_last
    assert made.reasons["training.precision"].startswith("timed on this machine: bf16-mixed channels-last")


def test_slow_steps_leave_the_first_precision_untimed_against_others(data, costs, monkeypatch):
    seconds = itertools.count(0.0, 30.0)
    clock = SimpleNamespace(monotonic=lambda: next(seconds), perf_counter=time.perf_counter)
    for module in (planner, trial):
        monkeypatch.setattr(module, "time", clock)
    made = plan(data, budget=Budget(minutes=1, device="cpu"))
    assert made.reasons["training.precision"].count(" s") == 1
    assert made.training.steps == 1 and "-" not in made.reasons["model"]


def test_memory_is_kept(data, costs):
    made = plan(data, budget=Budget(minutes=1, memory_gb=0.004, device="cpu"))
    pixels = made.training.batch_size // made.training.accumulate * np.prod(made.training.crop)
    assert made.training.batch_size == trial.BATCH["cpu"] and made.training.accumulate > 1
    assert pixels * 1000 <= 0.004 * 2**30 < 2 * pixels * 1000
    with pytest.raises(
        UsageError, match=r"one crop of .* takes 0.00\d+ GB in training and 1e-05 GB are granted; .*--memory-gb"
    ):
        plan(data, budget=Budget(minutes=1, memory_gb=1e-5, device="cpu"))
    with pytest.raises(UsageError, match="is no name in UTF-8"):
        plan(data + "\udce4")


def test_a_network_that_a_machine_cannot_hold_is_told_before_it_is_tried(data, monkeypatch):
    monkeypatch.setattr(trial, "step_cost", lambda made, parts: pytest.fail("it was tried"))
    facts = {"budget": Budget(minutes=1, memory_gb=1, device="cpu"), "model": "segformer_b5"}
    with pytest.raises(UsageError, match=r"segformer has 84\.\d million parameters, 1.6 GB while they learn.*--memory-gb"):
        plan(data, **facts)


def test_a_run_that_training_starts_from_keeps_its_scale(data, costs, monkeypatch, tmp_path):
    monkeypatch.setattr(trial, "SMALLEST_SIDE", 24)
    for minutes, other_minutes in ((0.02, 60), (60, 0.02)):
        first = plan(data, task="semantic", model="unet_small", init="scratch", budget=Budget(minutes=minutes, device="cpu"))
        assert (first.data.preprocess.scale is None) == (minutes == 60)  # where time is short, images are seen smaller
        classes = Classes.of([f"class {k}" for k in range(first.model.num_classes)])
        run = tmp_path / f"{minutes}"
        run.mkdir()
        ModelFile(first.model.build().state_dict(), first, classes).write(run / "model.safetensors")
        again = plan(data, task="semantic", init=str(run), budget=Budget(minutes=other_minutes, device="cpu"))
        assert again.data.preprocess.scale == first.data.preprocess.scale and again.init == Init(weights=str(run))
        assert again.reasons["data.preprocess.scale"] == "that of the run which training starts from"


def test_another_network_set_by_hand_starts_from_what_there_is_for_it(data, costs, monkeypatch):
    """Weights of the encoder that was chosen are nothing to a network that has another, or none."""
    monkeypatch.setattr(timm, "source", lambda name: "here" if name == "tf_efficientnet_lite0" else None)
    made = plan(data, budget=Budget(minutes=1, device="cpu"), model="segformer_b0", settings=["model.encoder.kind=timm"])
    assert made.init == Init()
    encoder = ["model.encoder.kind=timm", "model.encoder.name=tf_efficientnet_lite0"]
    started = plan(data, budget=Budget(minutes=1, device="cpu"), model="segformer_b0", settings=encoder)
    assert started.init == Init(weights="timm") and "init.weights" in started.reasons
    other = plan(data, budget=Budget(minutes=1, device="cpu"), model="segformer_b0", settings=[*encoder, "init.weights=a.pth"])
    assert other.init == Init(weights="a.pth") and other.reasons["init.weights"] == "set by hand"


def test_from_trained_weights_fewer_passes_do_before_images_are_shrunk(tmp_path, costs, monkeypatch):
    """Eight passes lie between the five that are asked for from trained weights and the twelve from scratch."""
    mask_folder.write(tmp_path / "data", synthetic.streets(48, shape=(192, 256), seed=1))
    monkeypatch.setattr(timm, "source", lambda name: "here")
    monkeypatch.setattr(trial, "FEWEST_STEPS", 1)  # of so few images passes are many; they alone decide here
    quick = trial.step_cost  # ten times as long, so that the seconds in which this is planned do not count
    slow = lambda made, parts: replace(quick(made, parts), seconds=10 * quick(made, parts).seconds)  # noqa: E731
    monkeypatch.setattr(trial, "step_cost", slow)
    trained, scratch = (
        plan(str(tmp_path / "data"), budget=Budget(minutes=2.5, device="cpu"), task="semantic", init=init)
        for init in (None, "scratch")
    )
    assert trained.init == Init(weights="timm") and "to go larger, 1 and 5 are needed" in trained.reasons["model"]
    assert trained.data.preprocess.scale is None
    assert scratch.data.preprocess.scale == (0.5, 0.5) and "to go larger, 1 and 12 are needed" in scratch.reasons["model"]


def test_crops_of_volumes_are_as_large_as_memory_allows(thick, monkeypatch):
    monkeypatch.setattr(trial, "step_cost", lambda made, parts: Cost(seconds=0.1, memory_bytes=1))
    monkeypatch.setattr(semantic, "VOLUME_WIDTHS", (16,))
    ample = plan(thick, budget=Budget(minutes=5, memory_gb=8, device="cpu"), init="scratch")
    single = need(replace(ample, training=replace(ample.training, accumulate=ample.training.batch_size)))
    granted = (single.weight_bytes + 0.7 * (single.memory_bytes - single.weight_bytes)) / GB
    scarce = plan(thick, budget=Budget(minutes=5, memory_gb=granted, device="cpu"), init="scratch")
    assert need_of_one(scarce) <= granted * GB and scarce.training.accumulate == scarce.training.batch_size
    assert np.prod(scarce.training.crop) < np.prod(ample.training.crop)
    assert scarce.inference.tile == tuple(2 * side for side in scarce.training.crop)
    with pytest.raises(UsageError, match="nnunet has .* one crop of .* grant more with --memory-gb"):
        plan(thick, budget=Budget(minutes=5, memory_gb=0.001, device="cpu"), init="scratch")
