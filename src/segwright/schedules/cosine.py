"""A linear warm-up, then half a cosine down. Source: Loshchilov, Hutter 2017, arXiv 1608.03983, without restarts."""

import math
from dataclasses import dataclass

WARM_UP = 0.05  # of the run: Adam's second moments settle within it, and longer costs short runs their best time
FLOOR = 0.01  # of the peak, where warm-up starts and decay ends


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Up to the peak in the first twentieth of the run, and down to a hundredth of it at the end."""

    def __call__(self, progress: float) -> float:
        """Share of the peak learning rate at `progress` 0 to 1 of a run; beyond 1 it stays at the floor."""
        if progress < WARM_UP:
            return FLOOR + (1 - FLOOR) * progress / WARM_UP
        return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))
