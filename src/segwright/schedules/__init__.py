"""One file per course of the learning rate over a run."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Schedule(Protocol):
    """What every file of this folder offers: the share of the peak learning rate at a progress of 0 to 1."""

    def __call__(self, progress: float) -> float: ...
