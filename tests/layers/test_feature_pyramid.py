"""The feature pyramid. Axes: B, C, E, H, W."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.layers.feature_pyramid import FeaturePyramid


def test_by_hand_repeated_pixels_are_added_from_the_deepest_down():
    pyramid = FeaturePyramid((1, 1), 1, smooth=False)
    for number, convolution in enumerate(pyramid.lateral):
        nn.init.constant_(convolution.weight, 10**number)
    fine, coarse = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([[1.0, 2]])
    first, second = pyramid([fine[None, None], coarse[None, None]])
    assert torch.equal(second[0, 0], torch.tensor([[10.0, 20]]))
    assert torch.equal(first[0, 0], torch.tensor([[11.0, 12, 23, 24], [15, 16, 27, 28]]))


def test_equals_torchvisions_live():
    ops = pytest.importorskip("torchvision.ops", reason="the live comparison needs torchvision")
    torch.manual_seed(0)
    reference = ops.FeaturePyramidNetwork([6, 8, 10], 4).double()
    pyramid = FeaturePyramid((6, 8, 10), 4).double()
    names = {"inner_blocks": "lateral", "layer_blocks": "output"}
    weights = {}
    for key, tensor in reference.state_dict().items():
        kind, number, _, what = key.split(".")
        weights[f"{names[kind]}.{number}.{what}"] = torch.randn_like(tensor)
        tensor.copy_(weights[f"{names[kind]}.{number}.{what}"])
    pyramid.load_state_dict(weights)
    sides = ((13, 22), (7, 11), (4, 6))  # of an image of 52 x 88 and odd maps
    maps = [torch.randn(2, count, *size, dtype=torch.float64) for count, size in zip((6, 8, 10), sides, strict=True)]
    wanted = reference({str(number): level for number, level in enumerate(maps)}).values()
    for level, other in zip(pyramid(maps), wanted, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-10, atol=1e-10)


def test_maps_of_one_size_are_added_as_they_are():
    pyramid = FeaturePyramid((2, 3), 4, smooth=False)
    maps = [torch.randn(1, 2, 6, 5), torch.randn(1, 3, 6, 5)]
    wanted = F.conv2d(maps[1], pyramid.lateral[1].weight)
    torch.testing.assert_close(pyramid(maps)[0], F.conv2d(maps[0], pyramid.lateral[0].weight) + wanted)
