"""Positions as sines, against transformers' and by hand. Axes: E, H, W."""

from math import cos, pi, sin

import pytest
import torch

from segwright.layers.sine_positions import sine_positions


def test_equals_transformers():
    module = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    theirs = module.Mask2FormerSinePositionEmbedding(num_position_features=8, normalize=True)
    wanted = theirs((1, 8, 5, 7), "cpu", torch.float64)[0].flatten(1).T
    torch.testing.assert_close(sine_positions((5, 7), 16, torch.empty(0, dtype=torch.float64)), wanted)


def test_two_pixels_by_hand():
    """The first column lies at half a turn, the second at one; a row of one is a whole turn. The second wave is 100 longer."""
    found = sine_positions((1, 2), 8, torch.empty(0, dtype=torch.float64))
    turn, half = 2 * pi, pi
    row = [sin(turn), cos(turn), sin(turn / 100), cos(turn / 100)]
    columns = [[sin(x), cos(x), sin(x / 100), cos(x / 100)] for x in (half, turn)]
    torch.testing.assert_close(found, torch.tensor([row + column for column in columns]).double(), rtol=0, atol=1e-5)


def test_half_precision_is_rounded_last():
    narrow = sine_positions((64, 64), 32, torch.empty(0, dtype=torch.float16))
    assert narrow.dtype == torch.float16
    torch.testing.assert_close(narrow, sine_positions((64, 64), 32, torch.empty(0)).half())
