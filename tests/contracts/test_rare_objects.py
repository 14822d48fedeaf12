"""One small object in each image, a pixel in a thousand: who counts pixels alone does not find it, and the planner does."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.data.fingerprint import fingerprint
from segwright.data.samplers.foreground_patches import ForegroundPatches
from segwright.data.samplers.uniform import Uniform
from segwright.formats import mask_folder
from segwright.losses.cross_entropy import CrossEntropy
from segwright.losses.weighted_sum import WeightedSum
from segwright.planning.budget import Budget
from segwright.planning.rules import sampler_rules
from segwright.plans.plan import Plan
from segwright.tasks.semantic import Semantic
from segwright.training.loop import train
from segwright.training.run_dir import read_log
from segwright.workflow import finish, fit

SIDE, RADIUS = 128, 2.3  # pixels: an object covers 21 of 16 384, a thousandth
STEPS = 400  # after which the planner's choice was at 0.89, and cross-entropy alone at 0
CLASSES = Classes.of(["background", "object"])


def objects(count: int, seed: int) -> Dataset:
    """Grey images in noise, each with one disc, and with lines as bright that are none."""

    def load(key: str) -> Sample:
        generator = np.random.default_rng([seed, int(key)])
        rows, columns = np.mgrid[:SIDE, :SIDE]
        row, column = generator.integers(6, SIDE - 6, 2)
        is_object = (rows - row) ** 2 + (columns - column) ** 2 <= RADIUS**2
        image = generator.normal(100, 20, (SIDE, SIDE)) + 60 * is_object
        for at in generator.integers(0, SIDE, 4):
            image[at : at + 2] += 60
        image = np.where(is_object, np.minimum(image, 200), image)
        truth = Segmentation.semantic(is_object.astype(int), CLASSES)
        return Sample.of(key, image.clip(0, 255).astype(np.uint8)[None], truth)

    return Dataset("memory", CLASSES, tuple(f"{number:03d}" for number in range(count)), load)


def test_the_planner_weighs_and_looks_for_what_is_so_rare():
    found = fingerprint(objects(20, seed=1))
    assert 0.0008 < found.class_fractions[1] < 0.0015
    sampler, why_sampler = sampler_rules(found)
    task, why_task = Semantic.planned(found)
    assert sampler == ForegroundPatches() and "'object' is the rarest class, with 0.1" in why_sampler["sampler"]
    assert isinstance(task.criterion, WeightedSum) and task.criterion.terms[0].class_weights[1] > 10
    assert "0.1" in why_task["task.criterion"]


@pytest.fixture
def data(tmp_path) -> Path:
    mask_folder.write(tmp_path / "data" / "train", objects(20, seed=1))
    mask_folder.write(tmp_path / "data" / "val", objects(6, seed=2))
    return tmp_path / "data"


@pytest.mark.slow
def test_in_three_minutes_the_planner_finds_what_cross_entropy_alone_does_not(data, tmp_path):
    """Five minutes: `fit`, another sampler and loss for as many steps as need a minute, and once more as the warning says."""
    scores = fit(data, budget=Budget(minutes=3, device="cpu"), out=tmp_path / "planned")
    assert scores.values["Dice/object"] >= 0.8
    plan = Plan.read(tmp_path / "planned")
    training = replace(plan.training, steps=STEPS)
    plain = replace(plan, training=training, task=Semantic(criterion=CrossEntropy()), sampler=Uniform())
    train(plain, tmp_path / "plain")
    assert finish(tmp_path / "plain").values["Dice/object"] < 0.05
    (warning,) = [record for record in read_log(tmp_path / "plain") if "collapsed" in record]
    assert warning["collapsed"] == ["object"]
    words = shlex.split(warning["event"].partition("start anew: ")[2])
    settings = [word for before, word in zip(words, words[1:], strict=False) if before == "--set"]
    train(Plan.read(Path(words[2])).with_settings(settings), tmp_path / "cured")
    assert finish(tmp_path / "cured").values["Dice/object"] >= 0.7
