"""A plan fits its minutes and its memory, and says why it is as it is."""

import itertools
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.core.errors import SettingError, ShapeError, UnknownNameError, UsageError
from segwright.encoders import timm
from segwright.planning import planner
from segwright.planning.budget import Budget, Cost
from segwright.planning.planner import plan, planned
from segwright.planning.start import Wish
from segwright.plans.plan import Init, Plan

NOTHING_ELSE = {"val": None, "fold": None, "task": None, "model": None, "wish": Wish(weights="scratch"), "settings": ()}


@pytest.fixture
def data(tiny_plan) -> str:
    return tiny_plan.data.train


@pytest.fixture
def costs(monkeypatch):
    """Steps that cost what a formula says, so that choices can be foreseen; the plans that were measured."""
    seen: list[Plan] = []

    def measure(candidate: Plan, parts) -> Cost:
        seen.append(candidate)
        encoder = getattr(candidate.model, "encoder", None)
        unit = {"regnetx_002": 1e-6, "regnetx_004": 2e-6, "regnetx_008": 4e-6, "regnetx_016": 8e-6}.get(
            getattr(encoder, "name", ""), 1e-6
        )
        pixels = candidate.training.batch_size * np.prod(candidate.training.crop)
        assert sum(part.image[:, 0].numel() for part in parts) == pixels  # real crops
        slow = 1.0 if candidate.training.precision == "bf16-mixed" and candidate.training.channels_last else 2.0
        return Cost(seconds=float(unit * pixels * slow), memory_bytes=int(pixels) // candidate.training.accumulate * 1000)

    monkeypatch.setattr(planner, "step_cost", measure)
    monkeypatch.setattr(planner, "within", lambda plan, memory: plan)
    return seen


def test_the_fastest_precision_is_taken_with_its_timings_as_reason(data, costs):
    made = plan(data, budget=Budget(minutes=1, device="cpu"))
    assert made.training.precision == "bf16-mixed" and made.training.channels_last
    assert made.reasons["training.precision"].startswith("timed on this machine: bf16-mixed channels-last")


def test_class_weights_named_by_a_rule_are_numbers_in_the_plan(data, costs):
    named = [f"task.criterion.{setting}" for setting in ("kind=cross_entropy", "class_weights=inverse_frequency")]
    facts = {"budget": Budget(minutes=1, device="cpu"), "settings": named}
    weights = plan(data, task="semantic", **facts).task.criterion.class_weights
    assert len(weights) > 1 and len(set(weights)) > 1 and all(weight > 0 for weight in weights)
    with pytest.raises(SettingError, match="there is no setting 'task.criterion'; the task instance has none"):
        plan(data, **facts)  # cells, which are objects


def test_more_minutes_make_more_steps_or_a_larger_network(data, costs):
    short, long = (planned(data, budget=Budget(minutes=m, device="cpu"), **NOTHING_ELSE) for m in (0.5, 60))
    assert short.plan.training.steps < long.plan.training.steps or short.plan.model != long.plan.model
    assert long.seconds_after < 0.2 * 3600


def test_the_steps_fill_the_time_and_no_more(data, costs):
    made = planned(data, budget=Budget(minutes=2, device="cpu"), **NOTHING_ELSE)
    step = costs_of(made.plan)
    assert 0.5 * 120 < made.plan.training.steps * step + made.seconds_after <= 120.5  # the reason rounds its figure


def costs_of(made: Plan) -> float:
    return float(made.reasons["training.steps"].split("a step takes ")[1].split(" s")[0])


def test_memory_is_kept(data, costs):
    made = plan(data, budget=Budget(minutes=1, memory_gb=0.004, device="cpu"))
    pixels = made.training.batch_size // made.training.accumulate * np.prod(made.training.crop)
    assert made.training.batch_size == planner.BATCH["cpu"] and made.training.accumulate > 1
    assert pixels * 1000 <= 0.004 * 2**30 < 2 * pixels * 1000
    with pytest.raises(
        UsageError, match=r"one crop of .* takes 0.00\d+ GB in training and 1e-05 GB are granted; .*--memory-gb"
    ):
        plan(data, budget=Budget(minutes=1, memory_gb=1e-5, device="cpu"))
    with pytest.raises(UsageError, match="is no name in UTF-8"):
        plan(data + "\udce4")


def test_settings_beyond_all_memory_are_named(data, costs, monkeypatch):
    endless = Cost(seconds=float("inf"), memory_bytes=10**15)
    timed = planner.step_cost
    monkeypatch.setattr(planner, "step_cost", lambda made, parts: endless if len(parts) > 99 else timed(made, parts))
    settings = ["training.batch_size=200", "training.accumulate=100"]
    with pytest.raises(UsageError, match="a step with training.batch_size=200, training.acc.* takes more memory than there is"):
        plan(data, budget=Budget(minutes=1, device="cpu"), settings=settings)


def test_a_network_that_a_machine_cannot_hold_is_told_before_it_is_tried(data, monkeypatch):
    monkeypatch.setattr(planner, "step_cost", lambda made, parts: pytest.fail("it was tried"))
    facts = {"budget": Budget(minutes=1, memory_gb=1, device="cpu"), "model": "segformer_b5"}
    with pytest.raises(UsageError, match=r"segformer has 84\.\d million parameters, 1.6 GB while they learn.*--memory-gb"):
        plan(data, **facts)


def test_settings_that_make_a_network_too_large_are_told_before_it_is_tried(data, costs):
    settings = ["model.width=2048", "model.max_width=65536"]
    with pytest.raises(UsageError, match=r"unet has .* billion parameters.* plan again with a smaller network"):
        plan(data, task="semantic", budget=Budget(minutes=1, memory_gb=4, device="cpu"), settings=settings)
    assert all(made.model.width < 2048 for made in costs)


@pytest.mark.parametrize(
    ("crop", "remedy"),
    [
        ("[33,47]", "multiples of 32 .* --set training.crop=[32,32]"),
        ("[4096,64]", "the largest image: --set training.crop=[96,64]"),
    ],
)
def test_crops_that_no_step_should_try_are_named(data, costs, crop, remedy):
    facts = {"budget": Budget(minutes=1, device="cpu"), "model": "segformer_b0"}
    with pytest.raises(SettingError, match=remedy.replace("[", r"\[").replace("]", r"\]")):
        plan(data, settings=[f"training.crop={crop}"], **facts)
    fitting = plan(data, settings=["training.crop=[64,64]"], **facts)
    assert fitting.training.crop == (64, 64)


def test_a_crop_with_other_axes_than_the_images_is_named(data, costs):
    settings = ["training.crop=[8,8,8]", "inference.tile=[8,8,8]"]
    with pytest.raises(SettingError, match="2 sides are needed"):
        plan(data, budget=Budget(minutes=1, device="cpu"), settings=settings)


def test_slow_steps_leave_the_first_precision_untimed_against_others(data, costs, monkeypatch):
    seconds = itertools.count(0.0, 30.0)
    monkeypatch.setattr(planner, "time", SimpleNamespace(monotonic=lambda: next(seconds), perf_counter=time.perf_counter))
    made = plan(data, budget=Budget(minutes=1, device="cpu"))
    assert made.reasons["training.precision"].count(" s") == 1
    assert made.training.steps == 1 and "-" not in made.reasons["model"]


def test_a_network_by_name_and_settings_by_hand(data, costs):
    made = plan(data, budget=Budget(minutes=1, device="cpu"), model="unet_small", settings=["training.steps=7"])
    assert type(made.model).__module__ == "segwright.models.unet" and made.training.steps == 7
    with pytest.raises(UnknownNameError, match="did you mean 'unet_small'"):
        plan(data, model="unet_smal")
    with pytest.raises(SettingError, match="did you mean 'steps'"):
        plan(data, budget=Budget(minutes=1, device="cpu"), settings=["training.step=7"])


def test_each_choice_has_a_reason_and_the_text_reads_back(data, costs):
    made = plan(data, task="semantic", budget=Budget(minutes=1, device="cpu"))
    parts = ("model", "sampler", "task.criterion", "data.preprocess.scale", "data.preprocess.channels")
    for path in (*parts, "training.steps", "training.batch_size", "augmentation.geometric.flip_axes"):
        assert made.reasons[path]
    assert Plan.from_toml(made.to_toml()) == made


def test_data_without_masks_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / "a.png")
    with pytest.raises(UsageError):
        plan(str(tmp_path))


def test_a_damaged_file_is_named_before_training_even_among_the_validation_samples(data, costs):
    path = next((Path(data) / "val" / "images").iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match=path.name):
        plan(data, budget=Budget(minutes=1, device="cpu"))


def test_channels_that_do_not_fit_are_named_before_training_even_among_the_validation_samples(data, costs):
    path = next((Path(data) / "val" / "images").iterdir())
    path.unlink()
    tifffile.imwrite(
        path.with_suffix(".tif"), np.zeros((2, 48, 64), np.uint8), photometric="minisblack", metadata={"axes": "CYX"}
    )
    with pytest.raises(ShapeError, match=f"'val__{path.stem}': the image has 2 channels, 1 are needed"):
        plan(data, budget=Budget(minutes=1, device="cpu"))


def test_a_hole_in_an_image_is_void_and_left_out_of_its_statistics(data, costs):
    for number, path in enumerate(sorted((Path(data) / "train" / "images").iterdir())):
        with Image.open(path) as picture:
            image = np.array(picture).astype(np.float32)
        image[: number + 1] = (np.nan, np.inf)[number % 2]
        tifffile.imwrite(path.with_suffix(".tif"), image)
        path.unlink()
    made = plan(data, budget=Budget(minutes=1, device="cpu"))
    mean, std = made.data.preprocess.normalise.mean, made.data.preprocess.normalise.std
    assert mean is None or np.isfinite([*mean, *std]).all()


def test_masks_of_one_class_are_refused(data, costs):
    for path in Path(data).rglob("masks/*"):
        Image.fromarray(np.zeros((48, 64), np.uint8)).save(path)
    with pytest.raises(UsageError, match="hold only the class .*two classes are needed"):
        plan(data, budget=Budget(minutes=1, device="cpu"))


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
