"""The learning rate rises, falls and ends low; the average looks back over a part of the run."""

import numpy as np
import pytest

from segwright.training.schedule import FLOOR, WARM_UP, average_decay, learning_rate_factor


def test_by_hand():
    assert learning_rate_factor(0) == FLOOR
    assert learning_rate_factor(WARM_UP) == 1
    assert learning_rate_factor((1 + WARM_UP) / 2) == pytest.approx(FLOOR + (1 - FLOOR) / 2)
    assert learning_rate_factor(1) == pytest.approx(FLOOR) == learning_rate_factor(1.2)


def test_it_rises_then_falls():
    factors = np.array([learning_rate_factor(p) for p in np.linspace(0, 1, 500)])
    peak = factors.argmax()
    assert (np.diff(factors[: peak + 1]) > 0).all() and (np.diff(factors[peak:]) < 0).all()


def test_the_average_forgets_the_start_and_then_looks_back_over_two_per_cent():
    assert average_decay(0, 1000) == pytest.approx(0.1)
    assert average_decay(999, 1000) == pytest.approx(1 - 1 / 20)
    assert average_decay(5, 10) == 0  # of ten steps, the last alone
