"""What a terminal shows goes to the right stream."""

import pytest

from segwright.cli.terminal import print_scores, print_table, training_progress, working, write_text
from segwright.core import Classes
from segwright.core.errors import OutputError
from segwright.evaluation.scores import Scores


def test_progress_goes_to_stderr_and_tables_to_stdout(capsys):
    with training_progress("a run") as watch:
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
    with training_progress("fit [/]") as watch:
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
    with training_progress("a run") as watch:
        watch({"step": 1, "progress": 0.5, "loss": 1.25})
    assert ("a run" in capsys.readouterr().err) == is_shown


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
