"""A plan fits its minutes and its memory, and says why it is as it is."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from segwright.core.errors import SettingError, ShapeError, UnknownNameError, UsageError
from segwright.models import nnunet, sam
from segwright.planning import planner, trial
from segwright.planning.budget import Budget, Cost
from segwright.planning.planner import plan, planned
from segwright.planning.scoring_time import ScoringTime
from segwright.planning.start import Wish
from segwright.planning.starting_model import StartingModel
from segwright.plans.plan import Plan

NOTHING_ELSE = {"val": None, "fold": None, "task": None, "model": None, "wish": Wish(weights="scratch"), "settings": ()}


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


def test_the_time_that_clicks_take_is_kept_for_scoring(data, costs, monkeypatch):
    monkeypatch.setattr(planner, "clicking_time", lambda made, samples: ScoringTime(on_the_way=3.0, at_the_end=5.0))
    made = planned(data, budget=Budget(minutes=2, device="cpu"), **NOTHING_ELSE | {"model": "sam_nano"})
    assert "GB, and on a CPU the process 0.7 GB beside the samples" in made.plan.reasons["training.batch_size"]
    assert planner.REPORT_SECONDS + 2 * (3 + 5) <= made.seconds_after < planner.REPORT_SECONDS + 2 * (3 + 5) + 1
    assert made.plan.reasons["training.validations"].startswith("2 images take 6 s each time")
    assert made.plan.training.steps * costs_of(made.plan) + made.seconds_after <= 120.5  # the reason rounds its figure


def test_scoring_the_model_before_is_in_the_minutes(data, costs, monkeypatch):
    monkeypatch.setattr(planner, "clicking_time", lambda made, samples: ScoringTime(on_the_way=3.0, at_the_end=5.0))
    monkeypatch.setattr(planner, "starting_model", lambda made, samples, own_modules: StartingModel("runs/a", samples))
    monkeypatch.setattr(planner, "seconds_before", lambda model, made, own: own + 1.0)
    made = planned(data, budget=Budget(minutes=2, device="cpu"), **NOTHING_ELSE | {"model": "sam_nano"})
    assert planner.REPORT_SECONDS + 2 * (3 + 5 + 6) <= made.seconds_after < planner.REPORT_SECONDS + 2 * (3 + 5 + 6) + 1
    assert ", 12 s of these for those before" in made.plan.reasons["training.steps"]
    assert made.plan.training.steps * costs_of(made.plan) + made.seconds_after <= 120.5  # the reason rounds its figure


def costs_of(made: Plan) -> float:
    return float(made.reasons["training.steps"].split("a step takes ")[1].split(" s")[0])


def test_settings_beyond_all_memory_are_named(data, costs, monkeypatch):
    endless = Cost(seconds=float("inf"), memory_bytes=10**15)
    timed = trial.step_cost
    monkeypatch.setattr(trial, "step_cost", lambda made, parts: endless if len(parts) > 99 else timed(made, parts))
    settings = ["training.batch_size=200", "training.accumulate=100"]
    with pytest.raises(UsageError, match="a step with training.batch_size=200, training.acc.* takes more memory than there is"):
        plan(data, budget=Budget(minutes=1, device="cpu"), settings=settings)


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


def test_a_network_by_name_and_settings_by_hand(data, costs):
    made = plan(data, budget=Budget(minutes=1, device="cpu"), model="unet_small", settings=["training.steps=7"])
    assert type(made.model).__module__ == "segwright.models.unet" and made.training.steps == 7
    with pytest.raises(UnknownNameError, match="did you mean 'unet_small'"):
        plan(data, model="unet_smal")
    with pytest.raises(SettingError, match="did you mean 'steps'"):
        plan(data, budget=Budget(minutes=1, device="cpu"), settings=["training.step=7"])


def test_a_misspelt_setting_is_told_before_a_step_is_timed(data, monkeypatch):
    monkeypatch.setattr(trial, "step_cost", lambda made, parts: pytest.fail("it was timed"))
    with pytest.raises(SettingError, match="did you mean 'steps'"):
        plan(data, budget=Budget(minutes=1, device="cpu"), settings=["training.stepps=7"])


def test_a_network_that_answers_prompts_is_trained_to_answer_them_alone(data, costs):
    made = plan(data, model="sam_small", budget=Budget(minutes=1, device="cpu"))
    assert type(made.task).__name__ == "Promptable"
    with pytest.raises(SettingError, match="network for promptable segmentation, and the task is semantic.*--task promptable"):
        plan(data, model="sam_small", task="semantic")


@pytest.mark.parametrize("wish", [{"model": "sam_small"}, {"settings": ["model.kind=sam"]}])
def test_a_network_that_nothing_trains_is_told(data, wish, monkeypatch):
    monkeypatch.setattr(sam, "TASKS", ("video",))
    with pytest.raises(SettingError, match="is for video segmentation, which nothing here trains; leave it out"):
        plan(data, **wish)


def test_a_task_among_the_settings_and_a_module_without_a_network_are_told(data):
    with pytest.raises(SettingError, match="task.kind=instance: .* choose it with --task instance"):
        plan(data, settings=["task.kind=instance"])
    with pytest.raises(SettingError, match="'foo' is no assignment; write path=value"):
        plan(data, settings=["foo"])
    with pytest.raises(SettingError, match="has no dataclass Config or"):
        plan(data, settings=["model.kind=os.path"])


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


# Volumes


def test_volumes_get_nnunets_topology_spacing_and_mirror_images(thick, costs):
    made = planned(thick, budget=Budget(minutes=5, device="cpu"), **NOTHING_ELSE).plan
    assert made.data.preprocess.spacing_mm == (2.0, 1.0, 1.0) and made.data.preprocess.scale is None
    assert type(made.model) is nnunet.Config and made.model.strides[0] == (1, 2, 2)
    sides = zip(made.training.crop, (24, 48, 64), strict=True)
    assert all(0.8 * side <= crop <= side for crop, side in sides)  # the usual volume has 12 slices, of which 24 are made
    assert made.training.batch_size == 2
    assert "to go larger, 600 and 48 are needed" in made.reasons["model"]
    assert made.inference.flip_axes == made.augmentation.geometric.flip_axes != ()
    for path in ("data.preprocess.spacing_mm", "inference.flip_axes", "model", "training.steps"):
        assert made.reasons[path]
    assert Plan.from_toml(made.to_toml()) == made


def test_mirror_images_of_volumes_are_left_out_where_time_is_short(thick, costs):
    made = planned(thick, budget=Budget(minutes=0.02, device="cpu"), **NOTHING_ELSE).plan
    assert made.inference.flip_axes == () and "mirror images would take" in made.reasons["inference.flip_axes"]
    by_hand = NOTHING_ELSE | {"settings": ["inference.flip_axes=[-1]"]}
    assert planned(thick, budget=Budget(minutes=5, device="cpu"), **by_hand).plan.inference.flip_axes == (-1,)
