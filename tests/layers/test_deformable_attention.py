"""Multi-scale deformable attention, against the authors' and by hand. Axes: B, E, A, D, L, P, Q, S."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segwright.layers.deformable_attention import (
    DeformableAttention,
    by_grids,
    deformable_attention,
    pixel_centres,
)

GOLDEN = Path(__file__).parents[1] / "golden"
SIDES = [(2, 3), (4, 5)]


def drawn(dtype=torch.float64, batch=2, queries=7, spread=2.0):
    """Pixels, places and weights of 2 heads of 4 channels on two levels, with places inside, at borders and far outside."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(batch, 26, 2, 4, dtype=dtype, generator=generator)
    x, y, weights = (torch.rand(batch, queries, 2, 2, 3, dtype=dtype, generator=generator) for _ in range(3))
    return [each.requires_grad_() for each in (value, x * 5 * spread - 2, y * 4 * spread - 2, weights)]


def test_equals_the_authors():
    arrays = load_file(GOLDEN / "ms_deform_attn_a.safetensors")
    limits = json.loads((GOLDEN / "ms_deform_attn_a.json").read_text())["tolerance"]["output"]
    sides = arrays["in/spatial_shapes"].tolist()
    places = arrays["in/sampling_locations"] * torch.tensor([[width, height] for height, width in sides])[:, None]
    found = deformable_attention(arrays["in/value"], sides, *places.unbind(-1), arrays["in/attention_weights"])
    torch.testing.assert_close(found, arrays["out/output"], **limits)


def test_by_hand():
    """On one level of 2 x 2 with the numbers 1 to 4: a centre, the middle of all, half out to the left, and far away."""
    value = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)
    x, y = torch.tensor([1.5, 1.0, 0.0, 9.0]), torch.tensor([0.5, 1.0, 1.5, 0.5])
    found = deformable_attention(
        value, [(2, 2)], x.view(1, 4, 1, 1, 1), y.view(1, 4, 1, 1, 1), torch.full((1, 4, 1, 1, 1), 2.0)
    )
    assert found.flatten().tolist() == [4, 5, 3, 0]


def test_kernels_equal_torchs_operations_and_so_do_gradients():
    results = []
    for core in (deformable_attention, lambda value, sides, *places: by_grids(value, *places, sides)):
        given = drawn()
        found = core(given[0], SIDES, *given[1:])
        results.append([found, *torch.autograd.grad((found * torch.arange(8)).sin().sum(), given)])
    for mine, wanted in zip(*results, strict=True):
        torch.testing.assert_close(mine, wanted)


def test_single_precision_is_exact_enough():
    given = drawn(torch.float32)
    wide = deformable_attention(given[0].double(), SIDES, *(each.double() for each in given[1:]))
    torch.testing.assert_close(deformable_attention(given[0], SIDES, *given[1:]), wide.float())


def test_half_precision_is_computed_in_single():
    value, x, y, weights = drawn(torch.float32)
    found = deformable_attention(value.bfloat16(), SIDES, x, y, weights)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, deformable_attention(value.bfloat16().float(), SIDES, x, y, weights).bfloat16())


@pytest.mark.parametrize("batch", [1, 3])
def test_images_do_not_mix(batch):
    given = [each.detach() for each in drawn(batch=batch)]
    alone = [
        deformable_attention(*(each[n : n + 1] for each in given[:1]), SIDES, *(e[n : n + 1] for e in given[1:]))
        for n in range(batch)
    ]
    torch.testing.assert_close(deformable_attention(given[0], SIDES, *given[1:]), torch.cat(alone))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30])
def test_broken_places_are_nowhere(bad):
    given = drawn()
    with torch.no_grad():
        given[1][0, 0, 0, 0, 0] = bad
        without = [given[0], *(each.clone() for each in given[1:])]
        without[3][0, 0, 0, 0, 0] = without[1][0, 0, 0, 0, 0] = 0
    found = deformable_attention(given[0], SIDES, *given[1:])
    torch.testing.assert_close(found, deformable_attention(without[0], SIDES, *without[1:]))
    assert all(each.isfinite().all() for each in torch.autograd.grad(found.sum(), given))


def test_pixels_lie_at_their_centres_on_each_level():
    centres = pixel_centres([(1, 2), (2, 4)], torch.empty(0))
    assert centres.x[:2, 0, :, 0].tolist() == [[0.5, 1.0], [1.5, 3.0]]
    assert centres.y[2:, 0, :, 0].tolist() == [[0.25, 0.5]] * 4 + [[0.75, 1.5]] * 4


def test_a_trace_holds_for_other_images():
    """It is made of operations that exporters know."""
    torch.manual_seed(0)
    attention = DeformableAttention(8, num_heads=2, levels=2, places=3).requires_grad_(False)
    torch.nn.init.normal_(attention.sample.weight)
    centres = pixel_centres(SIDES, torch.empty(0))
    tokens, other = torch.randn(2, 1, 26, 8)
    traced = torch.jit.trace(lambda x: attention(x, x, SIDES, centres), tokens, check_trace=False)
    assert "PythonOp" not in str(traced.graph)
    torch.testing.assert_close(traced(other), attention(other, other, SIDES, centres))
