"""RoIAlign on a pyramid. Axes: R regions, E channels, h, w sides of a map."""

import json
from functools import partial
from math import ceil, floor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torchvision.ops import MultiScaleRoIAlign

from segwright.layers.roi_pool import roi_pool_cut
from segwright.layers.roi_pooling import pool_regions, region_levels, roi_align_cut

GOLDEN = Path(__file__).parent.parent / "golden"
CUT = partial(roi_align_cut, is_aligned=True, samples=2)


def test_by_hand_a_ramp_is_sampled_where_the_cells_lie():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)  # pixel x has the value x, and its centre at x + 0.5
    place = torch.tensor([[0.0, 1, 2, 5, 6]])
    aligned = roi_align_cut(ramp, place, 2, 1.0, is_aligned=True, samples=2)
    assert aligned[0, 0].tolist() == [[1.5, 3.5], [1.5, 3.5]]
    assert roi_align_cut(ramp, place, 2, 1.0, is_aligned=False, samples=2)[0, 0, 0].tolist() == [2, 4]  # half a pixel off


def slow_roi_align(features, region, side, scale, *, is_aligned, samples):
    """The mean of bilinear samples, one after the other."""
    channels, height, width = features.shape
    x1, y1, x2, y2 = (float(value) * scale - 0.5 * is_aligned for value in region)
    lengths = [y2 - y1, x2 - x1] if is_aligned else [max(y2 - y1, 1), max(x2 - x1, 1)]
    counts = [samples or ceil(length / side) for length in lengths]
    out = torch.zeros(channels, side, side, dtype=features.dtype)
    for i in range(side):
        for j in range(side):
            for a in range(counts[0]):
                for b in range(counts[1]):
                    y = y1 + (i + (a + 0.5) / counts[0]) * lengths[0] / side
                    x = x1 + (j + (b + 0.5) / counts[1]) * lengths[1] / side
                    if not (-1 <= y <= height and -1 <= x <= width):
                        continue
                    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                    for row in {floor(y), ceil(y)}:
                        for column in {floor(x), ceil(x)}:
                            share = (1 - abs(y - row)) * (1 - abs(x - column)) / (counts[0] * counts[1])
                            out[:, i, j] += share * features[:, row, column]
    return out


@pytest.mark.parametrize("is_aligned", [True, False])
@pytest.mark.parametrize("samples", [1, 2, None])
def test_equals_a_slow_twin_and_the_golden_arrays(is_aligned, samples):
    arrays = load_file(GOLDEN / "roi_align_a.safetensors")
    limits = json.loads((GOLDEN / "roi_align_a.json").read_text())["tolerance"]
    features, places = arrays["in/features"], arrays["in/boxes"]
    for scale in (0.25, 0.125):
        name = f"aligned{int(is_aligned)}.sr{samples or 0}.scale{scale}"
        ours = roi_align_cut(features, places, 7, scale, is_aligned=is_aligned, samples=samples)
        torch.testing.assert_close(ours, arrays[f"out/{name}"], **limits[name])
    place = places[1].double()
    twin = slow_roi_align(features[int(place[0])].double(), place[1:], 7, 0.25, is_aligned=is_aligned, samples=samples)
    ours = roi_align_cut(features.double(), place[None], 7, 0.25, is_aligned=is_aligned, samples=samples)
    torch.testing.assert_close(ours[0], twin)


def test_gradients_equal_the_golden_arrays():
    arrays = load_file(GOLDEN / "roi_align_a.safetensors")
    features = arrays["in/features"].requires_grad_()
    pooled = CUT(features, arrays["in/boxes"], 7, 0.25)
    pooled.backward(torch.linspace(-1, 1, pooled.numel()).reshape(pooled.shape))
    limits = json.loads((GOLDEN / "roi_align_a.json").read_text())["tolerance"]["grad_features(aligned1,sr2,first scale)"]
    torch.testing.assert_close(features.grad, arrays["out/grad_features(aligned1,sr2,first scale)"], **limits)


@pytest.mark.parametrize("adds_to_level", [True, False])
def test_large_regions_lie_on_deep_maps(adds_to_level):
    sides = torch.tensor([0.0, 1, 111, 112, 223, 224, 448, 896, 5000])
    regions = torch.stack([0 * sides, 0 * sides, sides, sides], dim=1)
    assert region_levels(regions, 4, adds_to_level=adds_to_level).tolist() == [0, 0, 0, 1, 1, 2, 3, 3, 3]
    long = torch.tensor([[0.0, 0, 448, 112]])  # as large as 224 x 224
    assert region_levels(long, 4, adds_to_level=adds_to_level).tolist() == [2]


def test_equals_torchvision_live_and_keeps_the_order_of_regions():
    generator = torch.Generator().manual_seed(0)
    maps = [
        torch.randn(2, 3, 512 // stride, 768 // stride, generator=generator, dtype=torch.float64) for stride in (4, 8, 16, 32)
    ]
    low = torch.rand(60, 2, generator=generator, dtype=torch.float64) * 300
    regions = torch.cat([low, low + torch.rand(60, 2, generator=generator, dtype=torch.float64) * 450], dim=1).split([20, 40])
    reference = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    wanted = reference({str(number): level for number, level in enumerate(maps)}, list(regions), [(512, 768)] * 2)
    cut = partial(roi_align_cut, is_aligned=False, samples=2)
    torch.testing.assert_close(pool_regions(maps, regions, (4, 8, 16, 32), 7, cut, adds_to_level=True), wanted)


@pytest.mark.parametrize("is_autocast", [False, True])
@pytest.mark.parametrize("cut", [CUT, roi_pool_cut])
def test_half_precision_leaves_regions_where_they_are(cut, is_autocast):
    """A region 9 pixels wide from 301.3 on; bfloat16 knows 300, 302 and 304 there, and the ramp tells where it was cut."""
    ramp = (torch.arange(320.0) - 300).expand(1, 1, 8, 320).contiguous()
    region = torch.tensor([[301.3, 0, 310.3, 6]])
    wanted = pool_regions([ramp], [region], (1,), 3, cut, adds_to_level=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        half = ramp.bfloat16().requires_grad_()
        found = pool_regions([half], [region], (1,), 3, cut, adds_to_level=False)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.04, rtol=0)
    found.sum().backward()
    assert half.grad.any()


def test_no_regions_give_no_features_and_a_gradient_of_nothing():
    level = torch.randn(1, 3, 8, 8, requires_grad=True)
    pooled = pool_regions([level], [torch.zeros(0, 4)], (4,), 7, CUT, adds_to_level=False)
    assert pooled.shape == (0, 3, 7, 7)
    assert nn.Conv2d(3, 2, 1)(pooled).shape == (0, 2, 7, 7)


def test_features_lie_in_memory_as_the_maps_do():
    level = torch.randn(1, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    pooled = pool_regions([level], [torch.tensor([[0.0, 0, 20, 20]])], (4,), 7, CUT, adds_to_level=False)
    assert pooled.is_contiguous(memory_format=torch.channels_last)
