"""A run for each fold; each sample is measured by the run that held it out; all of them answer as one model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import segwright
from segwright.checkpoints.folds_folder import FoldsFolder
from segwright.checkpoints.model_file import ModelFile
from segwright.core.errors import FormatError, OutputError, SettingError, UsageError
from segwright.data.splits import open_folds
from segwright.evaluation.scores import Scores
from segwright.inference.load import load
from segwright.plans.plan import Plan
from segwright.training import loop
from segwright.training.resume import trained_with
from segwright.training.run_dir import check_free, read_log
from segwright.workflow import fit
from segwright.workflow import folds as workflow_folds
from segwright.workflow.folds import cross_validate, resume_folds

SHORT = 0.004  # minutes: some steps


@pytest.fixture
def folds(tiny_plan, tmp_path):
    plan = replace(tiny_plan, training=replace(tiny_plan.training, validations=1))
    made = FoldsFolder(folder=tmp_path / "run", plan=plan, count=2, minutes=SHORT)
    made.write()
    return made


@pytest.fixture
def pieces(folds):
    return open_folds(folds.plan.data.train, folds.count)


def test_each_sample_is_measured_by_the_run_that_held_it_out(folds, pieces, read_html):
    shares = []
    scores = cross_validate(folds, pieces, None, watch=lambda record: shares.append(record.get("progress")))
    known = [share for share in shares if share is not None]
    assert known == sorted(known) and known[0] < 0.1 and 0.5 < known[-1] <= 1
    keys = [key for piece in pieces for key in piece.val.keys]
    assert [*scores.per_image] == keys and scores.count == 8
    own = [Scores.from_json((run / "scores.json").read_text()) for run in folds.runs]
    assert scores.per_image == own[0].per_image | own[1].per_image
    assert (scores.confusion() == own[0].confusion() + own[1].confusion()).all()
    first, second = (each.values["mIoU"] for each in own)
    assert f"mIoU by fold: {first:.4f}, {second:.4f}; mean {(first + second) / 2:.4f}, standard" in scores.notes[-1]
    assert Scores.from_json((folds.folder / "scores.json").read_text()).notes == scores.notes
    assert "by fold" in " ".join(read_html((folds.folder / "report.html").read_text(encoding="utf-8")).text)
    for number, run in enumerate(folds.runs):
        assert Plan.read(run).data.fold == (number, 2) and Plan.read(run).training.steps == read_log(run)[-1]["step"]

    predictor = load(folds.folder)  # all runs as one
    temperature = Plan.read(folds.folder).inference.temperature
    assert temperature != 1 and predictor.network.temperature == temperature
    assert FoldsFolder.read(folds.folder).plan == folds.plan  # what it was begun with
    sample = pieces[0].val[0]
    view = predictor.preprocess(sample)
    alone = [load(run) for run in folds.runs]
    with torch.no_grad():
        image = torch.from_numpy(view.image)[None]
        expected = torch.stack([(each.network.eval()(image) / temperature).softmax(dim=1) for each in alone]).mean(dim=0)
    found = predictor.task.probabilities(predictor.run(2), view)
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=0, atol=0.02)  # an engine may compute in bfloat16
    assert predictor(sample).classes == sample.truth.classes or predictor.classes.names == alone[0].classes.names
    assert sorted(trained_with(folds.folder, segwright.open_dataset(folds.plan.data.train))) == sorted(keys)
    written = segwright.predict(folds.folder, folds.plan.data.train + "/val/images", folds.folder / "out", format="ade20k")
    assert written


def test_what_was_trained_is_kept_when_it_goes_on(folds, pieces, monkeypatch):
    of = loop.step

    def dying(learner, *rest):
        if learner.plan.data.fold == (1, 2):
            raise KeyboardInterrupt
        return of(learner, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(folds, pieces, None)
    first, second = (run / "model.safetensors" for run in folds.runs)
    assert (folds.runs[1] / "plan.toml").exists() and not second.exists() and not (folds.folder / "scores.json").exists()
    with pytest.raises(OutputError, match="holds a run already; go on with it by: segwright train --resume .*/run, or choose"):
        check_free(folds.folder)
    kept = ModelFile.read(first)
    scores = resume_folds(folds.folder, folds.plan.data.train)
    assert scores.count == 8 and second.exists()
    now = ModelFile.read(first)
    assert now.plan == kept.plan and all(torch.equal(now.weights[name], tensor) for name, tensor in kept.weights.items())
    with pytest.raises(UsageError, match="nowhere"):
        resume_folds(folds.folder, "nowhere")


def test_folds_of_so_many_steps_repeat_to_the_bit(tiny_plan, tmp_path, monkeypatch):
    def enough(*_):
        raise KeyboardInterrupt  # it is training that is looked at

    monkeypatch.setattr(workflow_folds, "counted", enough)
    plan = replace(tiny_plan, training=replace(tiny_plan.training, steps=3, validations=1))
    runs = []
    for name in ("first", "second"):
        FoldsFolder(folder=tmp_path / name, plan=plan, count=2, minutes=None).write()
        made = FoldsFolder.read(tmp_path / name)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(made, open_folds(plan.data.train, made.count), None)
        runs.append([ModelFile.read(path) for path in made.model_files()])
    for first, second in zip(*runs, strict=True):
        assert first.plan == second.plan and first.plan.training.steps == 3
        assert all(torch.equal(first.weights[name], tensor) for name, tensor in second.weights.items())
    of_fold_0, of_fold_1 = (model.weights for model in runs[0])
    assert any(not torch.equal(of_fold_0[name], tensor) for name, tensor in of_fold_1.items())  # they saw other samples


def test_an_unfinished_cross_validation_does_not_open(folds):
    with pytest.raises(FormatError, match="fold-0/model.safetensors is not there: the cross-validation in .* was not finished"):
        load(folds.folder)


def test_what_cannot_be_is_told_before_anything_is_written(tiny_plan, tmp_path):
    data = tiny_plan.data.train
    with pytest.raises(SettingError, match="5 folds and a fold are given; .* leave one of the two out"):
        fit(data, folds=5, fold=(0, 5), out=tmp_path / "run")
    with pytest.raises(SettingError, match="5 folds and val are given; .* leave one of the two out"):
        fit(data, folds=5, val=data, out=tmp_path / "run")
    for count in (1, 9):
        with pytest.raises(SettingError, match=f"{count} folds were asked for, of 8 samples"):
            fit(data, folds=count, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
