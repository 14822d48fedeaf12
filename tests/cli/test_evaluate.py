"""Scores for people and for programs."""

import json

import numpy as np
from PIL import Image

from segwright.formats import mask_folder, synthetic
from segwright.training.loop import train


def test_a_table_and_json(segwright, finished_run, tiny_plan, tmp_path):
    data = tiny_plan.data.train + "/val"
    code, out, err = segwright("evaluate", finished_run, data)
    assert code == 0 and "mIoU" in out and "95 % interval" in out, err
    code, out, _ = segwright("evaluate", finished_run, data, "--json", "--out", tmp_path / "scores.json")
    assert json.loads(out)["values"] == json.loads((tmp_path / "scores.json").read_text())["values"]


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
