"""Plans of every version that was ever saved open, and mean what they meant. Each file is kept as it was written."""

from pathlib import Path

import pytest

from segwright.core.errors import FormatError
from segwright.data.samplers.class_balanced import ClassBalanced
from segwright.data.samplers.uniform import Uniform
from segwright.encoders import timm
from segwright.losses.weighted_sum import WeightedSum
from segwright.optimisers import adamw
from segwright.plans.migrations import VERSION, migrated
from segwright.plans.plan import Plan
from segwright.tasks.semantic import Semantic

KEPT = Path(__file__).parents[1] / "golden" / "plans"


def test_a_plan_of_version_1_means_what_it_meant():
    plan = Plan.read(KEPT / "version_1.toml")
    assert plan.version == VERSION and plan.task == Semantic(criterion=WeightedSum())
    assert plan.data.preprocess.scale == (0.5, 0.5) and plan.data.preprocess.normalise.mean is None
    assert plan.sampler == ClassBalanced(share=0.3) and plan.optimiser == adamw.Config(learning_rate=0.002)
    assert plan.augmentation.geometric.elastic_px == 1.0 and plan.augmentation.intensity.noise == 0.05
    assert plan.training.crop == (64, 96) and plan.inference.tile == (128, 192) and plan.init.weights is None
    assert Plan.from_toml(plan.to_toml()) == plan


def test_what_version_1_left_out_or_had_otherwise():
    text = (KEPT / "version_1.toml").read_text()
    plain = Plan.from_toml(text.replace("focus = 0.3", "focus = 0.0").replace("zoom = 0.5", "zoom = 1.0"))
    assert plain.sampler == Uniform() and plain.data.preprocess.scale is None
    start = text.index("[model]")
    model = '[model]\nkind = "segformer"\n[model.encoder]\nkind = "timm"\nname = "resnet18"\npretrained = true\n\n'
    fetched = Plan.from_toml(text[:start] + model + text[text.index("[loss]") :])
    assert fetched.init.weights == "timm" and fetched.model.encoder == timm.Config(name="resnet18")


def test_a_table_is_left_as_it_was():
    table = {"data": {"train": "a", "zoom": 0.5}, "training": {"learning_rate": 1.0}}
    migrated(table, "here")
    assert table == {"data": {"train": "a", "zoom": 0.5}, "training": {"learning_rate": 1.0}}


@pytest.mark.parametrize("version", [VERSION + 1, 0, "two"])
def test_a_plan_of_a_version_to_come_is_named(version):
    with pytest.raises(FormatError, match=f"here is a plan of version {version!r}, and this segwright reads 1 to {VERSION}"):
        migrated({"version": version}, "here")
