"""A plan is written and read back equal; what is wrong in it is named by its path."""

import re
from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Sample
from segwright.core.errors import FormatError, SettingError, UnknownNameError
from segwright.encoders import timm
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.losses.focal import Focal
from segwright.losses.weighted_sum import WeightedSum
from segwright.models import segformer, unet
from segwright.optimisers import sgd
from segwright.plans.plan import Augmentation, Data, Inference, Plan, Training
from segwright.tasks.semantic import Semantic
from segwright.transforms.gaussian_blur import GaussianBlur
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.jpeg import Jpeg
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess


@pytest.fixture
def plan() -> Plan:
    return Plan(
        task=Semantic(
            criterion=WeightedSum(terms=(CrossEntropy(class_weights=(1.0, 2.0, 0.5, 1.0)), Dice()), weights=(1.0, 0.5))
        ),
        data=Data(
            train="train",
            fold=(0, 5),
            preprocess=Preprocess(scale=(0.5, 1.0), normalise=Normalise(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))),
        ),
        augmentation=Augmentation(geometric=Geometric(flip_axes=())),
        model=segformer.Config(encoder=timm.Config(name="resnet10t"), num_classes=4),
        training=Training(steps=10, batch_size=2, crop=(64, 96)),
        inference=Inference(tile=(64, 96)),
        reasons={"training.steps": "ten are enough", "model": "small # and quick", "task.criterion": "rare classes count"},
    )


def test_the_text_is_toml_with_reasons_beside_the_settings(plan):
    text = plan.to_toml()
    assert "steps = 10 # ten are enough" in text
    assert '[model]\nkind = "segformer" # small # and quick' in text
    assert '[model.encoder]\nkind = "timm"' in text
    assert '[task.criterion]\nkind = "weighted_sum" # rare classes count' in text
    assert text.startswith("version = 2\n")


def test_what_is_written_reads_back_equal(plan):
    assert Plan.from_toml(plan.to_toml()) == plan
    network = unet.Config(num_classes=4, width=8)
    assert Plan.from_toml(replace(plan, model=network).to_toml()).model == network


def test_reading_from_a_folder_is_reading_its_plan_file(plan, tmp_path):
    (tmp_path / "plan.toml").write_text(plan.to_toml())
    assert Plan.read(tmp_path) == Plan.read(tmp_path / "plan.toml") == plan


def test_settings_from_the_command_line(plan):
    lines = ["training.steps=20", "data.val=elsewhere", "model.encoder.name=resnet18", "training.crop=[32, 32]"]
    changed = plan.with_settings(lines)
    assert (changed.training.steps, changed.data.val, changed.model.encoder.name) == (20, "elsewhere", "resnet18")
    assert changed.training.crop == (32, 32)
    again = changed.with_settings(["task.criterion.terms.1.smooth=2", "task.criterion.terms.0.kind=focal"])
    assert isinstance(again.task.criterion.terms[0], Focal) and again.task.criterion.terms[1].smooth == 2
    assert changed.reasons["training.steps"] == "set by hand" and changed.reasons["task.criterion"] == "rare classes count"


def test_a_new_kind_starts_from_its_defaults(plan):
    changed = plan.with_settings(["model.kind=unet", "model.num_classes=4", "task.criterion.kind=dice", "optimiser.kind=sgd"])
    assert changed.model == unet.Config(num_classes=4) and changed.task.criterion == Dice()
    assert changed.optimiser == sgd.Config()


def test_both_remedies_for_a_batch_larger_than_what_is_kept_can_be_followed(plan):
    few = plan.with_settings(["training.num_crops=48"])
    with pytest.raises(SettingError, match=r"batch_size is 64, .*set (\S+), or more crops, if .*: (\S+)$") as caught:
        few.with_settings(["training.batch_size=64"])
    smaller, more = re.search(r"set (\S+), or more crops, if .*: (\S+)$", str(caught.value)).groups()
    assert few.with_settings([smaller]).training.batch_size == 48
    assert few.with_settings(["training.batch_size=64", more]).training.num_crops == 6400


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("training.stepps=1", "no setting 'training.stepps', did you mean 'steps'?"),
        ("training.steps=many", "setting 'training.steps' is 'many'"),
        ("training.steps=0", "training.steps is 0; give at least 1"),
        ("training.steps", "is no assignment"),
        ("training.accumulate=3", "does not divide a batch of 2"),
        ("training.clip_norm=0", "training.clip_norm is 0"),
        ("training.num_crops=1", "training.batch_size is 2, more than the 1 crops that differ"),
        ("training.num_crops=0", "training.num_crops is 0; give at least a batch"),
        ("training.ema=2", "training.ema is 2"),
        ("data.preprocess.scale=[0, 1]", "scale is \\[0.0, 1.0\\]; give a factor per axis"),
        ("training.steps.more=1", "'steps' is a value, not a group"),
        ("training.precision=64", "setting 'training.precision' is 64"),
        ("optimiser.learning_rate=-1", "give a positive number"),
        ("optimiser.learning_rate=inf", "finite number"),
        (
            "augmentation.geometric.rotate_deg=nan",
            "'augmentation.geometric.rotate_deg' is nan: Input should be a finite number",
        ),
        ("training.crop=[]", "give one side per axis"),
        ("training.crop=[-64, 64]", "give one side per axis"),
        ("training.seed=-1", "training.seed is -1; give a number from 0"),
        ("inference.tile=[64]", "give one side for each of the 2 axes of the crop"),
        ("inference.tile=[0, 0]", "give one side for each of the 2 axes"),
        ("inference.flip_axes=[5]", "the crop has 2 axes; count them from the end"),
        ("augmentation.geometric.flip_axes=[-3]", "the crop has 2 axes; count them from the end"),
        ("model=unet", "'model' is 'unet', a group of settings is needed; choose one by 'model.kind'"),
        (
            "task.criterion=dice",
            "'task.criterion' is 'dice', a group of settings is needed; choose one by 'task.criterion.kind'",
        ),
        (
            "task.criterion.terms.2.smooth=1",
            "'task.criterion.terms.2.smooth' does not exist: 'terms' holds 2 groups of settings",
        ),
        ("task.criterion.terms.smooth=1", "'terms' holds 2 groups of settings, counted from 0"),
        ("task.criterion.terms.1=5", "'task.criterion.terms.1' is a group of settings; replace one of them: .*terms.1.NAME"),
        ("task.criterion.weights.1=5", "'weights' is a value, not a group"),
        ("task.criterion.terms=[1]", "'task.criterion.terms\\[0\\]' has no kind"),
        ("training=5", "'training' is 5, a group of settings is needed; replace one of them: 'training.NAME'"),
        ("model.kind=os.path", "has no dataclass Config or Posixpath; add one, or choose another kind"),
    ],
)
def test_a_wrong_setting_is_named(plan, line, message):
    with pytest.raises(SettingError, match=message.replace("?", r"\?")):
        plan.with_settings([line])


def test_a_pixel_size_replaces_a_scale_and_the_other_way_round(plan):
    spaced = plan.with_settings(["data.preprocess.spacing_mm=[1, 2]"])
    assert spaced.data.preprocess.scale is None and spaced.data.preprocess.spacing_mm == (1, 2)
    scaled = spaced.with_settings(["data.preprocess.scale=[0.25, 0.25]"])
    assert scaled.data.preprocess.spacing_mm is None and scaled.data.preprocess.scale == (0.25, 0.25)


def test_an_unknown_kind_offers_the_nearest(plan):
    with pytest.raises(UnknownNameError, match="no model 'unett', did you mean 'unet'"):
        plan.with_settings(["model.kind=unett"])


def test_a_missing_setting_is_named(plan):
    text = "\n".join(line for line in plan.to_toml().splitlines() if not line.startswith("batch_size"))
    with pytest.raises(SettingError, match="'training.batch_size' is missing"):
        Plan.from_toml(text)


def test_a_file_may_not_name_a_module_outside_segwright(plan):
    text = plan.to_toml().replace('kind = "segformer"', 'kind = "os.path"')
    with pytest.raises(SettingError, match="a module outside segwright"):
        Plan.from_toml(text)


def test_broken_files_are_named(tmp_path):
    (tmp_path / "plan.toml").write_text("steps = = 1")
    with pytest.raises(FormatError, match="plan.toml is not valid TOML"):
        Plan.read(tmp_path)
    with pytest.raises(FormatError, match="cannot read the plan"):
        Plan.read(tmp_path / "nothing.toml")


# Augmentation

REST = """
version = 2
[data]
train = "data"
[model]
kind = "unet"
[training]
steps = 1
batch_size = 1
crop = [32, 32]
"""
NNUNET = """
[augmentation.geometric]
scale = [0.7, 1.4]
scale_probability = 0.2
rotate_deg = 180.0
rotate_probability = 0.2
flip_axes = [-1, -2]
[augmentation.intensity]
brightness = 0.25
brightness_probability = 0.15
contrast = 0.25
contrast_probability = 0.15
gamma = 0.4
gamma_probability = 0.3
inverted_gamma_probability = 0.1
saturation = 0.0
noise = 0.3
noise_probability = 0.1
[augmentation.blur]
probability = 0.2
sigma_px = [0.5, 1.0]
[augmentation.low_resolution]
probability = 0.25
zoom = [0.5, 1.0]
"""
PHOTOGRAPHS = """
[augmentation.geometric]
scale = [0.5, 2.0]
[augmentation.intensity]
brightness_probability = 0.5
contrast_probability = 0.5
saturation_probability = 0.5
gamma_probability = 0.0
noise_probability = 0.0
[augmentation.shadow]
probability = 0.2
light = [0.5, 0.8]
[augmentation.jpeg]
probability = 0.2
quality = [50, 95]
"""


@pytest.mark.parametrize(
    ("recipe", "share"), [(NNUNET, 1 - 0.85**2 * 0.7 * 0.9 * 0.9 * 0.8 * 0.75), (PHOTOGRAPHS, 1 - 0.5**3 * 0.8**2)]
)
def test_published_recipes_can_be_written(recipe, share):
    """And change the values of as many crops as their probabilities say together."""
    augmentation = Plan.from_toml(REST + recipe).augmentation
    sample = Sample.of("a", np.random.default_rng(0).integers(0, 255, (3, 12, 12), np.uint8))
    count = sum(augmentation.change_values(sample, np.random.default_rng(seed)) is not sample for seed in range(400))
    assert count / 400 == pytest.approx(share, abs=0.08)  # 3.5 standard deviations


def test_new_changes_are_off_and_leave_the_draws_of_older_ones():
    sample = Sample.of("a", np.random.default_rng(0).integers(0, 255, (3, 24, 32), np.uint8))
    changed = Augmentation().change_values(sample, np.random.default_rng(7)).image
    np.testing.assert_array_equal(changed, Intensity()(sample, np.random.default_rng(7)).image)
    # What this crop was before there was blur, low resolution, JPEG or shadow, and before changes had probabilities.
    crop = Geometric(rotate_deg=8.0, elastic_px=0.5)(sample, (16, 16), np.random.default_rng(7))
    values = Augmentation().change_values(crop, np.random.default_rng(8)).image[:, [0, 5, 15], [3, 8, 15]]
    np.testing.assert_allclose(values, BEFORE, rtol=1e-4)


BEFORE = [
    [85.44124, 101.42599, 157.97809],
    [-13.910925, 95.18299, 31.626991],
    [173.28746, 142.33251, 189.69989],
]


def test_one_change_leaves_the_draws_of_the_others():
    sample = Sample.of("a", np.random.default_rng(0).integers(0, 255, (1, 24, 32), np.uint8))
    one = Augmentation(jpeg=Jpeg(probability=1.0))
    both = Augmentation(jpeg=Jpeg(probability=1.0), blur=GaussianBlur(probability=1.0, sigma_px=(0.0, 0.0)))  # no blur at all
    np.testing.assert_array_equal(*(each.change_values(sample, np.random.default_rng(3)).image for each in (one, both)))
