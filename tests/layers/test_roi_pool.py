"""RoIPool, whose borders are rounded. Axes: R regions, E channels."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from segwright.layers.roi_pool import roi_pool_cut

GOLDEN = Path(__file__).parent.parent / "golden"


def test_by_hand_the_greatest_of_each_cell():
    features = torch.arange(16.0).reshape(1, 1, 4, 4)
    pooled = roi_pool_cut(features, torch.tensor([[0.0, 0, 0, 3, 3], [0, 0.4, 0.4, 1.4, 1.4]]), 2, 1.0)
    assert pooled[0, 0].tolist() == [[5, 7], [13, 15]]
    assert pooled[1, 0].tolist() == [[0, 1], [4, 5]]  # rounded to 0, 0, 1, 1


def test_a_region_that_moves_by_less_than_half_a_pixel_sees_the_same():
    features = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    place = torch.tensor([[0.0, 8, 8, 32, 40]])
    assert torch.equal(
        roi_pool_cut(features, place, 3, 0.25), roi_pool_cut(features, place + torch.tensor([0, 1, 1, 1, 1]), 3, 0.25)
    )


def test_equals_the_golden_array():
    arrays = load_file(GOLDEN / "roi_align_a.safetensors")
    limits = json.loads((GOLDEN / "roi_align_a.json").read_text())["tolerance"]["roi_pool.scale0.25"]
    pooled = roi_pool_cut(arrays["in/features"], arrays["in/boxes"], 7, 0.25)
    torch.testing.assert_close(pooled, arrays["out/roi_pool.scale0.25"], **limits)
