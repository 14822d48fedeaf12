"""The main job ends inside its minutes with a report; see also tests/cli/test_fit.py."""

import time

import segwright
from segwright.checkpoints.model_file import ModelFile
from segwright.planning.budget import Budget
from segwright.plans.plan import Plan
from segwright.training.run_dir import read_log
from segwright.workflow import fit, free_folder


def test_fit_in_python_ends_in_time_and_the_model_predicts(tiny_plan, tmp_path):
    started = time.monotonic()
    scores = fit(tiny_plan.data.train, out=tmp_path / "run", model="unet_small", budget=Budget(minutes=0.2))
    assert time.monotonic() - started < 0.2 * 60 * 1.1 + 10  # 10 s: a first compilation of the kernels
    assert scores.count == 2
    assert "Borders and interiors" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    model = segwright.load(tmp_path / "run")
    sample = segwright.open_dataset(tiny_plan.data.train + "/val")[0]
    assert model(sample).shape == sample.grid.shape
    plan = Plan.read(tmp_path / "run")
    assert plan.training.steps == read_log(tmp_path / "run")[-1]["step"]
    assert "as many as the minutes" in (tmp_path / "run" / "plan.toml").read_text()
    assert ModelFile.read(tmp_path / "run" / "model.safetensors").plan == plan


def test_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_folder("some/where/cells").as_posix() == "runs/cells-1"
    (tmp_path / "runs" / "cells-1").mkdir(parents=True)
    assert free_folder("some/where/cells/").as_posix() == "runs/cells-2"
    assert free_folder("synthetic:streets?count=3").as_posix() == "runs/synthetic-streets-1"
