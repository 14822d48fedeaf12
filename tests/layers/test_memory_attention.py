"""A frame and its memory: tiles, shared pixels, and what is turned. Axes: B, N, M, E, R."""

import pytest
import torch
import torch.nn.functional as F

from segwright.layers import memory_attention
from segwright.layers.memory_attention import MemoryAttention
from segwright.layers.rotary import rotary_angles, rotate

SIDES = (3, 4)


@pytest.fixture
def layers():
    torch.manual_seed(0)
    network = MemoryAttention(16, 8, 24, 2).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def memory(objects: int, frames: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(objects, 12 * frames + tokens, 8, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize("grid", [SIDES, (2, 3)])  # of what is remembered: as the frame, or coarser, and then four of them
def test_a_layer_equals_attention_that_brings_memory_to_its_width_first(layers, grid):
    """What the authors do: values of the width of the frame, one head, and products of all pixels with all that is known."""
    layer = layers.layers[0]
    angles, on_grid = (rotary_angles(sides, 16, torch.zeros((), dtype=torch.float64)) for sides in (SIDES, grid))
    x, (remembered, places) = torch.randn(1, 12, 16, dtype=torch.float64), memory(1, 2, 3)
    with torch.no_grad():
        found = layer(x, angles, on_grid, remembered, remembered + places, 3)
        normed, heads = layer.attention_norm(x), layer.attention
        query, key = rotate(heads.query(normed), angles), rotate(heads.key(normed), angles)
        y = x + heads.output(F.scaled_dot_product_attention(query, key, heads.value(normed)))
        heads = layer.to_memory
        key = heads.key(remembered + places)
        key = torch.cat([rotate(key[:, :24], on_grid), key[:, 24:]], dim=1)
        query = rotate(heads.query(layer.memory_norm(y)), angles)
        y = y + heads.output(F.scaled_dot_product_attention(query, key, heads.value(remembered)))
        y = y + layer.narrow(layer.widen(layer.mlp_norm(y)).relu())
    torch.testing.assert_close(found, y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tile", [1, 100, 2**22])
def test_tiles_and_gradients_change_nothing(layers, tile, monkeypatch):
    monkeypatch.setattr(memory_attention, "TILE", tile)
    image, given = torch.randn(1, 12, 16, dtype=torch.float64), memory(2, 2, 3)
    whole = layers(image, SIDES, *given, 3)
    assert whole.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(layers(image, SIDES, *given, 3), whole.detach(), rtol=1e-10, atol=1e-10)


def test_in_autocast_products_are_taken_in_half(layers, monkeypatch):
    layers, image, given = layers.float(), torch.randn(1, 12, 16), [part.float() for part in memory(2, 2, 3)]
    kinds = []
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, dim: kinds.append(x.dtype) or torch.softmax(x, dim))
    with torch.no_grad():
        wanted = layers(image, SIDES, *given, 3)
        with torch.autocast("cpu", torch.bfloat16):
            found = layers(image, SIDES, *given, 3)
    assert kinds[: len(kinds) // 2] == [torch.float32] * 7 and kinds[len(kinds) // 2 :] == [torch.bfloat16] * 7
    assert 0 < (found - wanted).abs().max() < 0.1 * wanted.std()


def test_objects_of_one_frame_are_told_by_their_own_memory_alone(layers):
    image, (remembered, places) = torch.randn(1, 12, 16, dtype=torch.float64), memory(3, 1, 0)
    with torch.no_grad():
        together = layers(image, SIDES, remembered, places, 0)
        alone = [layers(image, SIDES, remembered[n, None], places[n, None], 0) for n in range(3)]
        torch.testing.assert_close(together, torch.cat(alone))
        assert (together[0] - together[1]).abs().max() > 1e-3


def test_the_order_of_frames_and_of_tokens_says_nothing(layers):
    image, (remembered, places) = torch.randn(1, 12, 16, dtype=torch.float64), memory(1, 2, 2)
    order = [*range(12, 24), *range(12), 25, 24]
    with torch.no_grad():
        wanted = layers(image, SIDES, remembered, places, 2)
        torch.testing.assert_close(layers(image, SIDES, remembered[:, order], places[:, order], 2), wanted)
        moved = [*range(1, 12), 0, *range(12, 26)]  # pixels in other places are something else
        assert (layers(image, SIDES, remembered[:, moved], places[:, moved], 2) - wanted).abs().max() > 1e-3
