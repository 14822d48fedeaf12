"""How the learning rate goes up and down, and how the average of the weights forgets."""

import math

WARM_UP = 0.05  # of the run: Adam's second moments settle within it, and longer costs short runs their best time
FLOOR = 0.01  # of the peak, where warm-up starts and decay ends


def learning_rate_factor(progress: float) -> float:
    """Share of the peak learning rate at `progress` 0..1 of a run: a linear warm-up, then half a cosine down to the floor."""
    if progress < WARM_UP:
        return FLOOR + (1 - FLOOR) * progress / WARM_UP
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


def average_decay(step: int, steps: int) -> float:
    """Decay of the weights' moving average at a step: it looks back over the last 2 % of the run, less at the start."""
    horizon = max(1.0, 0.02 * steps)  # 2 %: long enough to smooth single batches, short enough to follow the decay
    return min(1 - 1 / horizon, (1 + step) / (10 + step))
