"""One network of queries for all three tasks: planned, trained, scored, and asked from the same file by every command.

Planning takes its ways through real crops, but each step costs the same; some steps of a small network are real.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.errors import SettingError, UsageError
from segwright.data.objects_alone import objects_alone
from segwright.formats import coco, coco_panoptic, mask_folder, open_dataset, synthetic
from segwright.inference.load import load
from segwright.planning import trial
from segwright.planning.budget import Budget, Cost
from segwright.planning.planner import planned
from segwright.planning.start import Wish
from segwright.plans.plan import Data, Inference, Plan, Training
from segwright.tasks.instance import Instance
from segwright.tasks.panoptic import Panoptic
from segwright.tasks.semantic import Semantic
from segwright.training.loop import train
from segwright.transforms.prepare import Preprocess
from segwright.workflow import finish

NOTHING_ELSE = {"val": None, "fold": None, "model": None, "wish": Wish(weights="scratch")}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """A network of one's own can be imported, and the cost of a step is not foreseen."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(trial, "within", lambda plan, memory: plan)
    monkeypatch.setattr(trial, "step_cost", lambda plan, parts: Cost(seconds=0.1, memory_bytes=1000))


def trained(root: Path, data: str, task: Any, channels: int = 3) -> Path:
    """A run of two steps, without a planner."""
    from toybox.queries import Config

    classes = task.dataset(open_dataset(data)).classes
    plan = Plan(
        task=task,
        data=Data(train=data, preprocess=Preprocess(channels=channels)),
        model=Config(in_channels=channels, num_classes=len(classes)),
        training=Training(steps=2, batch_size=2, crop=(32, 48), validations=1),
        inference=Inference(tile=(48, 64)),
    )
    train(plan, root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    """Scenes with things and stuff, in folders of panoptic data."""
    root = tmp_path_factory.mktemp("streets")
    for part, count in (("train", 6), ("val", 2)):
        coco_panoptic.write(root / part, synthetic.streets(count, shape=(48, 64), seed=count))
    return root


@pytest.fixture
def run(streets, tmp_path) -> Path:
    budget = Budget(minutes=0.05, device="cpu")
    made = planned(str(streets), task="panoptic", budget=budget, settings=["model.kind=toybox.queries"], **NOTHING_ELSE)
    training = replace(made.plan.training, steps=8, validations=1, precision="32-true", crop=(32, 48))
    train(replace(made.plan, training=training), tmp_path / "run", splits=made.splits, values=made.values)
    return tmp_path / "run"


def command(monkeypatch, capsys, *words: object) -> tuple[int, str, str]:
    from segwright.cli.app import main

    monkeypatch.setattr(sys, "argv", ["segwright", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, *capsys.readouterr()


def test_one_run_answers_all_three_tasks(run, streets, tmp_path, monkeypatch, capsys):
    scores = finish(run)
    values = json.loads((run / "scores.json").read_text())["values"]
    assert {"PQ", "PQ things", "PQ stuff", "mIoU", "AP"} <= values.keys() and values["PQ"] == pytest.approx(scores.values["PQ"])
    assert all(score in (run / "report.html").read_text() for score in ("PQ", "mIoU", "AP"))

    names = {"semantic": "mIoU", "instance": "AP", "panoptic": "PQ"}
    for task, score in names.items():
        code, out, err = command(monkeypatch, capsys, "evaluate", run, streets, "--task", task, "--json", "--own-modules")
        assert code == 0 and score in json.loads(out)["values"], err
        images = [streets / "val" / "images"]
        code, _, err = command(
            *(monkeypatch, capsys, "predict", run, *images, "--task", task, "--out", tmp_path / task, "--min-score", "0"),
            *(["--own-modules"] + (["--format", "coco_panoptic"] if task == "panoptic" else [])),
        )
        assert code == 0, err
    found = {task: open_dataset(tmp_path / task) for task in names if task != "semantic"}
    assert found["instance"].classes.names == ("car", "pedestrian") and all(found["instance"].classes.is_thing)
    assert len(found["panoptic"].classes) == 9 and len(found["panoptic"]) == len(found["instance"]) == 2
    assert len(list((tmp_path / "semantic").glob("*.png"))) == 2

    opened = load(run, own_modules=True)
    assert isinstance(opened.task, Panoptic) and opened.answers == opened.classes
    assert isinstance(load(run, task="instance", own_modules=True).task, Instance)
    assert load(run, task="instance", own_modules=True).answers.names == ("car", "pedestrian")
    with pytest.raises(SettingError, match="objects of queries.*predict without flips"):
        replace(load(run, task="instance", own_modules=True), flips=(-1,))(np.zeros((3, 48, 64), np.uint8))


def test_data_of_classes_alone_train_it_too(tmp_path):
    scenes = synthetic.streets(4, shape=(48, 64))
    mask_folder.write(tmp_path / "data", scenes)
    run = trained(tmp_path, str(tmp_path / "data"), Semantic())
    assert isinstance(load(run, own_modules=True).task, Semantic)
    assert load(run, own_modules=True)(scenes[0]).class_map().shape == (48, 64)


def test_data_of_objects_alone_train_it_too(tmp_path):
    cells = objects_alone(synthetic.cells(4, shape=(48, 64)))
    coco.write(tmp_path / "data", cells)
    run = trained(tmp_path, str(tmp_path / "data"), Panoptic(), channels=1)
    assert load(run, own_modules=True)(cells[0]).classes.names == ("cell",)
    semantic = load(run, task="semantic", own_modules=True)
    assert semantic.answers.names == semantic(cells[0]).classes.names == ("background", "cell")
    run = trained(tmp_path / "instance", str(tmp_path / "data"), Instance(), channels=1)
    assert load(run, own_modules=True)(cells[0]).classes.names == ("cell",)


def test_a_task_that_a_run_cannot_do_is_told(tmp_path, monkeypatch, capsys):
    streets = "synthetic:streets?count=4&shape=48x64"
    run = trained(tmp_path, streets, Semantic())
    code, _, err = command(monkeypatch, capsys, "evaluate", run, streets, "--task", "instance", "--own-modules")
    assert code == 2 and "has learnt one segment for each class" in " ".join(err.split())
    with pytest.raises(UsageError, match="train with --task panoptic, which does for all three"):
        load(run, task="panoptic", own_modules=True)
    assert isinstance(load(run, task="semantic", own_modules=True).task, Semantic)


def test_a_dense_network_is_told_what_it_is_for(tiny_plan, tmp_path):
    train(tiny_plan, tmp_path / "run")
    with pytest.raises(
        SettingError, match="is a unet, trained for semantic segmentation, and cannot do panoptic.*leave --task"
    ):
        load(tmp_path / "run", task="panoptic")
    assert load(tmp_path / "run", task="semantic").answers.names == load(tmp_path / "run").classes.names
