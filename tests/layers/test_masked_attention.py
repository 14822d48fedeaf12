"""Attention within masks, against torch's own. Axes: B, Q, E, A, S."""

import torch
from torch import nn

from segwright.layers.masked_attention import MaskedDecoderLayer, QueryAttention, outside


def test_equals_torchs_attention():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    ours = QueryAttention(16, 4).double()
    ours.query_key_value.weight.data, ours.query_key_value.bias.data = theirs.in_proj_weight, theirs.in_proj_bias
    ours.output.load_state_dict(theirs.out_proj.state_dict())
    query, key, value = (torch.randn(2, count, 16, dtype=torch.float64) for count in (3, 7, 7))
    bias = outside(torch.randn(2, 3, 7, dtype=torch.float64))
    for given in (None, bias):
        mask = None if given is None else given.expand(-1, 4, -1, -1).flatten(0, 1)
        wanted, _ = theirs(query, key, value, attn_mask=mask)
        torch.testing.assert_close(ours(query, key, value, given), wanted)
        with torch.no_grad():  # another kernel
            torch.testing.assert_close(ours(query, key, value, given), wanted)


def test_a_query_keeps_to_its_mask_unless_it_is_empty():
    logits = torch.tensor([[[1.0, -1, 0], [-1, -2, -3], [2, 2, 2]]], requires_grad=True)
    bias = outside(logits)
    wall = float("-inf")
    assert bias.tolist() == [[[[0, wall, 0], [0, 0, 0], [0, 0, 0]]]] and not bias.requires_grad


def test_pixels_outside_a_mask_do_not_matter():
    torch.manual_seed(0)
    layer = MaskedDecoderLayer(16, num_heads=2, mlp_width=8).eval()
    x, positions, places = torch.randn(1, 3, 16), torch.randn(3, 16), torch.randn(5, 16)
    pixels = torch.randn(1, 5, 16)
    other = pixels.clone()
    other[:, 3:] = torch.randn(2, 16)
    inside = torch.tensor([1.0, 1, 1, -1, -1]).expand(1, 3, 5)
    with torch.no_grad():
        same = [layer(x, positions, each, places, outside(inside)) for each in (pixels, other)]
        free = [layer(x, positions, each, places, outside(-inside)) for each in (pixels, other)]
    torch.testing.assert_close(*same)
    assert (free[0] - free[1]).abs().max() > 0.01


def test_queries_see_each_other():
    torch.manual_seed(0)
    layer = MaskedDecoderLayer(16, num_heads=2, mlp_width=8).eval()
    x, pixels = torch.randn(1, 3, 16), torch.randn(1, 5, 16)
    other = x.clone()
    other[:, 2] += 1
    given = (torch.randn(3, 16), pixels, torch.randn(5, 16), torch.zeros(1, 1, 3, 5))
    with torch.no_grad():
        assert (layer(x, *given)[:, 0] - layer(other, *given)[:, 0]).abs().max() > 0.001
