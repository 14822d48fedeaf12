"""What a run needs to go on after it was killed: one safetensors file, replaced as a whole."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch

from segwright.checkpoints.folds_folder import fold_runs, is_folds_folder
from segwright.checkpoints.model_file import read_facts, read_tensors, write_tensors
from segwright.core import Dataset
from segwright.core.errors import FormatError, UsageError
from segwright.core.run_files import STATE_FILE
from segwright.core.strict_json import json_text
from segwright.plans.commands import command
from segwright.training.learner import Learner
from segwright.training.run_data import RunData
from segwright.training.run_dir import learnt_weights, start_anew

T = TypeVar("T")


@dataclass(kw_only=True)
class State:
    """Where a run stands: `step` steps and `position` crops are done, in `seconds` of work.

    `accumulate` is the plan's, or more where memory ran out; `best_score` is the score of the saved model. `data` is what the
    run began with; None in the state of an earlier version, which did not note it.
    """

    accumulate: int
    step: int = 0
    position: int = 0
    seconds: float = 0.0
    validations: int = 0
    best_score: float = -1.0
    data: RunData | None = None

    def write(self, run: Path, learner: Learner) -> None:
        """Write the state with the weights, their average and the optimiser's moments into the folder of a run."""
        tensors = {f"network/{name}": tensor for name, tensor in learner.network.state_dict().items()}
        tensors |= {f"ema/{name}": tensor for name, tensor in learner.ema.state_dict().items()}
        for index, moments in learner.optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in moments.items() if value is not None
            }
        write_tensors(run / STATE_FILE, tensors, {"state": json_text(asdict(self))})

    @classmethod
    def read(cls, run: Path, learner: Learner) -> "State":
        """Fill a learner with what a run saved last, and return where it stood.

        Raises:
            FormatError: the folder holds no state of this network.
        """
        tensors, facts = _whole(run, read_tensors)
        parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "ema": {}, "optimiser": {}}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        try:
            for name, tensor in tensors.items():
                part, _, rest = name.partition("/")
                parts[part][rest] = tensor
            for name, tensor in parts["optimiser"].items():
                index, _, moment = name.partition("/")
                moments.setdefault(int(index), {})[moment] = tensor
            state = cls(**json.loads(facts["state"]) | {"data": _data_in(facts)})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _foreign(run, error) from error
        try:
            learner.network.load_state_dict(parts["network"])
            learner.ema.load_state_dict(parts["ema"])
            groups = learner.optimiser.state_dict()["param_groups"]
            learner.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        except (RuntimeError, ValueError) as error:
            raise FormatError(
                f"{run / STATE_FILE} does not fit the network of its plan.toml ({error}); undo the changes to either"
            ) from error
        return state


def data_of(run: Path) -> RunData | None:
    """The data that a saved run began with; None where an earlier version saved it, which did not note them.

    Raises:
        FormatError: the folder holds no state of a run.
    """
    facts = _whole(run, read_facts)
    try:
        return _data_in(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _foreign(run, error) from error


def trained_with(run: Path, dataset: Dataset) -> list[str]:
    """The keys of a data set that a run, or one of the runs of folds, was trained with, whose scores measure nothing.

    None where no state is there.
    """
    learnt: set[str] = set()
    with suppress(FormatError):  # a state that is gone or damaged says nothing
        for each in fold_runs(run) if is_folds_folder(run) else [run]:
            before = data_of(each)
            learnt.update(before.trained_with(dataset) if before else [])
    return [key for key in dataset.keys if key in learnt]


def check_same_data(run: Path, now: RunData, source: str) -> None:
    """See that a saved run goes on with the data that it began with, lest what it was trained with be held out.

    Raises:
        FormatError: the folder holds no state of a run.
        UsageError: the data have changed.
    """
    before = data_of(run)
    changes = before.changes(now) if before else []
    if before is None or not changes:
        return
    if before.classes != now.classes:
        way = f"plan for the new classes: {command('plan', source, '--out', 'plan.toml')}"
    else:
        way = start_anew(run, *([] if before.trained_and_held_out(now) else learnt_weights(run)))
    raise UsageError(f"{source} is not as it was when {run} began: {'; '.join(changes)}. Put it back as it was, or {way}")


def leaked(weights: Path, now: RunData) -> str | None:
    """A warning where the weights of a run, its folder or its file, were trained with samples that are held out now."""
    run = weights if weights.is_dir() else weights.parent
    if not (run / STATE_FILE).exists():
        return None
    try:
        before = data_of(run)
    except FormatError:
        return f"{run / STATE_FILE} is damaged, so whether these weights were trained with what is held out now is unknown"
    known = before.trained_and_held_out(now) if before else []
    if not known:
        return None
    return (
        f"these weights were trained with {len(known)} of {len(now.val)} samples that are held out now, such as {known[0]!r}: "
        "the scores will be too good; leave out init.weights for scores that can be trusted"
    )


def _data_in(facts: Mapping[str, str]) -> RunData | None:
    table = json.loads(facts["state"]).get("data")
    return RunData.of_table(table) if table else None


def _whole(run: Path, read: Callable[[Path], T]) -> T:
    """What is read of a state.

    Raises:
        FormatError: the file is missing or cut short.
    """
    path = run / STATE_FILE
    try:
        return read(path)
    except FormatError as error:
        anew = start_anew(run, *learnt_weights(run))
        raise FormatError(f"{path} is damaged or cut short ({error.__cause__}); put back a copy of it, or {anew}") from error


def _foreign(run: Path, error: Exception) -> FormatError:
    anew = start_anew(run, *learnt_weights(run))
    return FormatError(f"{run / STATE_FILE} is not the state of a run ({error!r}); put back the file that was there, or {anew}")
