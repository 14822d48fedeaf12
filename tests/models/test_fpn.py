"""FPN for segmentation, against segmentation_models_pytorch's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import mit, resnet, timm
from segwright.models import fpn

RESNET18 = resnet.PRESETS["resnet18"]
SMALL = fpn.Config(
    num_classes=3,
    encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)),
    pyramid_width=16,
    branch_width=32,
)


@pytest.fixture
def theirs(smp, peers):
    def build(name: str, **options) -> nn.Module:
        torch.manual_seed(3)
        options |= {"decoder_pyramid_channels": 16, "decoder_segmentation_channels": 32}
        return peers.randomised(smp.FPN(name, encoder_weights=None, **options))

    return build


def ours(config: fpn.Config, reference: nn.Module) -> fpn.FPN:
    network = replace(config, dropout=0.0).build().double()
    network.load_state_dict(fpn.rename(reference.state_dict()))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_reference_at_every_depth(golden, dtype):
    network = fpn.Config(num_classes=3, encoder=RESNET18, pyramid_width=64, branch_width=32).build()
    golden("smp_fpn_resnet18_a").check_levels(network, fpn.rename, dtype)


def test_equals_the_reference_live_with_its_gradients(theirs, peers):
    reference = theirs("resnet18", classes=2, in_channels=2)
    network = ours(replace(SMALL, in_channels=2, num_classes=2, encoder=RESNET18), reference)
    peers.assert_equal(network, reference, 2, 2, 32, 96)
    peers.assert_equal_gradients(network, reference, fpn.rename, 2, 2, 32, 96)


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "convnext_atto"])  # with a map at stride 2, and without
def test_equals_the_reference_live_on_encoders_of_timm(theirs, peers, name):
    reference = theirs(f"tu-{name}", classes=3)
    peers.assert_equal(ours(replace(SMALL, encoder=timm.Config(name=name)), reference), reference, 1, 3, 96, 64)


def test_follows_the_loss_of_the_reference_for_twenty_steps(theirs, peers):
    reference = theirs("tu-mobilenetv3_small_050", classes=3)
    network = ours(replace(SMALL, encoder=timm.Config(name="mobilenetv3_small_050")), reference)
    peers.assert_equal_training(network, reference, 2, 3, 64, 64, classes=3, rate=0.001)


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


@pytest.mark.parametrize("key", ["decoder.p2.weight", "decoder.p6.skip_conv.weight", "segmentation_head.1.weight"])
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no FPN has"):
        fpn.rename({key: torch.zeros(1)})
    with pytest.raises(FormatError, match=r"hold 'layer1.0.other.weight', which no ResNet has"):
        fpn.rename({"encoder.layer1.0.other.weight": torch.zeros(1)})


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "pyramid_width", "branch_width"])
def test_refuses_settings_that_cannot_be_meant(name):
    with pytest.raises(SettingError, match=f"{name} is 0; "):
        replace(SMALL, **{name: 0})
