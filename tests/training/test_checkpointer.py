"""The best of the averaged weights is kept, whoever measured which sample."""

import pytest

from segwright.checkpoints.model_file import ModelFile
from segwright.data.splits import open_splits
from segwright.training.checkpointer import Checkpointer
from segwright.training.learner import Learner, launch
from segwright.training.resume import State
from segwright.training.run_dir import MODEL_FILE, STATE_FILE, TrainLog, read_log


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


def test_a_worse_score_leaves_the_model(checkpointer, tiny_plan):
    learner = Learner.new(tiny_plan, launch(tiny_plan.training))
    checkpointer.validate(learner, State(accumulate=1))
    before = ModelFile.read(checkpointer.run / MODEL_FILE).weights["head.bias"]
    learner.ema.head.bias.fill_(7)
    checkpointer.validate(learner, State(accumulate=1, best_score=2.0))
    assert (ModelFile.read(checkpointer.run / MODEL_FILE).weights["head.bias"] == before).all()
    better = State(accumulate=1, best_score=-2.0)
    checkpointer.validate(learner, better)
    assert (ModelFile.read(checkpointer.run / MODEL_FILE).weights["head.bias"] == 7).all() and better.best_score >= 0
