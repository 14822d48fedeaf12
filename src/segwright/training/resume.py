"""What a run needs to go on after it was killed: one safetensors file, replaced as a whole."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from segwright.checkpoints.model_file import read_tensors, write_tensors
from segwright.core.errors import FormatError
from segwright.training.train_step import Learner

STATE_FILE = "state.safetensors"


@dataclass(kw_only=True)
class State:
    """Where a run stands: `step` steps and `position` crops are done, in `seconds` of work.

    `accumulate` is the plan's, or more where memory ran out; `best_score` is the score of the saved model.
    """

    accumulate: int
    step: int = 0
    position: int = 0
    seconds: float = 0.0
    validations: int = 0
    best_score: float = -1.0

    def write(self, run: Path, learner: Learner) -> None:
        """Write the state with the weights, their average and the optimiser's moments into the folder of a run."""
        tensors = {f"network/{name}": tensor for name, tensor in learner.network.state_dict().items()}
        tensors |= {f"ema/{name}": tensor for name, tensor in learner.ema.state_dict().items()}
        for index, moments in learner.optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in moments.items() if value is not None
            }
        write_tensors(run / STATE_FILE, tensors, {"state": json.dumps(asdict(self))})

    @classmethod
    def read(cls, run: Path, learner: Learner) -> "State":
        """Fill a learner with what a run saved last, and return where it stood.

        Raises:
            FormatError: the folder holds no state of this network.
        """
        tensors, facts = read_tensors(run / STATE_FILE)
        parts: dict[str, dict[str, torch.Tensor]] = {"network": {}, "ema": {}, "optimiser": {}}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        try:
            for name, tensor in tensors.items():
                part, _, rest = name.partition("/")
                parts[part][rest] = tensor
            for name, tensor in parts["optimiser"].items():
                index, _, moment = name.partition("/")
                moments.setdefault(int(index), {})[moment] = tensor
            state = cls(**json.loads(facts["state"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{run / STATE_FILE} is not the state of a run ({error!r}); put back the file that was there, or start the run "
                f"again: segwright train {run / 'plan.toml'} --out FOLDER"
            ) from error
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
