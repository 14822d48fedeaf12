"""A rule named in a setting becomes the numbers that it comes to on the data."""

from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.data.class_weights import class_weights
from segwright.data.fingerprint import fingerprint
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.models import unet
from segwright.planning.class_weight_rules import with_class_weights
from segwright.plans.plan import Data, Plan, Training

PLAN = Plan(data=Data(train="photos"), model=unet.Config(), training=Training(steps=1, batch_size=1, crop=(8, 8)))


@pytest.fixture
def found():
    classes = Classes.of(["a", "b"])
    sample = Sample.of("a", np.zeros((1, 4, 4), np.uint8), Segmentation.semantic(np.eye(4, dtype=int), classes))
    return replace(fingerprint(Dataset("data", classes, ("a",), lambda key: sample)), class_fractions=(0.8, 0.2))


def test_by_hand(found):
    settings = ["task.criterion.kind=cross_entropy", "task.criterion.class_weights=inverse_frequency", "training.seed=1"]
    assert with_class_weights(settings, found) == [settings[0], "task.criterion.class_weights=[0.625, 2.5]", settings[2]]


@pytest.mark.parametrize("rule", ["root", "inverse_frequency", "median_frequency"])
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_a_plan_gets_the_numbers(found, rule, quote):
    expected = class_weights(found.class_fractions, found.class_images, rule)
    settings = ["task.criterion.kind=cross_entropy", f"task.criterion.class_weights = {quote}{rule}{quote}"]
    assert PLAN.with_settings(with_class_weights(settings, found)).task.criterion.class_weights == expected


def test_a_rule_may_stand_inside_a_list_of_losses(found):
    terms = """task.criterion.terms=[{kind = "dice"}, {kind = "cross_entropy", class_weights = "root"}]"""
    changed = PLAN.with_settings(with_class_weights([terms], found)).task.criterion.terms
    assert changed == (Dice(), CrossEntropy(class_weights=class_weights((0.8, 0.2), (1, 1), "root")))


def test_other_words_are_left_to_the_plan_to_refuse(found):
    settings = ["task.criterion.kind=cross_entropy", "task.criterion.class_weights=rooted", "data.train=root"]
    assert with_class_weights(settings, found) == settings
    with pytest.raises(SettingError, match="'task.criterion.class_weights' is 'rooted'"):
        PLAN.with_settings(settings)
