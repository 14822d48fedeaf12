"""One file per metric. Each counts a prediction against a truth; counts add up; scores come from the sum."""

from typing import Any, Protocol, runtime_checkable

from segwright.core import Segmentation


@runtime_checkable
class Metric(Protocol):
    """What every file of this folder offers, built from `Classes`. States are frozen and add up with +, in any order."""

    @property
    def convention(self) -> str:
        """One sentence that says what is counted, what is left out and how it is averaged."""

    def count(self, prediction: Segmentation, truth: Segmentation) -> Any:
        """The state of one image."""

    def score(self, state: Any) -> dict[str, float]:
        """Scores by name, from the state of one image or the sum of many."""
