"""One row of the table of benchmarks/metrics.py: the same work done by several sides, and how their results compare."""

import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Results = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Side:
    """Someone's way to do the work.

    `run` gives results by name from what `prepare` made of the data, which is not timed and done anew before each turn.
    `needs` are the modules without which the side is left out. `note` says what differs from the work of the others.
    """

    run: Callable[[Any], Results]
    prepare: Callable[[Any], Any] = lambda data: data
    needs: tuple[str, ...] = ()
    note: str = ""

    def is_installed(self) -> bool:
        """Whether all that it needs can be imported."""
        return all(find_spec(name) is not None for name in self.needs)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row. `make(is_small)` gives the data, or a small part to warm up on; `sides` begin with ours.

    `targets` say how many times as fast as a side ours has to be. The data are so many `units`, such as Mpx or images.
    """

    group: str
    name: str
    make: Callable[[bool], Any]
    sides: dict[str, Side]
    cores: int = 2
    targets: dict[str, float] = field(default_factory=dict)
    amount: float = 0.0
    units: str = "Mpx"


def data_folder() -> Path:
    """Where the processes of one run keep what they made."""
    return Path(os.environ.get("SEGWRIGHT_BENCHMARK_DATA") or tempfile.gettempdir())


def kept(name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, made once and then read from a temporary folder; the processes of one run share it."""
    path = data_folder() / f"segwright-{hashlib.sha256(name.encode()).hexdigest()[:16]}.pickle"
    if path.is_file():
        return pickle.loads(path.read_bytes())
    value = make()
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(value, protocol=5))
    partial.replace(path)
    return value
