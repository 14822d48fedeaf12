"""Stochastic depth. Axes: B batch, * any others."""

import pytest
import torch

from segwright.layers.drop_path import DropPath


def test_stochastic_depth_keeps_the_mean_and_drops_whole_images():
    layer = DropPath(0.25)
    torch.manual_seed(0)
    branch = layer(torch.ones(4000, 2, 2, 1))
    assert branch.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (branch.flatten(1).std(1) == 0).all()
    assert branch.mean().item() == pytest.approx(1, abs=0.03)  # four standard deviations of the mean of 4000 draws
    assert layer.eval()(branch) is branch


def test_nothing_is_dropped_at_rate_zero():
    branch = torch.ones(3, 2)
    assert DropPath(0.0).train()(branch) is branch
