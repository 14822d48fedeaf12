"""What runs that were trained say of samples that they held out becomes intervals of the Dice to expect."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.decoding.expected_dice import QualityCalibration
from segwright.evaluation.conformal import FEWEST
from segwright.formats import synthetic
from segwright.inference.load import load
from segwright.plans.plan import Plan
from segwright.tasks.instance import Instance
from segwright.training.run_dir import start_folder
from segwright.workflow import quality_intervals as module
from segwright.workflow.quality_intervals import with_quality
from segwright.workflow.score_run import note_inference


@pytest.fixture
def run_of(tiny_plan, tmp_path):
    """Makes a run with random weights, and samples that it holds out."""

    def made(count, seed=0):
        torch.manual_seed(seed)
        network = tiny_plan.model.build()
        torch.nn.init.normal_(network.head.weight, std=2.0)
        run, cells = tmp_path / f"run-{seed}", synthetic.cells(count, shape=(32, 48), seed=seed)
        keys = {f"{seed}-{key}": key for key in cells.keys}  # which differ from those of other runs
        data = replace(cells, keys=tuple(keys), load=lambda key: replace(cells.load(keys[key]), key=key))
        run.mkdir()
        classes = tiny_plan.task.dataset(data).classes
        ModelFile(network.state_dict(), tiny_plan, classes).write(run / "model.safetensors")
        return run, data

    return made


def test_intervals_of_a_run_are_kept_in_its_plan_and_its_model(run_of, tiny_plan, tmp_path):
    run, data = run_of(24)
    inference, told = with_quality(replace(tiny_plan.inference, temperature=2.0), tiny_plan, [(run, data)])
    quality = inference.quality
    assert len(quality.low) == 3 and quality.has_intervals and quality.always == (0, 1)
    assert "24 validation images" in told[0] and inference.temperature == 2.0
    start_folder(tmp_path / "noted", tiny_plan)
    note_inference(tmp_path / "noted", inference)
    assert Plan.read(tmp_path / "noted").inference == inference
    content = ModelFile.read(run / "model.safetensors")
    replace(content, plan=replace(content.plan, inference=inference)).write(run / "model.safetensors")
    predictor = load(run)
    assert predictor.quality == quality
    hits = []
    for sample in predictor.task.dataset(data):
        found, _, (_, low, high) = predictor.with_uncertainty(sample)
        truth, labels = sample.truth.class_map() == 1, found.class_map() == 1
        hits.append(low[1] <= 2 * (truth & labels).sum() / (truth.sum() + labels.sum()) <= high[1])
    assert np.sum(hits) >= 22  # one below and one above are left out of those that it was fitted to
    assert with_quality(inference, tiny_plan, [(run, data)]) == (inference, ())  # what is set stays


def test_runs_of_folds_are_asked_about_what_each_held_out(run_of, tiny_plan):
    parts = [run_of(10, seed) for seed in (0, 1)]
    inference, told = with_quality(tiny_plan.inference, tiny_plan, parts)
    assert inference.quality.has_intervals and "20 validation images" in told[0]
    swapped = [(parts[0][0], parts[1][1]), (parts[1][0], parts[0][1])]
    assert with_quality(tiny_plan.inference, tiny_plan, swapped)[0] != inference


def test_of_a_cascade_those_first_runs_are_asked_that_have_not_learnt_a_sample(run_of, tiny_plan, monkeypatch):
    parts, asked = [run_of(10, seed) for seed in (0, 1)], []

    def first_stage(plan, datasets, run, *, own_modules):
        asked.append((run, [key for data in datasets for key in data.keys]))

    monkeypatch.setattr(module, "first_stage", first_stage)
    with_quality(tiny_plan.inference, tiny_plan, parts)
    assert asked == [(run, list(data.keys)) for run, data in parts]
    monkeypatch.setattr(module, "first_stage", lambda *_, **__: "by those that held it out")
    assert module.asked_fairly(parts[0][0], tiny_plan, parts[0][1]).first == "by those that held it out"


def test_too_few_samples_give_no_interval_and_say_so(run_of, tiny_plan):
    run, data = run_of(FEWEST - 1)
    inference, told = with_quality(tiny_plan.inference, tiny_plan, [(run, data)])
    assert inference.quality == QualityCalibration()
    assert f"has no interval: {FEWEST - 1} validation images" in told[0]


def test_of_objects_nothing_is_expected(run_of, tiny_plan):
    of_objects = replace(tiny_plan, task=Instance())
    assert with_quality(tiny_plan.inference, of_objects, [run_of(10)]) == (tiny_plan.inference, ())
