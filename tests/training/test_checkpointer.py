"""The best of the averaged weights is kept, whoever measured which sample."""

import time
from dataclasses import replace

import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.core.run_files import MODEL_FILE, STATE_FILE
from segwright.data.splits import open_splits
from segwright.evaluation.evaluate import Tally
from segwright.training.checkpointer import Checkpointer
from segwright.training.learner import Learner, launch
from segwright.training.resume import State
from segwright.training.run_dir import TrainLog, read_log


@pytest.fixture
def checkpointer(tiny_plan, tmp_path) -> Checkpointer:
    (tmp_path / "run").mkdir()
    return Checkpointer(tmp_path / "run", tiny_plan, open_splits(tiny_plan.data.train).val, TrainLog(tmp_path / "run"))


def test_what_is_due_is_done_once(checkpointer, tiny_plan):
    learner, state = Learner.new(tiny_plan, launch(tiny_plan.training)), State(accumulate=1)
    checkpointer.keep(learner, state, 0.4)
    assert not list(checkpointer.run.iterdir())
    for _ in range(2):
        checkpointer.keep(learner, state, 0.5)
    assert [record["metric"] for record in read_log(checkpointer.run)] == ["mIoU"]
    assert (checkpointer.run / STATE_FILE).exists() and (checkpointer.run / MODEL_FILE).exists()


def test_a_run_by_the_clock_learns_as_long_as_scoring_took_before_it_is_scored_anew(checkpointer, tiny_plan, monkeypatch):
    learner, state, scored = Learner.new(tiny_plan, launch(tiny_plan.training)), State(accumulate=1), []
    checkpointer = replace(
        checkpointer, by_clock=True, plan=replace(tiny_plan, training=replace(tiny_plan.training, validations=100))
    )
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def validate(self, learner, state, progress):
        nonlocal now
        now += 10.0
        scored.append(progress)

    monkeypatch.setattr(Checkpointer, "validate", validate)
    for progress in (0.1, 0.2, 0.3):  # scored until 10, so that it learns until 20
        checkpointer.keep(learner, state, progress)
        now += 1.0
    assert scored == [0.1]
    now = 21.0
    checkpointer.keep(learner, state, 0.4)
    checkpointer.keep(learner, state, 1.0)
    assert scored == [0.1, 0.4, 1.0]
    counted = replace(checkpointer, by_clock=False)
    for progress in (0.5, 0.6):
        counted.keep(learner, State(accumulate=1), progress)
    assert scored == [0.1, 0.4, 1.0, 0.5, 0.6]


def test_a_worse_score_leaves_the_model(checkpointer, tiny_plan):
    learner = Learner.new(tiny_plan, launch(tiny_plan.training))
    checkpointer.validate(learner, State(accumulate=1), 0.5)
    before = ModelFile.read(checkpointer.run / MODEL_FILE).weights["head.bias"]
    learner.ema.head.bias.fill_(7)
    checkpointer.validate(learner, State(accumulate=1, best_score=2.0), 0.5)
    assert (ModelFile.read(checkpointer.run / MODEL_FILE).weights["head.bias"] == before).all()
    better = State(accumulate=1, best_score=-2.0)
    checkpointer.validate(learner, better, 0.5)
    assert (ModelFile.read(checkpointer.run / MODEL_FILE).weights["head.bias"] == 7).all() and better.best_score >= 0


def test_where_nothing_can_be_measured_the_newest_weights_are_kept_and_one_warning_says_so(
    checkpointer, tiny_plan, monkeypatch, caplog
):
    learner, state, value = Learner.new(tiny_plan, launch(tiny_plan.training)), State(accumulate=1), float("nan")
    scores = Tally.scores
    monkeypatch.setattr(Tally, "scores", lambda tally, resamples: replace(scores(tally, resamples), values={"mIoU": value}))
    monkeypatch.setattr("segwright.training.checkpointer.of_classes", lambda values, recall: {})
    monkeypatch.setattr("segwright.training.checkpointer.collapse", lambda *given: None)

    def kept(number: float) -> float:
        learner.ema.head.bias.fill_(number)
        checkpointer.validate(learner, state, 0.5)
        return float(ModelFile.read(checkpointer.run / MODEL_FILE).weights["head.bias"][0])

    assert [kept(1.0), kept(2.0)] == [1.0, 2.0] and state.best_score == -1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "mIoU cannot be measured, as no validation sample holds what it counts" in caplog.text
    value = 0.5
    assert kept(3.0) == 3.0 and state.best_score == 0.5
    value = float("nan")  # what was measured goes before what was not
    assert kept(4.0) == 3.0 and state.best_score == 0.5


def test_a_class_that_is_never_found_is_told_of(checkpointer, tiny_plan):
    learner = Learner.new(tiny_plan, launch(tiny_plan.training))
    learner.ema.head.weight.zero_()
    learner.ema.head.bias.copy_(torch.tensor([1.0, 0.0]))  # background everywhere
    for step, progress in ((2, 0.2), (4, 0.4), (6, 0.6), (8, 0.8)):
        checkpointer.validate(learner, State(accumulate=1, step=step), progress)
    background, cell = checkpointer.val_set.classes.names
    records = read_log(checkpointer.run)
    validations = [record for record in records if "score" in record]
    assert [record["recall"] for record in validations] == [{background: 1.0, cell: 0.0}] * 4
    (warning,) = [record for record in records if "event" in record]
    assert warning["collapsed"] == [cell] and warning["step"] == 6
    assert f"nothing of '{cell}' was found" in warning["event"] and "--set sampler.kind=foreground_patches" in warning["event"]


def test_a_task_that_knows_no_classes_is_told_of_none(checkpointer, tiny_plan):
    own = tiny_plan.task

    class Task:
        def __getattr__(self, name):
            if name in ("charges", "recall", "against_collapse"):
                raise AttributeError(name)
            return getattr(own, name)

    learner = Learner.new(tiny_plan, launch(tiny_plan.training))
    object.__setattr__(checkpointer.plan, "task", Task())
    (checkpointer.run / MODEL_FILE).touch()  # which this task, having no file, could not be written into
    checkpointer.validate(learner, State(accumulate=1, best_score=2.0), 1.0)
    (record,) = read_log(checkpointer.run)
    assert set(record) == {"step", "seconds", "score", "metric"}
