"""DeepLab's decay."""

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.schedules.poly import Poly


def test_by_hand():
    assert Poly()(0) == 1 and Poly()(1) == 0 == Poly()(1.5)
    assert Poly(power=1.0)(0.25) == 0.75 and Poly(power=2.0)(0.5) == 0.25


def test_equals_torch():
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=20, power=0.9)
    for step in range(20):
        assert theirs.get_last_lr()[0] == pytest.approx(Poly()(step / 20))
        optimiser.step()
        theirs.step()


def test_a_power_that_does_not_decay_is_refused():
    with pytest.raises(SettingError, match="schedule.power is 0; give a number above 0, such as 0.9"):
        Poly(power=0)
