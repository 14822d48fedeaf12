"""What a terminal shows goes to the right stream."""

from dataclasses import replace
from pathlib import Path

import pytest

from segwright.checkpoints.folds_folder import FoldsFolder
from segwright.cli.terminal import (
    print_differences,
    print_scores,
    print_table,
    show_run,
    training_progress,
    working,
    write_text,
)
from segwright.core import Classes
from segwright.core.errors import OutputError
from segwright.core.run_files import STATE_FILE
from segwright.evaluation.scores import Scores
from segwright.evaluation.significance import Difference
from segwright.models import cellpose, preset
from segwright.tasks.instance import Instance
from segwright.tasks.promptable import Promptable
from segwright.training.run_dir import start_folder


def test_progress_goes_to_stderr_and_tables_to_stdout(capsys):
    with training_progress("a run", Path("run")) as watch:
        watch({"step": 1, "progress": 0.5, "loss": 1.25})
        watch({"step": 2, "event": "out of memory: the batch is now 2"})
        watch({"step": 2, "score": 0.5, "metric": "mIoU"})
    with working("busy"):
        pass
    print_table(["name", "value"], [["a", "1.0"], ["b", "2.0"]])
    out, err = capsys.readouterr()
    assert "the batch is now 2" in err and "a run" in err and "mIoU 0.500" in err
    assert [line.split() for line in out.splitlines() if line] == [["name", "value"], ["a", "1.0"], ["b", "2.0"]]


def test_names_that_look_like_markup_are_shown_as_they_are(capsys):
    with training_progress("fit [/]", Path("run")) as watch:
        watch({"step": 1, "event": "an [/] event"})
    with working("inspect [red]"):
        pass
    print_table(["[/]", "value"], [["class [/]", "[red]"], ["[/red]", ":smile:"]])
    out, err = capsys.readouterr()
    assert "an [/] event" in err and "fit [/]" in err
    assert [line.split() for line in out.splitlines() if line] == [
        ["[/]", "value"],
        ["class", "[/]", "[red]"],
        ["[/red]", ":smile:"],
    ]


@pytest.mark.parametrize(("rank", "is_shown"), [("0", True), ("1", False)])
def test_of_several_processes_the_first_shows_its_progress(capsys, monkeypatch, rank, is_shown):
    monkeypatch.setenv("RANK", rank)
    with training_progress("a run", Path("run")) as watch:
        watch({"step": 1, "progress": 0.5, "loss": 1.25})
    assert ("a run" in capsys.readouterr().err) == is_shown


def test_what_training_has_changed_is_a_table(capsys):
    row = Difference(score="mIoU", first=0.5, second=0.25, difference=-0.25, interval=(-0.5, float("nan")), p=0.01, p_holm=0.02)
    print_differences([row], "before", "after")
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["mIoU", "0.5000", "0.2500", "-0.2500", "at", "least", "-0.5000", "0.0100", "0.0200"]


def test_an_unwritable_text_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "file" / "text", "words")


def test_an_end_of_an_interval_that_is_not_known_is_not_shown(capsys):
    intervals = {
        "mIoU": (0.25, float("nan")),
        "Dice": (float("nan"), 0.75),
        "kappa": (float("nan"),) * 2,
        "recall": (0.5, 0.625),
    }
    values = dict.fromkeys(intervals, 0.5)
    print_scores(
        Scores(count=2, classes=Classes.of(["a"]), values=values, intervals=intervals, per_image={}, matrix=(), conventions={})
    )
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for row in (
        "mIoU 0.5000 at least 0.2500",
        "Dice 0.5000 at most 0.7500",
        "kappa 0.5000 -",
        "recall 0.5000 0.5000 to 0.6250",
    ):
        assert row in rows


SCORES = Scores(count=1, classes=Classes.of(["a"]), values={}, intervals={}, per_image={}, matrix=(), conventions={})


def test_what_to_do_with_a_run_is_told_in_words_that_a_shell_takes(capsys, tiny_plan, tmp_path):
    start_folder(tmp_path / "my run", tiny_plan)
    show_run(tmp_path / "my run", SCORES)
    *_, report, told = capsys.readouterr().out.splitlines()
    assert report == f"report   {tmp_path / 'my run' / 'report.html'}"
    assert told == f"predict  segwright predict '{tmp_path / 'my run'}' IMAGES"


def test_folds_without_a_mean_are_asked_one_at_a_time(capsys, tiny_plan, tmp_path):
    objects = replace(tiny_plan, task=Instance(), model=preset("mask_rcnn_small"))
    clicks = replace(tiny_plan, task=Promptable(), model=preset("sam_nano"))
    flows = replace(objects, model=cellpose.Config())
    for name, plan, told in (
        ("pixels", tiny_plan, "predict {}/pixels IMAGES"),
        ("flows", flows, "predict {}/flows IMAGES"),
        ("objects", objects, "predict {}/objects/fold-0 IMAGES"),
        ("clicks", clicks, "segment IMAGE --model {}/clicks/fold-0 --point x,y"),
    ):
        folds = FoldsFolder(folder=tmp_path / name, plan=plan, count=2, minutes=1.0)
        for run in folds.runs:
            start_folder(run, plan)
        folds.write()
        show_run(folds.folder, SCORES)
        assert capsys.readouterr().out.splitlines()[-1].endswith(f"segwright {told.format(tmp_path)}")


def test_who_stops_a_run_is_told_how_it_goes_on(capsys, tiny_plan, tmp_path):
    def stopped() -> str:
        with pytest.raises(KeyboardInterrupt), training_progress("a run", tmp_path / "my run"):
            raise KeyboardInterrupt
        return capsys.readouterr().err.splitlines()[-1]

    assert stopped() == f"nothing was saved in {tmp_path / 'my run'} yet, so that it cannot go on: begin anew"
    start_folder(tmp_path / "my run", tiny_plan)
    (tmp_path / "my run" / STATE_FILE).touch()
    assert stopped().endswith(f"by: segwright train --resume '{tmp_path / 'my run'}'")
