"""When a plan tells of a first network, at which spacing, and how the second is planned. Axes: n spatial axes."""

from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest

from segwright.core import Classes, Grid, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.formats import volume
from segwright.planning import cascade, rules
from segwright.planning.budget import Budget
from segwright.planning.cascade import low_resolution
from segwright.planning.planner import plan
from segwright.plans.plan import Plan
from segwright.transforms.class_channels import with_class_channels

SIDES = (48, 48, 48)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> str:
    """Volumes of a block, of voxels of 0.5 mm."""
    samples = []
    for number in range(3):
        class_map = np.zeros(SIDES, np.int64)
        class_map[8:32, 8:32, 8:40] = 1
        image = (100 * class_map + np.random.default_rng(number).normal(100, 10, SIDES)).astype(np.int16)[None]
        truth = Segmentation.semantic(class_map, Classes.of(["background", "block"]))
        samples.append(Sample(f"v{number}", image, Grid(SIDES, (0.5, 0.5, 0.5)), truth))
    folder = tmp_path_factory.mktemp("large") / "volumes"
    volume.write(folder, samples)
    return str(folder)


def test_spacing_grows_until_a_crop_sees_a_quarter():
    (first, *others) = low_resolution((1.0,) * 3, (64,) * 3, (32,) * 3)
    assert first == pytest.approx(1.03**8) and others == [first] * 2  # 64 / 1.03^8 = 50.5, and (32 / 50.5)^3 = 0.254
    assert low_resolution((1.0,) * 3, (64,) * 3, (41,) * 3) is None  # which sees 26 %
    assert low_resolution((1.0,) * 3, (64,) * 3, (34,) * 3) is None  # 1.03^6 would do, with hardly fewer voxels


def test_fine_axes_come_first_and_a_crop_sees_no_more_than_there_is():
    coarse = low_resolution((5.0, 1.0, 1.0), (20.0, 128.0, 128.0), (8, 32, 32))
    assert coarse[0] == pytest.approx(5 * 1.03**6) and coarse[1] == coarse[2] == pytest.approx(coarse[0] / 2, rel=0.03)
    deep, flat = (low_resolution((1.0,) * 3, (10, 100, 100), (depth, 30, 30)) for depth in (100, 10))
    assert deep == flat and flat is not None


def test_a_plan_says_that_crops_see_little_and_how_to_go_on(volumes, costs, monkeypatch):
    monkeypatch.setattr(rules, "LARGEST_CROP_3D", 16)
    made = plan(volumes, budget=Budget(minutes=60, device="cpu"), init="scratch")
    assert made.training.crop == (16, 16, 16) and made.data.preprocess.scale is None
    why = made.reasons["cascade"]
    assert f"a crop sees {prod(made.training.crop) / prod(SIDES):.1%} of the usual volume" in why
    spacing = 0.5 * 1.03**22  # 48 / 1.03^22 = 25.05, and (16 / 25.05)^3 = 0.26
    setting = f"data.preprocess.spacing_mm=[{spacing:.4g},{spacing:.4g},{spacing:.4g}]"
    assert f"segwright fit {volumes} --set '{setting}' --folds 5 --out FIRST" in why
    assert f"segwright fit {volumes} --set cascade.first=FIRST" in why
    assert f"[cascade] # {why}" in made.to_toml()
    first = plan(volumes, budget=Budget(minutes=60, device="cpu"), init="scratch", settings=[setting])
    assert first.training.crop == made.training.crop and "cascade" not in first.reasons  # which now sees enough


def test_nothing_is_said_where_crops_see_enough(volumes, costs):
    assert "cascade" not in plan(volumes, budget=Budget(minutes=60, device="cpu"), init="scratch").reasons


class Stage:
    """A first run that finds blocks."""

    first, channels = Path("low"), 1

    def added(self, data):
        def read(key):
            sample = data.load(key)
            return with_class_channels(sample, sample.truth)

        return replace(data, load=read)

    def check(self, made):
        assert made.data.preprocess.class_channels == self.channels and len(made.training.crop) == 3

    def told(self, datasets):
        return f"{sum(map(len, datasets))} samples"


def test_the_second_network_sees_what_the_first_finds(volumes, costs, monkeypatch):
    asked = []
    monkeypatch.setattr(cascade.FirstStage, "of", lambda first, *rest, **more: asked.append(first) or Stage())
    made = plan(volumes, budget=Budget(minutes=60, device="cpu"), init="scratch", settings=["cascade.first=low"])
    assert asked == ["low"] and made.cascade.first == "low"
    assert made.data.preprocess.channels == made.data.preprocess.class_channels == 1 and made.model.in_channels == 2
    assert made.reasons["cascade.first"] == "3 samples" and 'first = "low" # 3 samples' in made.to_toml()
    assert Plan.from_toml(made.to_toml()) == made
    with pytest.raises(SettingError, match="a network is built for what a first run finds: make a plan with segwright plan"):
        made.with_settings(["data.preprocess.class_channels=0"])
