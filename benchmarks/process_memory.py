"""The memory of this process, as Linux counts it; benchmarks take it from here, and nothing is measured by this file alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")


def resident(field: str) -> float:
    """MiB that this process holds ("VmRSS"), or held at most since it began or was asked to forget ("VmHWM")."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024  # KiB


def forget_peak() -> None:
    """Let the peak count from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_of(work: Callable[[], Any]) -> str:
    """What work, done twice, takes at most beside what the process holds before it, in MiB; "-" where nobody tells."""
    if not STATUS.exists():
        return "-"
    forget_peak()
    before = resident("VmRSS")
    for _ in range(2):
        work()
    return f"{resident('VmHWM') - before:.0f}"
