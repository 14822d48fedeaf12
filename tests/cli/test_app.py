"""Errors become one message and an exit code."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

from segwright import __version__
from segwright.cli import app
from segwright.core.errors import FormatError, TrainingError
from segwright.core.lookup import names


def test_each_command_of_the_readme_is_there(segwright):
    code, out, _ = segwright("--help")
    assert code == 0
    for command in ("fit", "plan", "train", "predict", "evaluate", "inspect", "models", "demo"):
        assert command in out and command in names("segwright.cli")


def test_the_version_is_shown(segwright):
    assert segwright("--version") == (0, f"segwright {__version__}\n", "")


@pytest.mark.parametrize(("error", "code"), [(FormatError("that file is broken; mend it"), 2), (TrainingError("lost"), 1)])
def test_an_error_is_one_line_and_a_code(segwright, monkeypatch, error, code):
    def broken():
        raise error

    monkeypatch.setattr(app, "application", lambda: broken)
    result, out, err = segwright("anything")
    assert (result, out, err) == (code, "", f"error: {error}\n")


def test_want_of_memory_is_one_line(segwright, monkeypatch):
    def greedy():
        raise MemoryError("Unable to allocate 645. MiB")

    monkeypatch.setattr(app, "application", lambda: greedy)
    code, out, err = segwright("anything")
    assert code == 1 and not out
    assert (
        err
        == "error: not enough memory (Unable to allocate 645. MiB); use smaller images, fewer processes, or a larger machine\n"
    )


def test_want_of_a_place_for_compiled_loops_is_told_and_other_mistakes_are_shown(segwright, monkeypatch):
    def broken(text):
        raise RuntimeError(text)

    monkeypatch.setattr(
        app, "application", lambda: lambda: broken("cannot cache function 'f': no locator available for 'f.py'")
    )
    code, _, err = segwright("anything")
    assert code == 1 and "export NUMBA_CACHE_DIR=FOLDER" in err
    monkeypatch.setattr(app, "application", lambda: lambda: broken("a mistake"))
    with pytest.raises(RuntimeError, match="a mistake"):
        segwright("anything")


def test_ctrl_c_names_the_way_back(segwright, monkeypatch):
    def interrupted(word: Annotated[str, typer.Argument()] = ""):
        raise KeyboardInterrupt

    through_typer = typer.Typer()
    through_typer.command()(interrupted)
    for application in (interrupted, through_typer):
        monkeypatch.setattr(app, "application", lambda chosen=application: chosen)
        for command, way in (
            ("compare", "with --out and the folder"),
            ("convert", "the same command"),
            ("models", "stopped\n"),
        ):
            code, _, err = segwright(command)
            assert code == 130 and way in err


def run_with(stdout, **environment) -> subprocess.CompletedProcess:
    """`segwright inspect` in a process of its own."""
    command = [sys.executable, "-c", "from segwright.cli.app import main; main()", "inspect", "synthetic:cells?count=2"]
    surroundings = os.environ | environment
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=surroundings, text=True, check=False)


def test_a_terminal_without_the_characters_is_no_failure():
    done = run_with(subprocess.PIPE, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "height ? width" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line():
    with Path("/dev/full").open("w") as full:
        done = run_with(full)
    assert done.returncode == 1 and "error: " in done.stderr and "check free space" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_is_bad_use(segwright):
    code, _, err = segwright("fit", "data", "--minuts", "1")
    assert code == 2 and "--minutes" in err
