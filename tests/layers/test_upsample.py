"""Ways to double a map, by hand and by law. Axes: B batch, C channels, *S spatial axes."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segwright.core.errors import SettingError
from segwright.layers.upsample import Upsample, Way

WAYS = get_args(Way)


@given(st.sampled_from(WAYS), st.sampled_from([2, 3]), st.lists(st.integers(1, 4), min_size=5, max_size=5))
def test_sides_double_and_every_parameter_learns(way, axes, counts):
    if way == "pixel_shuffle" and axes == 3:
        return
    before, after, *sides = counts
    layer = Upsample(way, before, after, axes=axes)
    doubled = layer(torch.randn(2, before, *sides[:axes]))
    assert doubled.shape == (2, after, *(2 * side for side in sides[:axes]))
    doubled.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_by_hand_a_transposed_convolution_puts_its_kernel_in_the_place_of_a_pixel():
    layer = Upsample("transposed", 1, 1)
    with torch.no_grad():
        layer[0].weight.copy_(torch.tensor([[[[1.0, 2], [3, 4]]]]))
        doubled = layer(torch.tensor([[[[1.0, 10]]]]))
    assert doubled.tolist() == [[[[1, 2, 10, 20], [3, 4, 30, 40]]]]


def test_a_new_pixel_shuffle_is_a_convolution_and_each_pixel_four_times():
    layer = Upsample("pixel_shuffle", 3, 5)
    x = torch.randn(2, 3, 4, 6)
    small = F.conv2d(x, layer[0].weight[::4], padding=1)
    torch.testing.assert_close(layer(x), F.interpolate(small, scale_factor=2, mode="nearest"))


@pytest.mark.parametrize("way", ["bilinear", "nearest", "pixel_shuffle"])
def test_a_flat_map_stays_flat_inside_with_new_weights(way):
    doubled = Upsample(way, 4, 3)(torch.randn(1, 4, 1, 1).expand(1, 4, 8, 8))[..., 3:-3, 3:-3]  # away from the zero padding
    torch.testing.assert_close(doubled, doubled[..., :1, :1].expand_as(doubled))


def test_a_transposed_convolution_leaves_a_checkerboard_on_a_flat_map():
    doubled = Upsample("transposed", 4, 1)(torch.randn(1, 4, 1, 1).expand(1, 4, 4, 4))
    assert doubled[0, 0].unique().numel() == 4
    assert torch.equal(doubled[..., ::2, ::2], doubled[..., :1, :1].expand(1, 1, 4, 4))


@pytest.mark.parametrize("way", WAYS)
def test_weights_keep_the_size_of_values_through_a_relu(way):
    torch.manual_seed(0)
    with torch.no_grad():
        doubled = F.relu(Upsample(way, 64, 64)(torch.randn(4, 64, 32, 32)))
    low = 0.35 if way == "bilinear" else 0.9  # interpolation takes a good part of white noise away
    assert low < doubled.square().mean() < 1.1


def test_refuses_to_shuffle_volumes_and_the_remedy_works():
    with pytest.raises(SettingError, match=r"3 spatial axes; take 'nearest' instead"):
        Upsample("pixel_shuffle", 2, 2, axes=3)
    Upsample("nearest", 2, 2, axes=3)
