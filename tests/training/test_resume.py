"""A state is read back into a fresh learner as it was written."""

from dataclasses import replace

import pytest
import torch

from segwright.checkpoints.model_file import write_tensors
from segwright.core.errors import FormatError
from segwright.tasks import Batch
from segwright.training.resume import STATE_FILE, State
from segwright.training.train_step import Learner, launch


def learner_of(plan) -> Learner:
    return Learner.new(plan, launch(plan.training))


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_what_is_written_reads_back_and_learns_on_the_same(tiny_plan, tmp_path, kind):
    tiny_plan = tiny_plan.with_settings([f"optimiser.kind={kind}"])
    generator = torch.Generator().manual_seed(0)
    batch = Batch(["a"], torch.randn(2, 1, 32, 48, generator=generator), torch.randint(2, (2, 32, 48), generator=generator))
    first, second = learner_of(tiny_plan), learner_of(tiny_plan)
    first.step([batch], 0, 1.0)
    State(accumulate=2, step=1, position=2, seconds=1.5, best_score=0.25).write(tmp_path, first)
    assert State.read(tmp_path, second) == State(accumulate=2, step=1, position=2, seconds=1.5, best_score=0.25)
    assert first.step([batch], 1, 1.0) == second.step([batch], 1, 1.0)
    for a, b in zip(first.ema.state_dict().values(), second.ema.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_another_network_is_named(tiny_plan, tmp_path):
    State(accumulate=2).write(tmp_path, learner_of(tiny_plan))
    wider = replace(tiny_plan, model=replace(tiny_plan.model, width=8))
    with pytest.raises(FormatError, match="does not fit the network"):
        State.read(tmp_path, learner_of(wider))
    (tmp_path / STATE_FILE).write_bytes(b"short")
    with pytest.raises(FormatError, match="cannot read"):
        State.read(tmp_path, learner_of(tiny_plan))


@pytest.mark.parametrize("name", ["weight", "optimiser/first/exp_avg", "network/weight"])
def test_a_foreign_file_is_named(tiny_plan, tmp_path, name):
    write_tensors(tmp_path / STATE_FILE, {name: torch.zeros(1)}, {})
    with pytest.raises(FormatError, match=f"{STATE_FILE} is not the state of a run .*start the run again"):
        State.read(tmp_path, learner_of(tiny_plan))
