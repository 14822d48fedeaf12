"""U-Net on an encoder, against segmentation_models_pytorch's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import mit, resnet, timm
from segwright.models import encoder_unet

RESNET18 = resnet.PRESETS["resnet18"]
SMALL = encoder_unet.Config(
    num_classes=3, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)), decoder_widths=(24, 16, 12, 8, 8)
)


@pytest.fixture
def theirs(smp, peers):
    def build(name: str, widths: tuple[int, ...], **options) -> nn.Module:
        torch.manual_seed(3)
        return peers.randomised(smp.Unet(name, encoder_weights=None, decoder_channels=list(widths), **options))

    return build


def ours(config: encoder_unet.Config, reference: nn.Module) -> encoder_unet.EncoderUNet:
    network = config.build().double()
    network.load_state_dict(encoder_unet.rename(reference.state_dict()))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_reference_at_every_depth(golden, dtype):
    file = golden("smp_unet_resnet18_a")
    config = encoder_unet.Config(num_classes=4, encoder=RESNET18, decoder_widths=tuple(file.config["decoder_channels"]))
    file.check_levels(config.build(), encoder_unet.rename, dtype)


def test_the_published_layout_fits(manifest):
    with torch.device("meta"):
        network = replace(encoder_unet.PRESETS["unet_resnet34"], num_classes=1).build()
    renamed = encoder_unet.rename(manifest("smp_unet_resnet34"))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_equals_the_reference_live_with_its_gradients(theirs, peers):
    reference = theirs("resnet18", (24, 16, 12, 8, 4), classes=2, in_channels=2)
    network = ours(encoder_unet.Config(in_channels=2, encoder=RESNET18, decoder_widths=(24, 16, 12, 8, 4)), reference)
    peers.assert_equal(network, reference, 2, 2, 32, 96)
    peers.assert_equal_gradients(network, reference, encoder_unet.rename, 2, 2, 32, 96)


def test_the_decoder_equals_the_reference_at_odd_sizes(theirs):
    """Encoders round up; the decoder goes to the size of each of their maps."""
    reference = theirs("resnet18", (24, 16, 12, 8, 4), classes=2)
    network = ours(encoder_unet.Config(encoder=RESNET18, decoder_widths=(24, 16, 12, 8, 4)), reference)
    image = torch.randn(1, 3, 58, 74, dtype=torch.float64)  # whose map at stride 2 has half of these sides, and the next not
    with torch.no_grad():
        maps = network.eval().encoder(image)
        wanted = reference.eval().decoder([image, *maps])
        torch.testing.assert_close(network.decoder(maps), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto"])  # with a map at stride 2, and without
def test_equals_the_reference_live_on_encoders_of_timm(theirs, peers, name):
    widths = (16, 12, 8, 6, 4)
    reference = theirs(f"tu-{name}", widths, classes=2)
    network = ours(encoder_unet.Config(encoder=timm.Config(name=name), decoder_widths=widths), reference)
    peers.assert_equal(network, reference, 1, 3, 96, 64)


def test_follows_the_loss_of_the_reference_for_twenty_steps(theirs, peers):
    """On an encoder cut at stride 8: the deeper, the more rounding grows from step to step."""
    reference = theirs("resnet18", (16, 12, 8), classes=3, encoder_depth=3)
    for name in ("layer3", "layer4"):  # which no forward pass reads
        delattr(reference.encoder, name)
    config = encoder_unet.Config(num_classes=3, encoder=replace(RESNET18, stages=2), decoder_widths=(16, 12, 8))
    peers.assert_equal_training(ours(config, reference), reference, 2, 3, 32, 64, classes=3)


def test_by_hand_each_stage_repeats_pixels_and_adds_the_skip():
    """Two maps of one channel; the convolutions are the identity, once and ten times."""
    decoder = encoder_unet.UNetDecoder((1, 1), (1, 2), (1,)).eval()
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


@pytest.mark.parametrize("name", ["in_channels", "num_classes"])
def test_refuses_settings_below_one(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(SMALL, **{name: 0})


def test_refuses_stages_without_channels():
    with pytest.raises(SettingError, match=r"decoder_widths is \[8, 0\]; each stage needs a channel"):
        replace(SMALL, decoder_widths=(8, 0))
