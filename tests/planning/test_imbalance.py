"""What training will see of each class is told before it begins."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.data.samplers.foreground_patches import ForegroundPatches
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.dice import Dice
from segwright.planning.budget import Budget
from segwright.planning.imbalance import CROPS, FEWEST_CROPS, ClassBalance
from segwright.planning.planner import plan
from segwright.plans.plan import Augmentation
from segwright.tasks.semantic import Semantic
from segwright.training.dataloader import CropDataset
from segwright.transforms.geometric import Geometric

NO_CHANGE = Augmentation(geometric=Geometric(scale=(1.0, 1.0), flip_axes=()))
CLASSES = Classes.of(["background", "tumour"])


def data_of(class_map: np.ndarray, classes: Classes = CLASSES) -> Dataset:
    sample = Sample.of("a", np.zeros((1, *class_map.shape), np.uint8), Segmentation.semantic(class_map, classes))
    return Dataset("memory", classes, ("a", "b"), lambda key: replace(sample, key=key))


@pytest.fixture
def tumour() -> Dataset:
    class_map = np.zeros((64, 96), int)
    class_map[30:34, 40:46] = 1
    return data_of(class_map)


def crops_of(tiny_plan, data: Dataset, **parts) -> CropDataset:
    return CropDataset.of(data, replace(tiny_plan, augmentation=NO_CHANGE, **parts))


# By hand


def test_whole_images_are_seen_as_they_are(tiny_plan, tumour):
    training = replace(tiny_plan.training, crop=(64, 96))
    found = ClassBalance.of(crops_of(tiny_plan, tumour, training=training))
    assert found.count == CROPS and found.batch_size == 2 and found.crops.tolist() == [1, 1]
    assert found.pixels.tolist() == pytest.approx([1 - 24 / 6144, 24 / 6144])


def test_the_sampler_shows_in_the_crops_that_hold_a_class(tiny_plan, tumour):
    training = replace(tiny_plan.training, crop=(16, 24))
    uniform = ClassBalance.of(crops_of(tiny_plan, tumour, training=training))
    centred = ClassBalance.of(crops_of(tiny_plan, tumour, training=training, sampler=ForegroundPatches(share=1)))
    assert 0 < uniform.crops[1] < 0.5 < centred.crops[1] == 1 and uniform.pixels[1] < centred.pixels[1]


def test_cross_entropy_charges_by_pixels_and_dice_by_classes(tiny_plan, tumour):
    training = replace(tiny_plan.training, crop=(64, 96))

    def shares(criterion) -> list[float]:
        return ClassBalance.of(crops_of(tiny_plan, tumour, training=training, task=Semantic(criterion=criterion))).loss.tolist()

    assert shares(CrossEntropy()) == pytest.approx([1 - 24 / 6144, 24 / 6144], rel=1e-3)
    weights = (1.0, 6120 / 24)
    assert shares(CrossEntropy(class_weights=weights)) == pytest.approx([0.5, 0.5], abs=0.01)
    assert shares(Dice())[1] == pytest.approx(1 / 3, abs=0.03)  # who misses the background finds the object all over


def test_a_task_that_tells_no_charges_gets_none(tiny_plan, tumour):
    class Task:
        def target(self, crop):
            return crop

    crops = crops_of(tiny_plan, tumour)
    object.__setattr__(crops.plan, "task", Task())
    found = ClassBalance.of(crops)
    assert found.loss is None and "loss" not in found.told() and "pixels" in found.told()


# What is told


def test_the_table_is_read_by_people(tiny_plan, tumour):
    training = replace(tiny_plan.training, crop=(64, 96))
    lines = ClassBalance.of(crops_of(tiny_plan, tumour, training=training)).told().splitlines()
    assert lines[0] == (
        "what training will see, in 48 crops: pixels, crops of a batch that hold a class and, by class, what the loss charges "
        "for missing it"
    )
    assert [line.split() for line in lines[1:]] == [
        ["class", "pixels", "crops", "of", "2", "loss"],
        ["background", "99.61%", "2.0", "100%"],
        ["tumour", "0.39%", "2.0", "0%"],
    ]
    assert len({len(line) for line in lines[1:]}) == 1


def test_of_many_classes_the_rarest_are_told(tiny_plan):
    class_map = np.minimum(np.arange(64)[:, None] + np.zeros((1, 96), int), 29)
    classes = Classes.of([f"c{k}" for k in range(30)])
    training = replace(tiny_plan.training, crop=(64, 96))
    task = Semantic(criterion=Dice())
    found = ClassBalance.of(crops_of(tiny_plan, data_of(class_map, classes), training=training, task=task))
    assert "the 12 rarest of 30 classes" in found.told() and "c29" not in found.told() and len(found.told().splitlines()) == 14
    assert found.loss.sum() == pytest.approx(1) and (found.loss > 0).all()


def test_masks_without_any_class_are_no_error(tiny_plan):
    found = ClassBalance.of(crops_of(tiny_plan, data_of(np.full((64, 96), -1))))
    assert found.pixels.tolist() == [0, 0] and found.loss.tolist() == [0, 0]


def test_slow_images_are_few(tiny_plan, tumour, monkeypatch):
    monkeypatch.setattr("segwright.planning.imbalance.SECONDS", 0.0)
    assert ClassBalance.of(crops_of(tiny_plan, tumour)).count == FEWEST_CROPS


def test_planning_tells_it(tiny_plan, caplog):
    caplog.set_level(logging.INFO)
    threads = torch.get_num_threads()
    made = plan(tiny_plan.data.train, budget=Budget(minutes=0.05, device="cpu"), init="scratch")
    assert f"crops of {made.training.batch_size}" in caplog.text and "what training will see" in caplog.text
    assert torch.get_num_threads() == threads
