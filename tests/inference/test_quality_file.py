"""quality.csv: what to expect of each image, the worst first."""

import csv
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from segwright.core import Classes
from segwright.decoding.expected_dice import Quality, QualityCalibration
from segwright.inference.predict_files import predict
from segwright.inference.predictor import Predictor
from segwright.inference.quality_file import QUALITY_FILE, write_quality
from segwright.models import unet
from segwright.tasks.semantic import Semantic
from segwright.transforms.prepare import Preprocess

NAN = float("nan")


def quality(expected, low, high):
    return Quality(*map(np.array, (expected, low, high)))


def test_the_worst_image_comes_first_and_its_mean_before_its_classes(tmp_path, caplog):
    found = {
        "good": quality([0.9, 0.8, 0.85], [0.7, 0.6, 0.65], [1.0, 0.95, 0.97]),
        "bad": quality([0.6, NAN, 0.3], [0.5, NAN, 0.1], [0.75, NAN, 0.5]),
        "empty": quality([NAN] * 3, [NAN] * 3, [NAN] * 3),
    }
    path = write_quality(tmp_path, found, ["cell, dead", "b"])
    assert path == tmp_path / QUALITY_FILE and not caplog.records
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["case", "class", "expected_dice", "low", "high"]
    assert [row[0] for row in rows[1:]] == ["empty"] * 3 + ["bad"] * 3 + ["good"] * 3
    assert rows[4] == ["bad", "mean", "0.3000", "0.1000", "0.5000"] and rows[5][1] == "cell, dead"
    assert rows[6] == ["bad", "b", "", "", ""] and rows[9] == ["good", "b", "0.8000", "0.6000", "0.9500"]


def test_where_there_are_no_intervals_that_is_said(tmp_path, caplog):
    write_quality(tmp_path, {"a": quality([0.5, 0.5], [NAN] * 2, [NAN] * 2)}, ["x"])
    assert "quality.csv has no intervals: the run held out too few samples" in caplog.text
    assert "a,mean,0.5000,,\n" in (tmp_path / QUALITY_FILE).read_text()


def test_predictions_come_with_it(tmp_path):
    torch.manual_seed(0)
    network = unet.Config(in_channels=1, num_classes=2, width=4, depth=2).build().eval()
    torch.nn.init.normal_(network.head.weight, std=2.0)
    plain = Predictor(network=network, task=Semantic(), classes=Classes.of(["a", "b"]), preprocess=Preprocess(channels=1))
    learned = replace(plain, quality=QualityCalibration(low=(-1.0,) * 3, middle=(0.0,) * 3, high=(1.0,) * 3))
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 255, (32, 48), np.uint8) for name in ("x", "y", "z")}
    for name, values in images.items():
        Image.fromarray(values).save(tmp_path / "in" / f"{name}.png")
    written = predict(learned, tmp_path / "in", tmp_path / "out", uncertainty=True)
    assert written[-1] == tmp_path / "out" / QUALITY_FILE
    with written[-1].open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "mean"]
    means = {name: learned.with_uncertainty(values[None])[2] for name, values in images.items()}
    assert [row["case"] for row in rows] == sorted(means, key=lambda name: means[name].expected[-1])
    for row in rows:
        expected, low, high = (each[-1] for each in means[row["case"]])
        assert (row["expected_dice"], row["low"], row["high"]) == (f"{expected:.4f}", f"{low:.4f}", f"{high:.4f}")
    again = predict(learned, tmp_path / "in", tmp_path / "masks")
    assert not (tmp_path / "masks" / QUALITY_FILE).exists() and len(again) == 3
