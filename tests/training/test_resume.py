"""A state is read back into a fresh learner as it was written."""

import json
import re
from dataclasses import replace

import pytest
import torch

from segwright.checkpoints.model_file import read_tensors, write_tensors
from segwright.core.errors import FormatError, UsageError
from segwright.core.run_files import MODEL_FILE, STATE_FILE
from segwright.tasks import Batch
from segwright.training.learner import Learner, launch
from segwright.training.loop import step
from segwright.training.resume import State, check_same_data, data_of
from segwright.training.run_data import RunData

DATA = RunData(train={"a": 1}, val={"b": 2}, classes=("x", "y"))


def learner_of(plan) -> Learner:
    return Learner.new(plan, launch(plan.training))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_is_written_reads_back_and_learns_on_the_same(tiny_plan, tmp_path, kind):
    tiny_plan = tiny_plan.with_settings([f"optimiser.kind={kind}"])
    generator = torch.Generator().manual_seed(0)
    batch = Batch(["a"], torch.randn(2, 1, 32, 48, generator=generator), torch.randint(2, (2, 32, 48), generator=generator))
    first, second = learner_of(tiny_plan), learner_of(tiny_plan)
    step(first, [batch], 0, 1.0)
    State(accumulate=2, step=1, position=2, seconds=1.5, best_score=0.25).write(tmp_path, first)
    assert State.read(tmp_path, second) == State(accumulate=2, step=1, position=2, seconds=1.5, best_score=0.25)
    assert step(first, [batch], 1, 1.0) == step(second, [batch], 1, 1.0)
    for a, b in zip(first.ema.state_dict().values(), second.ema.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_another_network_is_named(tiny_plan, tmp_path):
    State(accumulate=2).write(tmp_path, learner_of(tiny_plan))
    wider = replace(tiny_plan, model=replace(tiny_plan.model, width=8))
    with pytest.raises(FormatError, match="does not fit the network"):
        State.read(tmp_path, learner_of(wider))


@pytest.mark.parametrize("length", [0, 5, 1000, -1])
def test_a_state_cut_short_is_named(tiny_plan, tmp_path, length):
    State(accumulate=2, data=DATA).write(tmp_path, learner_of(tiny_plan))
    (tmp_path / STATE_FILE).write_bytes((tmp_path / STATE_FILE).read_bytes()[:length])
    for read in (lambda: State.read(tmp_path, learner_of(tiny_plan)), lambda: data_of(tmp_path)):
        with pytest.raises(FormatError, match="damaged or cut short .*; put back a copy of it, or start anew: segwright train"):
            read()


def test_the_data_are_kept_and_a_state_without_them_is_read(tiny_plan, tmp_path):
    State(accumulate=2, data=DATA).write(tmp_path, learner_of(tiny_plan))
    assert data_of(tmp_path) == DATA == State.read(tmp_path, learner_of(tiny_plan)).data
    tensors, facts = read_tensors(tmp_path / STATE_FILE)
    state = json.loads(facts["state"])
    del state["data"]  # as an earlier version wrote it
    write_tensors(tmp_path / STATE_FILE, tensors, {"state": json.dumps(state)})
    assert data_of(tmp_path) is None is State.read(tmp_path, learner_of(tiny_plan)).data
    check_same_data(tmp_path, replace(DATA, val={"c": 5}), "data")


def test_changed_data_are_refused_with_a_way_on(tiny_plan, tmp_path):
    """From the old weights only where they were not trained with what would be held out."""
    run = tmp_path / "a run"
    run.mkdir()
    State(accumulate=2, data=DATA).write(run, learner_of(tiny_plan))
    (run / MODEL_FILE).write_text("")
    check_same_data(run, DATA, "data")
    plan = re.escape(f"segwright train '{run / 'plan.toml'}'")
    for now, message in (
        (replace(DATA, val={"c": 3}), f"'b' is no longer there; .*'c' is new.*start anew: {plan} --set"),
        (replace(DATA, train={}, val={"a": 1}), f"'a' is to be held out after being trained.*start anew: {plan} --out FOLDER"),
        (replace(DATA, classes=("x", "z")), "'y' is no longer there.* plan for the new classes: segwright plan data --out"),
    ):
        with pytest.raises(UsageError, match=message):
            check_same_data(run, now, "data")


@pytest.mark.parametrize("name", ["weight", "optimiser/first/exp_avg", "network/weight"])
def test_a_foreign_file_is_named(tiny_plan, tmp_path, name):
    write_tensors(tmp_path / STATE_FILE, {name: torch.zeros(1)}, {})
    with pytest.raises(FormatError, match=f"{STATE_FILE} is not the state of a run .*start anew"):
        State.read(tmp_path, learner_of(tiny_plan))
