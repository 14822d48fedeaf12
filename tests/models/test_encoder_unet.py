"""U-Net on an encoder, against segmentation_models_pytorch's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import mit, resnet, timm
from segwright.models import encoder_unet

RESNET18 = resnet.PRESETS["resnet18"]
SMALL = encoder_unet.Config(
    num_classes=3, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)), decoder_widths=(24, 16, 12, 8, 8)
)


def theirs(name: str, widths: tuple[int, ...], **options) -> nn.Module:
    """The reference with weights and statistics unlike those of a new network."""
    smp = pytest.importorskip("segmentation_models_pytorch", reason="the live comparison needs segmentation_models_pytorch")
    torch.manual_seed(3)
    network = smp.Unet(name, encoder_weights=None, decoder_channels=list(widths), **options)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.double()


def ours(config: encoder_unet.Config, reference: nn.Module) -> encoder_unet.EncoderUNet:
    network = config.build().double()
    network.load_state_dict(encoder_unet.rename(reference.state_dict()))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_reference_at_every_depth(golden, dtype):
    file = golden("smp_unet_resnet18_a")
    widths = tuple(file.config["decoder_channels"])
    network = encoder_unet.Config(num_classes=4, encoder=RESNET18, decoder_widths=widths).build().eval()
    network.load_state_dict(encoder_unet.rename(file.weights))
    image = file.input("x").to(dtype)
    with torch.no_grad():
        maps = network.to(dtype).encoder(image)
        for number, level in enumerate(maps, start=1):  # the first failure says where to look
            file.check(f"encoder.{number}", level)
        file.check("logits", network(image))


def test_the_published_layout_fits(manifest):
    with torch.device("meta"):
        network = replace(encoder_unet.PRESETS["unet_resnet34"], num_classes=1).build()
    renamed = encoder_unet.rename(manifest("smp_unet_resnet34"))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_equals_the_reference_live_with_its_gradients():
    reference = theirs("resnet18", (24, 16, 12, 8, 4), classes=2, in_channels=2)
    config = encoder_unet.Config(in_channels=2, encoder=RESNET18, decoder_widths=(24, 16, 12, 8, 4))
    network = ours(config, reference)
    image = torch.randn(2, 2, 32, 96, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), reference.eval()(image), rtol=1e-9, atol=1e-9)
    network.train()(image).square().mean().backward()
    reference.train()(image).square().mean().backward()
    wanted = encoder_unet.rename({name: parameter.grad for name, parameter in reference.named_parameters()})
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-7, atol=1e-10, msg=name)


def test_the_decoder_equals_the_reference_at_odd_sizes():
    """Encoders round up; the decoder goes to the size of each of their maps."""
    reference = theirs("resnet18", (24, 16, 12, 8, 4), classes=2)
    network = ours(encoder_unet.Config(encoder=RESNET18, decoder_widths=(24, 16, 12, 8, 4)), reference)
    image = torch.randn(1, 3, 58, 74, dtype=torch.float64)  # whose map at stride 2 has half of these sides, and the next not
    with torch.no_grad():
        maps = network.eval().encoder(image)
        wanted = reference.eval().decoder([image, *maps])
        torch.testing.assert_close(network.decoder(maps), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto"])  # with a map at stride 2, and without
def test_equals_the_reference_live_on_encoders_of_timm(name):
    widths = (16, 12, 8, 6, 4)
    reference = theirs(f"tu-{name}", widths, classes=2)
    network = ours(encoder_unet.Config(encoder=timm.Config(name=name), decoder_widths=widths), reference)
    image = torch.randn(1, 3, 96, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), reference.eval()(image), rtol=1e-9, atol=1e-9)


def test_follows_the_loss_of_the_reference_for_twenty_steps():
    """On an encoder cut at stride 8: the deeper, the more rounding grows from step to step."""
    reference = theirs("resnet18", (16, 12, 8), classes=3, encoder_depth=3)
    for name in ("layer3", "layer4"):  # which no forward pass reads
        delattr(reference.encoder, name)
    network = ours(
        encoder_unet.Config(num_classes=3, encoder=replace(RESNET18, stages=2), decoder_widths=(16, 12, 8)), reference
    )
    generator = torch.Generator().manual_seed(0)
    curves = []
    images = torch.randn(20, 2, 3, 32, 64, dtype=torch.float64, generator=generator)
    truths = torch.randint(0, 3, (20, 2, 32, 64), generator=generator)
    for one in (reference, network):
        optimiser = torch.optim.SGD(one.train().parameters(), lr=0.01, momentum=0.9)
        curve = []
        for image, truth in zip(images, truths, strict=True):
            loss = F.cross_entropy(one(image), truth)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            curve.append(loss.item())
        curves.append(curve)
    assert curves[1] == pytest.approx(curves[0], rel=1e-6)


def test_by_hand_each_stage_repeats_pixels_and_adds_the_skip():
    """Two maps of one channel; the convolutions are the identity, once and ten times."""
    decoder = encoder_unet.Decoder((1, 1), (1, 2), (1,)).eval()
    with torch.no_grad():
        for module in decoder.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
                module.weight[0, 0, 1, 1] = 1
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(1 - module.eps)  # the identity
        decoder[0].conv1[0].weight[0, 1, 1, 1] = 10  # first what comes from below, then the skip
        fine, coarse = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([[100.0, 200]])
        wanted = torch.tensor([[110.0, 120, 230, 240], [150, 160, 270, 280]])
        assert torch.allclose(decoder([fine[None, None], coarse[None, None]])[0, 0], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "divisor", "stages"),
    [
        (resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=8), 8, 5),
        (resnet.Config(block="basic", depths=(1, 1, 1, 1), stages=2), 8, 3),
        (mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 1, 1)), 32, 5),
    ],
)
def test_stands_on_encoders_of_other_strides(encoder, divisor, stages):
    config = replace(SMALL, in_channels=4, encoder=encoder, decoder_widths=(8, 8, 6, 6, 4)[:stages])
    network = config.build()
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
    assert logits.dtype == torch.bfloat16 and logits.is_contiguous(memory_format=torch.channels_last)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through twenty layers


@pytest.mark.parametrize("key", ["decoder.center.0.0.weight", "segmentation_head.1.weight", "classification_head.3.weight"])
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no U-Net on an encoder has"):
        encoder_unet.rename({key: torch.zeros(1)})
    with pytest.raises(FormatError, match=r"hold 'layer1.0.other.weight', which no ResNet has"):
        encoder_unet.rename({"encoder.layer1.0.other.weight": torch.zeros(1)})


def test_refuses_other_numbers_of_stages_and_the_remedy_works():
    with pytest.raises(SettingError, match=r"\[8, 8\], 2 stages, but .* strides \[2, 4, 8, 16, 32\] need 5; give 5 widths"):
        replace(SMALL, decoder_widths=(8, 8)).build()
    replace(SMALL, decoder_widths=(8, 8, 8, 8, 8)).build()


def test_refuses_other_sides_and_the_remedy_works():
    network = SMALL.build().eval()
    with pytest.raises(ShapeError, match=r"40 x 64, .* divisible by 32; pad them to 64 x 64"):
        network(torch.zeros(1, 3, 40, 64))
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize("name", ["in_channels", "num_classes"])
def test_refuses_settings_below_one(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(SMALL, **{name: 0})


def test_refuses_stages_without_channels():
    with pytest.raises(SettingError, match=r"decoder_widths is \[8, 0\]; each stage needs a channel"):
        replace(SMALL, decoder_widths=(8, 0))
