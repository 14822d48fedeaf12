"""Ways to enlarge a map, by hand and by law. Axes: B batch, C channels, *S spatial axes."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segwright.layers.upsample import SubpixelConvolution, UpsamplingWay, upsampling

WAYS = get_args(UpsamplingWay)


@given(
    st.sampled_from(WAYS),
    st.integers(2, 3).flatmap(lambda axes: st.lists(st.integers(1, 3), min_size=axes, max_size=axes)),
    st.lists(st.integers(1, 4), min_size=5, max_size=5),
)
def test_sides_grow_by_the_stride_and_every_parameter_learns(way, stride, counts):
    before, after, *sides = counts
    layer = upsampling(way, before, after, tuple(stride))
    larger = layer(torch.randn(2, before, *sides[: len(stride)]))
    assert larger.shape == (2, after, *(side * step for side, step in zip(sides, stride, strict=False)))
    larger.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def test_by_hand_a_transposed_convolution_puts_its_kernel_in_the_place_of_a_pixel():
    layer = upsampling("transposed", 1, 1, (2, 2))
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight.copy_(torch.tensor([[[[1.0, 2], [3, 4]]]]))
        doubled = layer(torch.tensor([[[[1.0, 10]]]]))
    assert doubled.tolist() == [[[[1, 2, 10, 20], [3, 4, 30, 40]]]]


def test_by_hand_channels_become_pixels_with_the_last_axis_fastest():
    layer = SubpixelConvolution(1, 1, (1, 2, 3))
    with torch.no_grad():
        layer[0].weight.zero_()
        layer[0].bias.copy_(torch.arange(6.0))
        assert layer(torch.zeros(1, 1, 1, 1, 2)).tolist() == [[[[[0, 1, 2, 0, 1, 2], [3, 4, 5, 3, 4, 5]]]]]


def test_a_shuffle_of_images_is_torchs_and_that_of_volumes_of_one_slice():
    flat, deep = SubpixelConvolution(3, 5, (2, 2)), SubpixelConvolution(3, 5, (1, 2, 2))
    deep.load_state_dict({name: value.reshape(deep.state_dict()[name].shape) for name, value in flat.state_dict().items()})
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(flat(x), F.pixel_shuffle(flat[0](x), 2), rtol=0, atol=0)
    torch.testing.assert_close(deep(x[:, :, None])[:, :, 0], flat(x))


@pytest.mark.parametrize("stride", [(2, 2), (1, 2, 3)])
def test_a_shuffle_of_equal_pixels_is_a_convolution_and_each_pixel_repeated(stride):
    layer = SubpixelConvolution(3, 5, stride)
    first = [parameter.detach()[:: torch.tensor(stride).prod()].clone() for parameter in layer.parameters()]
    layer.make_pixels_equal()
    x = torch.randn(2, 3, 4, 6, 2)[..., : 1 if len(stride) == 2 else 2]
    x = x[..., 0] if len(stride) == 2 else x
    convolution = F.conv2d if len(stride) == 2 else F.conv3d
    small = convolution(x, *first, padding=layer[0].padding)
    torch.testing.assert_close(layer(x), F.interpolate(small, scale_factor=stride, mode="nearest"))


@pytest.mark.parametrize("way", ["bilinear", "nearest", "pixel_shuffle"])
def test_a_flat_map_stays_flat_inside(way):
    layer = upsampling(way, 4, 3, (2, 2))
    if way == "pixel_shuffle":
        layer.make_pixels_equal()
    doubled = layer(torch.randn(1, 4, 1, 1).expand(1, 4, 8, 8))[..., 3:-3, 3:-3]  # away from the zero padding
    torch.testing.assert_close(doubled, doubled[..., :1, :1].expand_as(doubled))


@pytest.mark.parametrize("way", ["transposed", "pixel_shuffle"])
def test_pixels_with_weights_of_their_own_leave_a_checkerboard_on_a_flat_map(way):
    doubled = upsampling(way, 4, 1, (2, 2))(torch.randn(1, 4, 1, 1).expand(1, 4, 8, 8))[..., 2:-2, 2:-2]
    assert doubled[0, 0].unique().numel() >= 4
    torch.testing.assert_close(doubled[..., ::2, ::2], doubled[..., :1, :1].expand(1, 1, 6, 6))


@pytest.mark.parametrize("way", WAYS)
def test_slices_that_keep_their_number_are_images(way):
    layer = upsampling(way, 3, 2, (1, 2, 2))
    volume = torch.randn(1, 3, 5, 4, 6)
    apart = torch.cat([layer(volume[:, :, i : i + 1]) for i in range(5)], dim=2)
    torch.testing.assert_close(layer(volume), apart)
