"""The model that a run is tuned from is opened as its run would ask it, or it is said why it cannot be."""

from dataclasses import replace

import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.data.splits import open_splits
from segwright.decoding.postprocess import Postprocess
from segwright.encoders import resnet
from segwright.evaluation.evaluate import count_predictions
from segwright.inference.load import load
from segwright.models import sam_nano
from segwright.planning import starting_model as file
from segwright.planning.start import Start
from segwright.planning.starting_model import starting_model
from segwright.plans.plan import Inference, Init
from segwright.tasks.promptable import Promptable
from segwright.transforms.prepare import Preprocess

SMALL = sam_nano.Config(encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16))


@pytest.fixture
def run(tiny_plan, tmp_path):
    """The folder of an earlier run of `tiny_plan`, which has learnt nothing."""
    torch.manual_seed(0)
    classes = open_splits(tiny_plan.data.train).train.classes
    (tmp_path / "run").mkdir()
    ModelFile(tiny_plan.model.build().state_dict(), tiny_plan, classes).write(tmp_path / "run" / "model.safetensors")
    return tmp_path / "run"


@pytest.fixture
def val(tiny_plan):
    return open_splits(tiny_plan.data.train).val


def starting(plan, name):
    return replace(plan, init=Init(weights=str(name)))


def test_random_weights_and_those_of_an_encoder_are_no_model(tiny_plan, val, monkeypatch):
    assert starting_model(tiny_plan, val) is None
    assert starting_model(starting(tiny_plan, "timm"), val) is None
    monkeypatch.setattr(file, "named_start", lambda wish: Start(init=Init(weights="resnet50"), normalise=None, why=""))
    assert starting_model(starting(tiny_plan, "resnet50"), val) is None


def test_an_earlier_run_answers_as_it_is_by_the_rules_of_the_run_that_is_tuned(tiny_plan, run, val):
    model = starting_model(starting(tiny_plan, run), val)
    assert model.name == str(run) and model.is_alike and not model.why_not
    counted, alone = model.count(["mIoU"], val.keys[:1]), count_predictions(load(run), val, metrics=["mIoU"], keys=val.keys[:1])
    assert counted.counted[0].scores == alone.counted[0].scores
    rules = Inference(tile=(48, 64), flip_axes=(-1,), postprocess=Postprocess(largest=(1,)))
    asked = starting_model(replace(starting(tiny_plan, run), inference=rules), val).ask.args[0]
    assert asked.flips == (-1,) and asked.postprocess == rules.postprocess and asked.preprocess == tiny_plan.data.preprocess
    seen = replace(tiny_plan.data, preprocess=Preprocess(channels=1, scale=(0.5, 0.5)))
    assert not starting_model(replace(starting(tiny_plan, run), data=seen), val).is_alike


def test_other_tasks_and_classes_are_told(tiny_plan, run, val):
    clicks = replace(starting(tiny_plan, run), task=Promptable(), model=replace(SMALL, in_channels=1))
    assert starting_model(clicks, val).why_not == "it was trained for semantic segmentation"
    others = replace(val, classes=Classes.of(["glass", "bacterium"]))
    model = starting_model(starting(tiny_plan, run), others)
    assert model.why_not.endswith("and those of the data 'glass', 'bacterium'") and model.count(["mIoU"]) is None
    missing = starting_model(starting(tiny_plan, run.with_name("gone.pth")), val)
    assert missing.ask is None and missing.why_not.startswith("it cannot be opened (")


def test_a_published_click_network_is_clicked_on_in_its_own_size(tiny_plan, val, monkeypatch, tmp_path):
    torch.manual_seed(0)
    torch.save(SMALL.build().state_dict(), tmp_path / "clicks.pth")
    start = Start(init=Init(weights="clicks"), normalise=None, why="", network=SMALL, preset="sam_small")
    monkeypatch.setattr(file, "named_start", lambda wish: start)
    monkeypatch.setattr("segwright.inference.prompting.preset", lambda name: SMALL)
    plan = replace(starting(tiny_plan, tmp_path / "clicks.pth"), task=Promptable())
    model = starting_model(plan, val)
    assert not model.is_alike and model.ask.args[0].side == 512
    found = model.count(["IoU@1"], val.keys[:1])
    assert 0 <= found.counted[0].scores["IoU@1"] <= 1


def test_a_published_network_of_classes_without_its_head_is_no_model(tiny_plan, val, monkeypatch):
    start = Start(init=Init(weights="x", new_head=True), normalise=None, why="", network=tiny_plan.model, preset="unet")
    monkeypatch.setattr(file, "named_start", lambda wish: start)
    assert "its head, which is for other classes, was left out" in starting_model(starting(tiny_plan, "x"), val).why_not
    head = replace(start, init=Init(weights="x"))
    monkeypatch.setattr(file, "named_start", lambda wish: head)
    monkeypatch.setattr(file, "load", lambda name, weights, task: load_said(name, weights, task))
    assert starting_model(starting(tiny_plan, "x"), val).why_not == "it cannot be opened (unet x semantic)"


def load_said(*words):
    from segwright.core.errors import UsageError

    raise UsageError(" ".join(words))
