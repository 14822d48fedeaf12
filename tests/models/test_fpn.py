"""FPN for segmentation, against segmentation_models_pytorch's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import mit, resnet, timm
from segwright.models import fpn

RESNET18 = resnet.PRESETS["resnet18"]
SMALL = fpn.Config(
    num_classes=3,
    encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)),
    pyramid_width=16,
    branch_width=32,
)


def theirs(name: str, **options) -> nn.Module:
    """The reference with weights and statistics unlike those of a new network."""
    smp = pytest.importorskip("segmentation_models_pytorch", reason="the live comparison needs segmentation_models_pytorch")
    torch.manual_seed(3)
    network = smp.FPN(
        name,
        encoder_weights=None,
        decoder_pyramid_channels=16,
        decoder_segmentation_channels=32,
        decoder_dropout=0.0,
        **options,
    )
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.double()


def ours(config: fpn.Config, reference: nn.Module) -> fpn.FPN:
    network = replace(config, dropout=0.0).build().double()
    network.load_state_dict(fpn.rename(reference.state_dict()))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_reference_at_every_depth(golden, dtype):
    file = golden("smp_fpn_resnet18_a")
    network = fpn.Config(num_classes=3, encoder=RESNET18, pyramid_width=64, branch_width=32).build().eval()
    network.load_state_dict(fpn.rename(file.weights))
    image = file.input("x").to(dtype)
    with torch.no_grad():
        maps = network.to(dtype).encoder(image)
        for number, level in enumerate(maps, start=1):  # the first failure says where to look
            file.check(f"encoder.{number}", level)
        file.check("logits", network(image))


def test_equals_the_reference_live_with_its_gradients():
    reference = theirs("resnet18", classes=2, in_channels=2)
    network = ours(replace(SMALL, in_channels=2, num_classes=2, encoder=RESNET18), reference)
    image = torch.randn(2, 2, 32, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), reference.eval()(image), rtol=1e-9, atol=1e-9)
    network.train()(image).square().mean().backward()
    reference.train()(image).square().mean().backward()
    wanted = fpn.rename({name: parameter.grad for name, parameter in reference.named_parameters()})
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto"])  # with a map at stride 2, and without
def test_equals_the_reference_live_on_encoders_of_timm(name):
    reference = theirs(f"tu-{name}", classes=3)
    network = ours(replace(SMALL, encoder=timm.Config(name=name)), reference)
    image = torch.randn(1, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), reference.eval()(image), rtol=1e-9, atol=1e-9)


def test_follows_the_loss_of_the_reference_for_twenty_steps():
    reference = theirs("tu-mobilenetv3_small_050", classes=3)
    network = ours(replace(SMALL, encoder=timm.Config(name="mobilenetv3_small_050")), reference)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, 2, 3, 64, 64, dtype=torch.float64, generator=generator)
    truths = torch.randint(0, 3, (20, 2, 64, 64), generator=generator)
    curves = []
    for one in (reference, network):
        optimiser = torch.optim.SGD(one.train().parameters(), lr=0.001, momentum=0.9)
        curve = []
        for image, truth in zip(images, truths, strict=True):
            loss = F.cross_entropy(one(image), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[1] == pytest.approx(curves[0], rel=1e-6)


@pytest.mark.parametrize(
    ("encoder", "divisor"),
    [
        (resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=8), 8),
        (mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 1, 1)), 32),
    ],
)
def test_stands_on_other_encoders(encoder, divisor):
    network = replace(SMALL, in_channels=4, encoder=encoder).build()
    assert network.divisors == (divisor, divisor)
    logits = network(torch.randn(2, 4, 3 * divisor, 2 * divisor))
    assert logits.shape == (2, 3, 3 * divisor, 2 * divisor)
    logits.mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_bfloat16_and_channels_last_stay_close_and_keep_the_layout():
    torch.manual_seed(0)
    network = SMALL.build().eval().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image.to(memory_format=torch.channels_last))
    assert logits.is_contiguous(memory_format=torch.channels_last)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through twelve layers


@pytest.mark.parametrize("key", ["decoder.p2.weight", "decoder.p6.skip_conv.weight", "segmentation_head.1.weight"])
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no FPN has"):
        fpn.rename({key: torch.zeros(1)})
    with pytest.raises(FormatError, match=r"hold 'layer1.0.other.weight', which no ResNet has"):
        fpn.rename({"encoder.layer1.0.other.weight": torch.zeros(1)})


def test_refuses_other_sides_and_the_remedy_works():
    network = SMALL.build().eval()
    with pytest.raises(ShapeError, match=r"40 x 64, .* divisible by 32; pad them to 64 x 64"):
        network(torch.zeros(1, 3, 40, 64))
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "pyramid_width"])
def test_refuses_settings_below_one(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(SMALL, **{name: 0})


def test_refuses_widths_that_do_not_divide_into_groups():
    with pytest.raises(SettingError, match="branch_width is 48; .* in 32 groups, so give a multiple of 32"):
        replace(SMALL, branch_width=48)
