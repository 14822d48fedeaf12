"""Scores for people and for programs."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segwright.encoders import resnet
from segwright.formats import mask_folder, synthetic
from segwright.models import sam_nano
from segwright.tasks.promptable import Promptable
from segwright.training.loop import train


def test_a_table_and_json(segwright, finished_run, tiny_plan, tmp_path):
    data = tiny_plan.data.train + "/val"
    code, out, err = segwright("evaluate", finished_run, data)
    assert code == 0 and "mIoU" in out and "95 % interval" in out, err
    code, out, _ = segwright("evaluate", finished_run, data, "--json", "--out", tmp_path / "scores.json")
    assert json.loads(out)["values"] == json.loads((tmp_path / "scores.json").read_text())["values"]
    code, _, err = segwright("evaluate", finished_run, data, "--out", f"{data}/classes.json")
    assert code == 2 and "classes.json is part of what is read" in err


def test_images_that_were_trained_with_are_told(segwright, tiny_plan, tmp_path, caplog):
    both = {part: f"{tiny_plan.data.train}/{part}" for part in ("train", "val")}
    train(tiny_plan.with_settings([f"data.{part}={folder}" for part, folder in both.items()]), tmp_path / "run")
    for part, text in (("train", "6 of these 6 images were trained with, such as"), ("val", "")):
        caplog.clear()
        code, _, err = segwright("evaluate", tmp_path / "run", both[part])
        assert code == 0 and text in caplog.text and (bool(text) or "trained with" not in caplog.text), err


def test_images_on_another_scale_are_said_and_rescaled(segwright, tiny_plan, tmp_path, caplog):
    train(
        tiny_plan.with_settings(["data.preprocess.normalise.mean=[60.0]", "data.preprocess.normalise.std=[40.0]"]),
        tmp_path / "run",
    )
    scores = {}
    for name, step in (("plain", 1), ("full", 257), ("twelve", 16)):
        mask_folder.write(tmp_path / name, synthetic.cells(2, shape=(48, 64), seed=2))
        for path in (tmp_path / name / "images").iterdir() if step > 1 else ():
            Image.fromarray(np.array(Image.open(path)).astype(np.uint16) * step).save(path)
        words = ("--values", "0", "4080") if name == "twelve" else ()
        caplog.clear()
        code, out, err = segwright("evaluate", tmp_path / "run", tmp_path / name, "--json", *words)
        assert code == 0 and ("images full at 65535 are divided by 257" in caplog.text) == (name == "full"), err
        scores[name] = json.loads(out)["values"]["mIoU"]
    assert abs(scores["full"] - scores["plain"]) < 0.01 and abs(scores["twelve"] - scores["plain"]) < 0.01
    segwright("evaluate", tmp_path / "run", tmp_path / "twelve")
    assert caplog.text.count("uint16 images seem to be on another scale") == 1


@pytest.fixture
def clicked_run(tiny_plan, tmp_path):
    """A run of two steps of a network that answers prompts."""
    encoder = resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16)
    network = sam_nano.Config(in_channels=1, encoder=encoder)
    training = replace(tiny_plan.training, steps=2, validations=1)
    return train(replace(tiny_plan, task=Promptable(), model=network, training=training), tmp_path / "run").parent


def test_a_network_that_answers_prompts_is_clicked_at_centres_and_beside_them(segwright, clicked_run, tiny_plan):
    data = tiny_plan.data.train + "/val"
    code, out, err = segwright("evaluate", clicked_run, data, "--interactive", "--metrics", "IoU@1,IoU@3", "--json")
    values = json.loads(out)["values"]
    assert code == 0 and list(values) == ["IoU@1", "IoU@3", "jittered IoU@1", "jittered IoU@3"], err
    code, out, err = segwright("evaluate", clicked_run, data)
    assert code == 0 and "IoU@5" in out and "Clicks are simulated" in out and f"{values['IoU@1']:.4f}" in out, err


def test_what_cannot_be_clicked_is_told(segwright, finished_run, tiny_plan):
    data = tiny_plan.data.train + "/val"
    code, _, err = segwright("evaluate", finished_run, data, "--interactive")
    assert code == 2 and "UNet, which answers no prompts" in " ".join(err.split()), err
    code, _, err = segwright("evaluate", finished_run, data, "--weights", "sam.pth")
    assert code == 2 and "add --interactive" in " ".join(err.split()), err
    code, _, err = segwright("evaluate", finished_run, data, "--weights", "sam.pth", "--interactive", "--values", "0", "9")
    assert code == 2 and "leave one out" in " ".join(err.split()), err
