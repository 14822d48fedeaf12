"""A run's numbers reach other tools, which are imported when they are named."""

import csv
import sys
from types import SimpleNamespace

import pytest

from segwright.core.errors import MissingExtraError, UnknownNameError
from segwright.training.loggers import logger, numbers_of

STEP = {"step": 3, "loss": 0.5, "losses": {"dice": 0.25}, "event": "text"}
VALIDATION = {"step": 3, "score": 0.75, "metric": "mIoU"}


def test_numbers_by_name():
    assert numbers_of(STEP) == {"loss": 0.5, "loss/dice": 0.25}
    assert numbers_of(VALIDATION) == {"score/mIoU": 0.75}


def test_a_table_of_the_run(tmp_path):
    watch = logger("csv", tmp_path)
    for record in (STEP, VALIDATION, {"step": 4, "event": "nothing to draw"}):
        watch(record)
    rows = list(csv.DictReader(next(tmp_path.rglob("metrics.csv")).open()))
    assert {(row["step"], row["loss"] or row["score/mIoU"]) for row in rows} == {("3", "0.5"), ("3", "0.75")} or (
        rows[0]["loss"] == "0.5" and rows[0]["score/mIoU"] == "0.75"
    )


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_others_are_called_as_they_want_it(name, tmp_path, monkeypatch):
    heard = []
    board = SimpleNamespace(log=lambda numbers, step: heard.append((numbers, step)))
    tool = SimpleNamespace(
        start_run=lambda run_name: None,
        log_metrics=lambda numbers, step: heard.append((numbers, step)),
        init=lambda name, dir: board,
    )
    monkeypatch.setitem(sys.modules, name, tool)
    logger(name, tmp_path)(VALIDATION)
    assert heard == [({"score/mIoU": 0.75}, 3)]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_answered_with_how_to_get_it(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=f"pip install {name}"):
        logger(name, tmp_path)


def test_nothing_is_written_before_there_is_something_to_draw(tmp_path):
    watch = logger("csv", tmp_path / "run")
    watch({"step": 1, "event": "text"})
    assert not (tmp_path / "run").exists()


def test_an_unknown_one_offers_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="no logger 'tensorbord', did you mean 'tensorboard'"):
        logger("tensorbord", tmp_path)
