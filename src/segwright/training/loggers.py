"""A run's log for the tools that draw curves. Nothing is imported, written or sent unless a person names the tool."""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from segwright.core.errors import MissingExtraError, UnknownNameError
from segwright.core.lookup import did_you_mean
from segwright.training.run_dir import OnRecord


def logger(name: str, run: Path) -> OnRecord:
    """What takes each record of a run's log and passes its numbers on: csv, tensorboard, mlflow or wandb.

    csv and tensorboard write into the folder of the run. mlflow and wandb go where their own settings say, which may be a
    server: they are the person's choice.

    Raises:
        UnknownNameError: there is no logger of that name.
        MissingExtraError: its package is not installed.
    """
    if name not in LOGGERS:
        raise UnknownNameError(f"there is no logger '{name}'{did_you_mean(name, [*LOGGERS])}; known are {', '.join(LOGGERS)}")
    if name != "csv":
        _library(name)
    opened = cache(lambda: LOGGERS[name](run))  # by the first record, so that nothing is left of a run that never begins

    def watch(record: dict[str, Any]) -> None:
        if numbers := numbers_of(record):
            opened()(numbers, record["step"])

    return watch


def numbers_of(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record by name, but its step; the terms of the loss as loss/NAME, a score as score/METRIC."""
    found = {name: float(value) for name, value in record.items() if isinstance(value, int | float) and name != "step"}
    found |= {f"loss/{name}": value for name, value in record.get("losses", {}).items()}
    if "score" in found:
        found[f"score/{record['metric']}"] = found.pop("score")
    return found


Log = Callable[[dict[str, Any], int], None]


def _csv(run: Path) -> Log:
    """Lightning's metrics.csv."""
    from lightning_fabric.loggers.csv_logs import CSVLogger

    table = CSVLogger(run, name="csv", version="", flush_logs_every_n_steps=1)
    return lambda numbers, step: table.log_metrics(numbers, step)


def _tensorboard(run: Path) -> Log:
    """TensorBoard's events, in a folder of the run."""
    _library("tensorboard")
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    board = TensorBoardLogger(run, name="tensorboard", version="")
    return lambda numbers, step: board.log_metrics(numbers, step)


def _mlflow(run: Path) -> Log:
    """MLflow's tracking, where MLFLOW_TRACKING_URI says."""
    tracking = _library("mlflow")
    tracking.start_run(run_name=run.name)
    return lambda numbers, step: tracking.log_metrics(numbers, step=step)


def _wandb(run: Path) -> Log:
    """Weights & Biases, as its own settings say."""
    board = _library("wandb").init(name=run.name, dir=str(run))
    return lambda numbers, step: board.log(numbers, step=step)


LOGGERS: dict[str, Callable[[Path], Log]] = {"csv": _csv, "tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}


def _library(name: str) -> Any:
    """A package that only its logger needs.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"the logger {name} needs a package that is not here ({error}); pip install {name}") from error
