"""How many clicks a good mask takes: NoC@85, NoC@90 and IoU after k clicks. Axes: L clicks made, C = 20 clicks allowed.

Source: Xu et al. 2016, "Deep Interactive Object Selection", doi 10.1109/CVPR.2016.47, as counted by Sofiiuk et al. 2022 (RITM),
doi 10.1109/ICIP46576.2022.9897365. Their ">=20@90" also counts an object that gets there with the last click; it is no failure
here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from segwright.core.errors import UsageError
from segwright.metrics.accumulators import Sums, ratio

MAX_CLICKS = 20  # of one object, in all published tables
TARGETS = (0.85, 0.90)  # IoU that is good enough
SHOWN = (1, 3, 5, 10, 20)  # clicks whose IoU is a summary score


@dataclass(frozen=True)
class NumberOfClicks:
    """Scores of click by click segmentation, `Sums` (5 + C,).

    They are the number of objects; for each target the summed clicks, then for each the failures; and the summed IoU after each
    click.
    """

    SCORES: ClassVar[tuple[str, ...]] = (
        *(f"NoC@{100 * target:.0f}" for target in TARGETS),
        *(f"failures@{100 * target:.0f}" for target in TARGETS),
        *(f"IoU@{click}" for click in SHOWN),
    )
    COUNTS_CLICKS: ClassVar[bool] = True
    convention: ClassVar[str] = (
        f"NoC@t: clicks until the IoU is at least t %, mean over objects; an object that does not get there in {MAX_CLICKS} "
        f"clicks counts as {MAX_CLICKS} and as a failure, whose share is failures@t. IoU@k: mean over objects after k clicks; "
        "an object whose clicks ended before keeps its last IoU."
    )

    def count(self, ious: Sequence[float] | np.ndarray) -> Sums:
        """The sums of one object, (5 + C,), from its IoU after each click, from 0 to 1 (L,); clicks past the 20th do not count.

        Raises:
            UsageError: there is no click, or an IoU is NaN or not from 0 to 1.
        """
        curve = np.asarray(ious, np.float64)
        if curve.ndim != 1 or not len(curve):
            raise UsageError(
                f"IoUs of shape {curve.shape} were given; one number per click of one object is needed, at least one"
            )
        is_wrong = ~((curve >= 0) & (curve <= 1))
        if is_wrong.any():
            click = int(is_wrong.argmax())
            raise UsageError(
                f"the IoU after click {click + 1} is {curve[click]:g}; a number from 0 to 1 is needed: an object without a "
                "pixel has none, leave it out"
            )
        clicks, failures = zip(*(_clicks_to(curve[:MAX_CLICKS], target) for target in TARGETS), strict=True)
        return Sums(np.array([1, *clicks, *failures, *_held(curve)], np.float64))

    def limits(self, states: Sequence[Sums]) -> dict[str, tuple[float, float]]:
        """One click at least is made."""
        return {f"NoC@{100 * target:.0f}": (1.0, float(MAX_CLICKS)) for target in TARGETS}

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Scores by name: clicks from 1 to 20, shares of failures and IoUs from 0 to 1."""
        means = ratio(state.values[..., 1:], state.values[..., :1])
        scores = dict(zip(self.SCORES, np.moveaxis(means[..., : 2 * len(TARGETS)], -1, 0), strict=False))
        curve = self.curve(state)
        return scores | {f"IoU@{click}": curve[..., click - 1] for click in SHOWN}

    def curve(self, state: Sums) -> np.ndarray:
        """The mean IoU after 1, 2, ..., C clicks, (..., C)."""
        return ratio(state.values[..., 1 + 2 * len(TARGETS) :], state.values[..., :1])


def _clicks_to(curve: np.ndarray, target: float) -> tuple[int, bool]:
    """The first click, from 1 on, after which an IoU (L,) reaches a target, and whether none does: then it counts as 20."""
    is_there = curve >= target
    return (int(is_there.argmax()) + 1, False) if is_there.any() else (MAX_CLICKS, True)


def _held(curve: np.ndarray) -> np.ndarray:
    """The IoU after each of C clicks, (C,), from that after those made (L,): the last one stays."""
    return curve[np.minimum(np.arange(MAX_CLICKS), len(curve) - 1)]
