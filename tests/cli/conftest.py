"""The command line, called in this process, and a small run to call it on."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def segwright(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Call the command line with words; the exit code, stdout and stderr."""
    from segwright.cli.app import main

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["segwright", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def finished_run(tiny_plan, tmp_path) -> Path:
    """A run of some steps, trained but not scored."""
    from segwright.training.loop import train

    train(tiny_plan, tmp_path / "run")
    return tmp_path / "run"
