"""OpenVINO without its telemetry, and not before an engine needs it.

Importing `openvino` sends an event to an outside server, and so does converting a network, unless its package
`openvino_telemetry` is missing; then a stub that does nothing takes its place. Here it is missing for this process; nothing in
the user's folders or environment changes. A program that imported `openvino` by itself before has told that server already.
"""

import sys
from types import ModuleType


def quiet_openvino() -> ModuleType:
    """The package `openvino`, imported at the first call."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import an ImportError
    import openvino

    return openvino


def cpu_knows_bfloat16() -> bool:
    """Whether this machine's CPU computes in bfloat16; others can be made to, and are slower for it."""
    return "BF16" in quiet_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
