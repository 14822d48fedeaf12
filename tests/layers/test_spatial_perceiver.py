"""Maps condensed into tokens. Parity is in tests/models/test_edgetam.py. Axes: B, N, R, G."""

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import ShapeError
from segwright.layers.sine_positions import sine_positions
from segwright.layers.spatial_perceiver import SpatialPerceiver

SIDES, GRID, COUNT = (4, 6), (2, 3), 5


@pytest.fixture
def perceiver():
    torch.manual_seed(0)
    return SpatialPerceiver(8, grid=GRID, count=COUNT, depth=2).double().eval()


def twin(network, tokens, pixels, places):
    """What the layers do to tokens (T, R) that look at pixels (n, R)."""
    for layer in network.layers:
        look, seen = layer.to_pixels, layer.pixels_norm(pixels)
        key, value = look.key(seen) + places, look.value(seen) + places
        shares = (look.query(layer.to_pixels_norm(tokens)) @ key.T / 8**0.5).softmax(dim=1)
        tokens = tokens + look.output(shares @ value)
        tokens = tokens + layer.pixels_mlp.narrow(F.gelu(layer.pixels_mlp.widen(layer.pixels_mlp.norm(tokens))))
        look, normed = layer.attention, layer.attention_norm(tokens)
        shares = (look.query(normed) @ look.key(normed).T / 8**0.5).softmax(dim=1)
        tokens = tokens + look.output(shares @ look.value(normed))
        tokens = tokens + layer.mlp.narrow(F.gelu(layer.mlp.widen(layer.mlp.norm(tokens))))
    return network.norm(tokens)


def test_equals_a_slow_twin_window_by_window(perceiver):
    maps = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    with torch.no_grad():
        found = perceiver(maps.flatten(1, 2), SIDES)
        assert found.shape == (2, 6 + COUNT, 8)
        for number, each in enumerate(maps):
            for window in range(6):
                row, column = divmod(window, 3)
                pixels = each[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(0, 1)
                wanted = twin(perceiver, perceiver.of_windows[window, None], pixels, 0)
                torch.testing.assert_close(found[number, window, None], wanted, rtol=1e-9, atol=1e-9)
            places = sine_positions(SIDES, 8, maps)
            wanted = twin(perceiver, perceiver.of_all, each.flatten(0, 1), places)
            torch.testing.assert_close(found[number, 6:], wanted, rtol=1e-9, atol=1e-9)


def test_a_change_is_seen_by_its_window_and_by_all_that_see_the_whole(perceiver):
    maps = torch.randn(1, 4, 6, 8, dtype=torch.float64)
    other = maps.clone()
    other[0, 3, 2] *= -1  # of the window in the second row and column
    with torch.no_grad():
        apart = (perceiver(maps.flatten(1, 2), SIDES) - perceiver(other.flatten(1, 2), SIDES)).abs().amax(-1)[0]
    assert (apart > 1e-6).tolist() == [False] * 4 + [True, False] + [True] * COUNT


def test_sides_that_do_not_divide_are_refused(perceiver):
    with pytest.raises(ShapeError, match=r"the map is 4 x 5, and is condensed into 2 x 3 windows; .* multiples of 2 and 3"):
        perceiver(torch.zeros(1, 20, 8, dtype=torch.float64), (4, 5))
