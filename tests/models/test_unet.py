"""U-Net. Axes: B, C, K, *S."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segwright.core.errors import SettingError, ShapeError
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.upsample import UpsamplingWay
from segwright.models import unet

WAYS = get_args(UpsamplingWay)
TINY = unet.Config(in_channels=2, num_classes=3, width=4, depth=3, max_width=8)


def seeded(config: unet.Config, seed: int = 0) -> unet.UNet:
    torch.manual_seed(seed)
    network = config.build().double()
    for module in network.modules():  # statistics that a norm must really apply
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def test_by_hand_pixel_plus_ten_times_the_maximum_of_its_block():
    network = unet.Config(in_channels=1, num_classes=1, width=1, depth=2, max_width=1).build().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
                module.weight[0, 0, module.kernel_size[0] // 2, module.kernel_size[1] // 2] = 1  # the identity
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(1 - module.eps)  # the identity
        network.up[0].weight.fill_(1)  # repeats each pixel 2 x 2
        network.decoder[0][0].weight[0, 1, 1, 1] = 10  # first the skip, then what comes from below
        image = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 5], [0, 0, 1, 1], [0, 7, 1, 1]])
        wanted = torch.tensor([[41.0, 42, 50, 50], [43, 44, 50, 55], [70, 70, 11, 11], [70, 77, 11, 11]])
        assert torch.allclose(network(image[None, None])[0, 0], wanted, rtol=1e-5)


def test_the_published_network_has_31_million_parameters():
    widths = [64, 128, 256, 512, 1024]
    double = lambda before, width: 9 * before * width + 9 * width * width + 4 * width  # noqa: E731  two norms: 4 * width
    wanted = sum(double(before, width) for before, width in zip([3, *widths], widths, strict=False))
    wanted += sum(double(2 * width, width) for width in widths[:-1])
    wanted += sum(4 * below * width + width for width, below in zip(widths, widths[1:], strict=False))
    wanted += 64 * 2 + 2
    with torch.device("meta"):
        network = unet.PRESETS["unet"].build()
    assert sum(p.numel() for p in network.parameters()) == wanted == 31_037_698


def test_channels_stop_doubling_at_the_maximum():
    network = replace(TINY, depth=4, max_width=6).build()
    assert [block[0].out_channels for block in network.encoder] == [4, 6, 6, 6]


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("upsampling", WAYS)
@pytest.mark.parametrize(("axes", "sides"), [(2, (8, 12)), (3, (8, 4, 12))])
def test_logits_have_the_size_of_the_image(norm, upsampling, axes, sides):
    config = replace(TINY, norm=norm, upsampling=upsampling, axes=axes)
    logits = config.build()(torch.randn(2, 2, *sides))
    assert logits.shape == (2, 3, *sides)
    logits.square().mean().backward()


def test_two_dimensional_images_give_the_same_in_three_dimensions():
    """Kernels that look at one slice only, on a volume of equal slices, are the 2D network."""
    flat, deep = seeded(TINY), seeded(replace(TINY, axes=3))
    weights = {}
    for (name, wanted), weight in zip(deep.state_dict().items(), flat.state_dict().values(), strict=True):
        if wanted.ndim == 5:
            weight = weight[:, :, None].expand(wanted.shape).clone()
            if wanted.shape[2] == 3:
                weight[:, :, [0, 2]] = 0
        weights[name] = weight
    deep.load_state_dict(weights)
    image = torch.randn(1, 2, 8, 12, dtype=torch.float64)
    volume = image[:, :, None].expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(deep(volume), flat(image)[:, :, None].expand(-1, -1, 4, -1, -1))


@given(axis=st.sampled_from([2, 3]), upsampling=st.sampled_from(WAYS[:2]), seed=st.integers(0, 99))
@settings(max_examples=8)
def test_flipped_kernels_on_a_flipped_image_flip_the_answer(axis, upsampling, seed):
    network = seeded(replace(TINY, upsampling=upsampling), seed)
    image = torch.randn(1, 2, 8, 12, dtype=torch.float64)
    before = network(image)
    network.load_state_dict({k: v.flip(axis) if v.ndim == 4 else v for k, v in network.state_dict().items()})
    torch.testing.assert_close(network(image.flip(axis)).flip(axis), before)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_new_pixel_shuffle_leaves_no_checkerboard(axes):
    network = seeded(replace(TINY, upsampling="pixel_shuffle", axes=axes))
    for layer in network.up:
        found = layer(torch.randn(1, 8, *[1] * axes, dtype=torch.float64).expand(1, 8, *[6] * axes))
        inside = found[(..., *[slice(4, -4)] * axes)]
        torch.testing.assert_close(inside, inside[(..., *[slice(0, 1)] * axes)].expand_as(inside))


def test_moving_the_image_by_the_divisor_moves_the_answer():
    network = seeded(replace(TINY, depth=2))
    image = torch.zeros(1, 2, 48, 32, dtype=torch.float64)
    image[:, :, 16:24, 12:20] = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    moved = network(image.roll((2 * network.divisors[0], -network.divisors[0]), (2, 3)))
    inside = (slice(None), slice(None), slice(16, -16), slice(10, -10))  # away from the zeros that pad the borders
    torch.testing.assert_close(
        moved[inside], network(image).roll((2 * network.divisors[0], -network.divisors[0]), (2, 3))[inside]
    )


def test_bfloat16_and_channels_last_stay_close_and_keep_the_layout():
    network = seeded(TINY).float().to(memory_format=torch.channels_last)
    image = torch.randn(2, 2, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(image.to(memory_format=torch.channels_last))
    assert logits.is_contiguous(memory_format=torch.channels_last)
    wanted = network(image)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through ten layers


def test_refuses_what_leaves_a_norm_nothing_to_normalise_and_the_remedies_work():
    image = torch.randn(1, 2, 4, 4)
    for norm in ("batch", "instance"):
        network = replace(TINY, norm=norm).build()
        with pytest.raises(ShapeError, match="leave one pixel .* pad the last side to 8 or build it with a smaller depth"):
            network(image)
        network(torch.randn(1, 2, 4, 8))
        replace(TINY, norm=norm, depth=2).build()(image)
    replace(TINY).build()(image.expand(2, -1, -1, -1))  # a batch of two has two values
    TINY.build().eval()(image)  # and running statistics need none


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "width", "depth", "max_width"])
def test_refuses_settings_below_one(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(TINY, **{name: 0})


THICK = replace(TINY, axes=3, strides=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)))


@pytest.mark.parametrize("upsampling", WAYS)
def test_an_axis_that_is_halved_less_needs_fewer_pixels(upsampling):
    network = replace(THICK, upsampling=upsampling).build().eval()
    assert network.divisors == (2, 4, 4)
    assert network.encoder[0][0].kernel_size == network.decoder[0][3].kernel_size == (1, 3, 3)
    assert network(torch.randn(1, 2, 6, 8, 4)).shape == (1, 3, 6, 8, 4)
    with pytest.raises(ShapeError, match="5 x 8 x 6, .* divisible by 2 x 4 x 4; pad them to 6 x 8 x 8"):
        network(torch.zeros(1, 2, 5, 8, 6))


@pytest.mark.parametrize("upsampling", WAYS)
def test_slices_that_nothing_joins_are_images(upsampling):
    """Kernels of one slice and strides of 1 along the first axis: a volume is a batch of images."""
    flat = seeded(replace(TINY, upsampling=upsampling))
    apart = {"strides": ((1, 2, 2),) * 2, "kernels": ((1, 3, 3),) * 3}
    deep = seeded(replace(TINY, upsampling=upsampling, axes=3, **apart))
    flat_weights, deep_weights = flat.state_dict(), deep.state_dict()
    assert list(flat_weights) == list(deep_weights)
    deep.load_state_dict({name: weight.reshape(deep_weights[name].shape) for name, weight in flat_weights.items()})
    volume = torch.randn(1, 2, 3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(deep(volume)[0].movedim(1, 0), flat(volume[0].movedim(1, 0)))


def test_settings_that_say_what_is_usual_change_nothing():
    usual = replace(TINY, strides=((2, 2),) * 2, kernels=((3, 3),) * 3)
    one, other = seeded(TINY).state_dict(), seeded(usual).state_dict()
    assert list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_saved_weights_keep_their_names():
    assert [name.removesuffix(".weight") for name in TINY.build().state_dict() if name.endswith(".weight")] == [
        *(f"encoder.{stage}.{part}" for stage in range(3) for part in (0, 1, 3, 4)),
        *("up.0", "up.1"),
        *(f"decoder.{stage}.{part}" for stage in range(2) for part in (0, 1, 3, 4)),
        "head",
    ]


def test_deep_supervision_adds_heads_in_training_alone():
    torch.manual_seed(0)
    plain = replace(TINY, depth=4).build()
    network = replace(TINY, depth=4, deep_supervision=2).build()
    loaded = network.load_state_dict(plain.state_dict(), strict=False)
    assert loaded.missing_keys == [f"auxiliary.{stage}.{kind}" for stage in (0, 1) for kind in ("weight", "bias")]
    image = torch.randn(2, 2, 16, 24)
    outputs = network(image)
    assert isinstance(outputs, WithAuxiliary)
    assert [list(logits.shape) for logits in outputs.auxiliary] == [[2, 3, 8, 12], [2, 3, 4, 6]]
    assert outputs.weights == (0.5, 0.25)
    assert torch.equal(outputs.logits, plain(image))
    (outputs.logits.mean() + sum(logits.mean() for logits in outputs.auxiliary)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert torch.equal(network.eval()(image), plain.eval()(image))


def test_refuses_strides_kernels_and_heads_that_do_not_fit():
    with pytest.raises(SettingError, match=r"strides is \[\[1, 2\]\]; a U-Net of 3 stages on 2 axes needs 2 times 2 numbers"):
        replace(TINY, strides=((1, 2),))
    with pytest.raises(SettingError, match=r"kernels is .*; a U-Net of 3 stages on 2 axes needs 3 times 2 numbers"):
        replace(TINY, kernels=((3, 3, 3),) * 3)
    with pytest.raises(SettingError, match=r"kernels is \[\[2, 3\], .*; each must be odd"):
        replace(TINY, kernels=((2, 3), (3, 3), (3, 3)))
    with pytest.raises(SettingError, match=r"deep_supervision is 2; .* has 1 maps .* so give 0 to 1"):
        replace(TINY, deep_supervision=2)
    assert len(replace(TINY, deep_supervision=1).build().auxiliary) == 1
