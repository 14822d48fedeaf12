"""One file per metric. Each counts a prediction against a truth; counts add up; scores come from the sum.

A file whose name, in CamelCase, is a class in it is a metric; the others hold what metrics share.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from segwright.core import Segmentation


class State(Protocol):
    """What was counted: on one image, on the sum of many, or on R weighted sums at once, with a leading axis R."""

    def __add__(self, other: Self) -> Self:
        """The state of the images of both."""

    @classmethod
    def weighted(cls, states: Sequence[Self], weights: np.ndarray) -> Self:
        """R sums of the states of N images, image n counted weights[r, n] times; weights are whole numbers (R, N)."""


@runtime_checkable
class Metric(Protocol):
    """What each metric offers, built from `Classes`. `SCORES` are the names of its summary scores, the main one first.

    Scores lie between 0 and 1, but for those that a metric names in a further method, `limits(states)`: the lowest and the
    highest that each can be for images like these, by its title, such as {"HD95": (0.0, 350.0)}, which holds for "HD95/liver".
    """

    SCORES: ClassVar[tuple[str, ...]]

    @property
    def convention(self) -> str:
        """One or two sentences that say what is counted, what is left out and how it is averaged."""

    def count(self, prediction: Segmentation, truth: Segmentation) -> Any:
        """The `State` of one image."""

    def score(self, state: Any) -> dict[str, np.ndarray]:
        """Scores by name, then per class as "IoU/road"; each of the leading shape of the state, NaN where unknown."""
