"""A run's folder keeps what it holds."""

import json
import math
import os
from dataclasses import replace

import pytest

from segwright.core.errors import FormatError, OutputError
from segwright.core.run_files import STATE_FILE
from segwright.plans.plan import Plan
from segwright.training.run_dir import TrainLog, check_free, check_resumable, note_places, read_log, start_folder


def test_a_new_folder_holds_the_plan(tiny_plan, tmp_path):
    start_folder(tmp_path / "a" / "run", tiny_plan)
    assert Plan.read(tmp_path / "a" / "run") == tiny_plan


def test_a_log_drops_what_a_kill_cut_off(tmp_path):
    seen = []
    log = TrainLog(tmp_path, [seen.append])
    for step in (1, 2, 3):
        log.add(step=step, loss=0.5)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2, 3] == [record["step"] for record in seen]
    log.drop_after(2, 0)
    log.add(step=3, loss=0.25)
    assert [record["loss"] for record in read_log(tmp_path)] == [0.5, 0.5, 0.25]


def test_a_score_that_was_not_measured_is_null_to_strict_readers_and_nan_to_ours(tmp_path):
    log = TrainLog(tmp_path)
    log.add(step=1, score=math.nan, metric="mIoU", losses={"dice": math.inf})
    log.add(step=2, score=0.5)

    def check():
        first, second = read_log(tmp_path)
        assert math.isnan(first["score"]) and second["score"] == 0.5 and first["losses"] == {"dice": None}
        for line in (tmp_path / "log.jsonl").read_text().splitlines():
            json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    check()
    log.drop_after(2, 2)
    check()


def test_an_empty_line_in_a_log_cuts_nothing_off(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n\n{"step": 2}\n')
    assert read_log(tmp_path) == [{"step": 1}, {"step": 2}]


def test_a_log_drops_scores_that_were_not_saved(tmp_path):
    log = TrainLog(tmp_path)
    for record in ({"step": 1, "loss": 0.5}, {"step": 1, "score": 0.1}, {"step": 2, "loss": 0.5}, {"step": 2, "score": 0.2}):
        log.add(**record)
    log.drop_after(2, 1)
    assert [record.get("score") for record in read_log(tmp_path)] == [None, 0.1, None]


def test_places_that_cannot_hold_a_run_are_named(tiny_plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/run cannot be made"):
        check_free(tmp_path / "file" / "run")
    start_folder(tmp_path / "run", tiny_plan)
    with pytest.raises(OutputError, match="is no name in UTF-8"):
        check_free(tmp_path / "\udce4")
    with pytest.raises(OutputError, match="holds a run already; choose another folder"):  # as nothing was saved to go on with
        check_free(tmp_path / "run")
    with pytest.raises(FormatError, match="holds no saved run .*; start anew: segwright train .*/run/plan.toml --out FOLDER"):
        check_resumable(tmp_path / "run")
    (tmp_path / "run" / STATE_FILE).touch()
    with pytest.raises(OutputError, match="holds a run already; go on with it by: segwright train --resume .*/run, or choose"):
        check_free(tmp_path / "run")
    check_resumable(tmp_path / "run")


def test_only_where_data_lie_is_changed_in_a_plan(tiny_plan, tmp_path):
    start_folder(tmp_path / "run", replace(tiny_plan, reasons={"training.steps": "few"}))
    before = (tmp_path / "run" / "plan.toml").read_text()
    note_places(tmp_path / "run", tiny_plan.data)
    assert (tmp_path / "run" / "plan.toml").read_text() == before
    moved = replace(tiny_plan.data, train="there", val="beside")
    note_places(tmp_path / "run", moved)
    assert Plan.read(tmp_path / "run") == replace(tiny_plan, data=moved)
    assert "# few" in (tmp_path / "run" / "plan.toml").read_text()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_named(tiny_plan, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="cannot be made"):
        start_folder(tmp_path / "locked" / "run", tiny_plan)
