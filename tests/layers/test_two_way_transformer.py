"""Attention between tokens and patches, against torch's own. Axes: B, P prompts, T tokens, N patches, S maps, E channels."""

import pytest
import torch
import torch.nn.functional as F

from segwright.layers.two_way_transformer import CrossAttention, TwoWayBlock

WIDTH, HEADS = 32, 2  # 8 channels of a head


def plain(layer: CrossAttention, query, key, value):
    """(B, P, *, E) three times, projected first, as the paper has it."""
    heads = [
        part(x).unflatten(-1, (HEADS, -1)).transpose(2, 3)
        for part, x in ((layer.query, query), (layer.key, key), (layer.value, value))
    ]
    return layer.output(F.scaled_dot_product_attention(*heads).transpose(2, 3).flatten(3))


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize(("prompts", "tokens"), [(1, 3), (2, 3), (1, 20), (3, 7)])  # rows below 8 channels, and above
def test_equals_projecting_everything_first(is_shared, prompts, tokens):
    torch.manual_seed(tokens)
    layer = CrossAttention(WIDTH, HEADS).double()
    known, said = torch.randn(2, 2, prompts, tokens, WIDTH, dtype=torch.float64)
    image, placed = torch.randn(2, 2, 1 if is_shared else prompts, 12, WIDTH, dtype=torch.float64)
    all_image, all_placed = (x.expand(-1, prompts, -1, -1) for x in (image, placed))
    inputs = (layer.of_tokens(known, placed, image), layer.of_image(placed, known, said))
    wanted = (plain(layer, known, all_placed, all_image), plain(layer, all_placed, known, said))
    for answer, other in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(answer, other, rtol=1e-11, atol=1e-12)
        found = torch.autograd.grad(answer.pow(3).sum(), layer.parameters())
        for one, another in zip(found, torch.autograd.grad(other.pow(3).sum(), layer.parameters()), strict=True):
            torch.testing.assert_close(one, another, rtol=1e-9, atol=1e-10)


def test_prompts_share_patches_until_these_have_heeded_them():
    torch.manual_seed(0)
    first, second = (TwoWayBlock(WIDTH, 16, HEADS, is_first=is_first).double() for is_first in (True, False))
    tokens, image = torch.randn(1, 3, 4, WIDTH, dtype=torch.float64), torch.randn(1, 1, 6, WIDTH, dtype=torch.float64)
    places = torch.randn(6, WIDTH, dtype=torch.float64)
    after, patches = first(tokens, tokens, image, places)
    assert patches.shape == (1, 3, 6, WIDTH)
    after, patches = second(after, tokens, patches, places)
    repeated = first(tokens, tokens, image.expand(-1, 3, -1, -1), places)
    alone = second(repeated[0], tokens, repeated[1], places)
    torch.testing.assert_close(after, alone[0], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(patches, alone[1], rtol=1e-11, atol=1e-12)
