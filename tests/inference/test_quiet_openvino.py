"""That nothing is sent, tests/test_no_network.py holds; here is that it loads, late, and what it leaves."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from segwright.inference import quiet_openvino

LATE = """
import sys
import segwright.inference.engine, segwright.inference.predict_files
assert "openvino" not in sys.modules
from segwright.inference.quiet_openvino import quiet_openvino
assert quiet_openvino() is sys.modules["openvino"]
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
from openvino.tools.ovc import convert_impl
assert convert_impl.tm.__name__.endswith("telemetry_stub")
"""


def test_it_is_loaded_at_the_first_call_and_without_its_telemetry():
    subprocess.run([sys.executable, "-c", LATE], check=True, timeout=120)


def test_a_program_that_loaded_the_telemetry_keeps_it(monkeypatch):
    from segwright.inference.quiet_openvino import quiet_openvino

    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    assert quiet_openvino().Core is not None
    assert sys.modules["openvino_telemetry"] is sys


@pytest.mark.parametrize(("names", "knows"), [(["FP32", "BF16"], True), (["FP32", "INT8"], False)])
def test_whether_the_cpu_knows_bfloat16_is_what_openvino_says(names, knows, monkeypatch):
    core = SimpleNamespace(get_property=lambda device, name: names if device == "CPU" else [])
    monkeypatch.setattr(quiet_openvino, "quiet_openvino", lambda: SimpleNamespace(Core=lambda: core))
    assert quiet_openvino.cpu_knows_bfloat16() is knows
