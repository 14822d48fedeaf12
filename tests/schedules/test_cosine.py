"""The learning rate rises, falls and ends low."""

import numpy as np
import pytest

from segwright.schedules.cosine import FLOOR, WARM_UP, Cosine


def test_by_hand():
    factor = Cosine()
    assert factor(0) == FLOOR
    assert factor(WARM_UP) == 1
    assert factor((1 + WARM_UP) / 2) == pytest.approx(FLOOR + (1 - FLOOR) / 2)
    assert factor(1) == pytest.approx(FLOOR) == factor(1.2)


def test_it_rises_then_falls():
    factors = np.array([Cosine()(progress) for progress in np.linspace(0, 1, 500)])
    peak = factors.argmax()
    assert (np.diff(factors[: peak + 1]) > 0).all() and (np.diff(factors[peak:]) < 0).all()
