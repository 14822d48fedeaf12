"""LR-ASPP against torchvision's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import mit, resnet, timm
from segwright.models import lraspp

SMALL = lraspp.Config(num_classes=5, encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)))


def torchvisions(name: str) -> torch.nn.Module:
    """torchvision's network of four classes; the cheapest stands on a ResNet with one block a stage."""
    from torchvision.models import _utils
    from torchvision.models import resnet as resnets
    from torchvision.models.segmentation import LRASPP, lraspp_mobilenet_v3_large

    torch.manual_seed(0)
    if name == "mobilenet_v3_large":
        return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4).double()
    layers = {"layer2": "low", "layer4": "high"}
    backbone = _utils.IntermediateLayerGetter(resnets.ResNet(resnets.BasicBlock, [1, 1, 1, 1]), layers)
    return LRASPP(backbone, 128, 512, 4).double()


def ours_like(theirs: torch.nn.Module, name: str) -> lraspp.LRASPP:
    network = replace(lraspp.Config() if name == "mobilenet_v3_large" else SMALL, num_classes=4).build().double()
    state = theirs.state_dict()
    if name == "basic":
        state = {key: tensor for key, tensor in state.items() if not key.startswith("backbone.")}
        state = lraspp.rename(state) | {
            f"encoder.{key}": tensor for key, tensor in resnet.rename(theirs.backbone.state_dict()).items()
        }
        network.load_state_dict(state)
    else:
        network.load_state_dict(lraspp.rename(state))
    return network


@pytest.mark.parametrize("sides", [(64, 96), (65, 43)])
def test_equals_torchvision_live(peers, sides):
    theirs = peers.randomised(torchvisions("mobilenet_v3_large")).eval()
    ours = ours_like(theirs, "mobilenet_v3_large").eval()
    image = torch.randn(2, 3, *sides, dtype=torch.float64)
    with torch.no_grad():
        logits = F.interpolate(ours.decode(ours.encoder(image)), size=sides, mode="bilinear", align_corners=False)
        torch.testing.assert_close(logits, theirs(image)["out"], rtol=1e-9, atol=1e-9)


def test_twenty_steps_follow_torchvisions_losses(peers):
    theirs = torchvisions("basic")
    peers.assert_equal_training(ours_like(theirs, "basic"), theirs, 3, 3, 64, 32, classes=4, momentum=0.0)


def test_gradients_equal_torchvisions(peers):
    theirs = torchvisions("mobilenet_v3_large")
    peers.assert_equal_gradients(ours_like(theirs, "mobilenet_v3_large"), theirs, lraspp.rename, 3, 3, 32, 48)


def test_the_published_file_fits(manifest):
    renamed = lraspp.rename(manifest("torchvision_lraspp_mobilenet_v3_large"))
    with torch.device("meta"):
        network = lraspp.PRESETS["lraspp_mobilenet_v3_large"].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_what_is_said_of_weights_is_what_torchvision_says():
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

    (weights,), facts = lraspp.WEIGHTS.values(), LRASPP_MobileNet_V3_Large_Weights.DEFAULT
    assert weights.address == facts.url and f"-{weights.sha256}." in facts.url
    assert weights.score.startswith(f"{facts.meta['_metrics']['COCO-val2017-VOC-labels']['miou']} mIoU")
    assert weights.classes[1:] == tuple(facts.meta["categories"][1:])


def test_a_closed_gate_leaves_the_low_map_by_hand():
    network = SMALL.build().eval()
    torch.nn.init.zeros_(network.classify_high.bias)
    maps = [torch.randn(1, channels, 8, 8) for channels in network.encoder.channels]
    maps[-1] = torch.full((1, 512, 2, 2), 1.0)
    torch.nn.init.constant_(network.gate.weight, -10.0)  # the sigmoid of -5120 is zero
    torch.testing.assert_close(network.decode(maps), network.classify_low(maps[-3]))


@pytest.mark.parametrize("encoder", [timm.Config(name="resnet18", output_stride=8), mit.Config(depths=(1, 1, 1, 1))])
def test_any_encoder_will_do_and_no_parameter_lies_idle(encoder):
    network = replace(SMALL, encoder=encoder, in_channels=4).build().train()
    logits = network(torch.randn(2, 4, 64, 32))
    assert network.divisors == (max(network.encoder.strides),) * 2 and logits.shape == (2, 5, 8, 4)
    logits.mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_bfloat16_and_channels_last_stay_close_and_keep_the_layout():
    torch.manual_seed(0)
    network = SMALL.build().eval().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image)
    assert logits.is_contiguous(memory_format=torch.channels_last)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through ten layers


def test_rename_leaves_its_argument_alone_and_refuses_strangers(manifest):
    weights = manifest("torchvision_lraspp_mobilenet_v3_large")
    keys = list(weights)
    lraspp.rename(weights)
    assert list(weights) == keys
    for key in ("classifier.cbr.3.weight", "aux_classifier.0.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no LR-ASPP has"):
            lraspp.rename(weights | {key: torch.zeros(1)})


def test_refuses_other_sides_and_settings_below_one_and_the_remedy_works():
    network = SMALL.build().eval()
    with pytest.raises(ShapeError, match=r"40 x 64, .* divisible by 32; pad them to 64 x 64"):
        network(torch.zeros(1, 3, 40, 64))
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 8, 8)
    for name in ("in_channels", "num_classes"):
        with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
            replace(SMALL, **{name: 0})
