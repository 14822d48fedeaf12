"""Settings reach torch's AdamW, and those that cannot be meant are refused."""

import pytest
import torch

from segwright.core.errors import SettingError
from segwright.optimisers import Optimiser, adamw


def test_the_settings_are_torchs():
    config = adamw.Config(learning_rate=0.5, weight_decay=0.25)
    built = config.build([torch.zeros(1, requires_grad=True)])
    assert isinstance(built, torch.optim.AdamW) and isinstance(config, Optimiser)
    assert (built.param_groups[0]["lr"], built.param_groups[0]["weight_decay"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0}, "learning_rate is 0; give a positive"),
        ({"weight_decay": -1}, "weight_decay is -1; give 0 or more"),
    ],
)
def test_rates_that_cannot_be_meant(settings, message):
    with pytest.raises(SettingError, match=message):
        adamw.Config(**settings)
