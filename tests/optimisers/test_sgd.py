"""Settings reach torch's SGD, and those that cannot be meant are refused."""

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.optimisers import Optimiser, sgd


def test_the_settings_are_torchs():
    config = sgd.Config(learning_rate=0.5, momentum=0.9, weight_decay=1e-4, nesterov=False)
    group = config.build([torch.zeros(1, requires_grad=True)]).param_groups[0]
    assert isinstance(config, Optimiser)
    assert (group["lr"], group["momentum"], group["weight_decay"], group["nesterov"]) == (0.5, 0.9, 1e-4, False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": -1}, "learning_rate is -1; give a positive"),
        ({"momentum": 1.0}, "momentum is 1.0; give a number from 0 to below 1"),
        ({"momentum": 0.0}, "above 0 where nesterov is true"),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    with pytest.raises(SettingError, match=message):
        sgd.Config(**settings)
    sgd.Config(momentum=0.0, nesterov=False)
