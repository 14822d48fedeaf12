"""Errors become one message and an exit code."""

import pytest

from segwright.cli import app
from segwright.core.errors import FormatError, TrainingError
from segwright.core.find import names


def test_each_command_of_the_readme_is_there(segwright):
    code, out, _ = segwright("--help")
    assert code == 0
    for command in ("fit", "plan", "train", "predict", "evaluate", "inspect", "models", "demo"):
        assert command in out and command in names("segwright.cli")


@pytest.mark.parametrize(("error", "code"), [(FormatError("that file is broken; mend it"), 2), (TrainingError("lost"), 1)])
def test_an_error_is_one_line_and_a_code(segwright, monkeypatch, error, code):
    def broken():
        raise error

    monkeypatch.setattr(app, "application", lambda: broken)
    result, out, err = segwright("anything")
    assert (result, out, err) == (code, "", f"error: {error}\n")


def test_ctrl_c_names_the_way_back(segwright, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "application", lambda: interrupted)
    code, _, err = segwright("train")
    assert code == 130 and "segwright train --resume RUN" in err


def test_an_unknown_option_is_bad_use(segwright):
    code, _, err = segwright("fit", "data", "--minuts", "1")
    assert code == 2 and "--minutes" in err
