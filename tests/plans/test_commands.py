"""A call that a message tells can be made as it stands."""

import shlex
from pathlib import Path

import pytest

from segwright.plans.commands import command

OWN = 'version = 2\n[task]\nkind = "semantic"\n[[task.criterion.terms]]\nkind = "mypkg.loss"\n'
PLAIN = 'version = 2\n[task]\nkind = "semantic"\n[data]\ntrain = "a.b"\n'


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "my run's"
    folder.mkdir()
    return folder


def test_a_shell_takes_the_paths_apart_as_they_are(run):
    (run / "plan.toml").write_text(PLAIN)
    told = command("predict", run, "IMAGES", plan=run)
    assert told.startswith("segwright predict '") and told.endswith(" IMAGES")
    assert shlex.split(told) == ["segwright", "predict", str(run), "IMAGES"]
    assert command("inspect", "a b") == "segwright inspect 'a b'"


def test_modules_of_ones_own_are_seen_wherever_they_are_and_not_imported(run):
    (run / "plan.toml").write_text(OWN)
    for plan in (run, run / "plan.toml", run / "model.safetensors"):
        assert command("train", plan, plan=plan).endswith(" --own-modules")
    (run / "other").write_text(PLAIN)
    assert not command("train", plan=run / "other").endswith("--own-modules")


@pytest.mark.parametrize("content", [b"\xff", b"kind = ", b"", None])
def test_a_plan_that_cannot_be_read_names_none(run, content):
    if content is not None:
        (run / "plan.toml").write_bytes(content)
    assert command("train", "--resume", "here", plan=run) == "segwright train --resume here"
