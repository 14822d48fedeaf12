"""Nobody waits for an import: `import segwright` and `segwright --help` are quick and load nothing heavy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("segwright")  # the console script lies beside the interpreter of its environment
TRIES = 10  # the best counts, and the first good one ends the test: a busy machine slows single tries, never all
# Seconds are those of the processor: tests run beside others, for which a process may have to wait.


def output_of(*command: str) -> str:
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # compiled once
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=True, timeout=60).stdout


def loaded_after(statement: str) -> set[str]:
    """Top-level packages in a fresh interpreter after a statement."""
    script = f"import sys\n{statement}\nprint(*(name.split('.')[0] for name in sys.modules))"
    return set(output_of(sys.executable, "-c", script).split())


def best(measure, limit: float) -> float:
    times = []
    while len(times) < TRIES and min(times, default=limit) >= limit:
        times.append(measure())
    return min(times)


def test_import_takes_less_than_0_15_s():
    script = "import time; start = time.process_time(); import segwright; print(time.process_time() - start)"
    assert best(lambda: float(output_of(sys.executable, "-c", script)), 0.15) < 0.15


def test_import_loads_nothing_but_the_standard_library():
    foreign = loaded_after("import segwright") - loaded_after("") - set(sys.stdlib_module_names)
    assert foreign == {"segwright"}


def test_the_values_load_numpy_only():
    foreign = loaded_after("from segwright import Segmentation, Sample, Dataset") - loaded_after("")
    assert foreign - set(sys.stdlib_module_names) == {"segwright", "numpy"}


def test_the_list_of_commands_loads_nothing_heavy():
    """If help is late, this names what made it so."""
    heavy = {"cv2", "numba", "openvino", "pandas", "pydantic", "safetensors", "scipy", "timm", "torch", "transformers"}
    assert not loaded_after("from segwright.cli.app import application; application()") & heavy


@pytest.mark.parametrize("command", [["--help"], ["fit", "--help"]])
def test_help_takes_less_than_0_5_s(command):
    if not COMMAND.exists():
        pytest.skip("the segwright command is not beside this Python; install the package: pip install -e .")

    def seconds() -> float:
        before = os.times()
        output_of(str(COMMAND), *command)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert best(seconds, 0.5) < 0.5
