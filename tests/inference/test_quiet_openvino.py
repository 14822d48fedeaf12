"""That nothing is sent, tests/test_no_network.py holds; here is that it loads, late, and what it leaves."""

import subprocess
import sys

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
