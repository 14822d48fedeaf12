"""`make test` shares the tests among processes; when one of these dies or hangs, it ends and names the test."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIMIT = re.compile(r"(?<=faulthandler_timeout=)\d+")  # seconds that one test may take

OTHERS = """
def test_before(): pass
def test_it(): {it}
def test_after(): pass
"""


def words(target: str) -> list[str]:
    """What a target of the Makefile hands to pytest, in two processes."""
    made = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "PROCESSES=2", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return made.splitlines()[-1].partition("-m pytest ")[2].split()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("it", ["__import__('os')._exit(3)", "__import__('time').sleep(999)"], ids=["dies", "hangs"])
def test_a_process_that_is_lost_ends_the_run_and_the_test_is_named(it, tmp_path):
    for name, body in (("test_a.py", it), ("test_b.py", "pass"), ("test_c.py", "pass")):
        (tmp_path / name).write_text(OTHERS.format(it=body))
    options = [LIMIT.sub("5", word) for word in words("test")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    lost = re.findall(r"crashed while running '(.+)'", done.stdout)  # once more in the summary, where CI is set
    assert set(lost) == {"test_a.py::test_it"}, done.stdout
