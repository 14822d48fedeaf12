"""Darknet-53. Axes: B, C, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import Encoder, darknet

TINY = darknet.Config(depths=(1, 0, 1, 2, 0))


def as_timm_calls_it(name: str) -> str:
    """timm's name of a tensor."""
    parts = name.split(".")
    if parts[0] == "stem":
        return ".".join(["stem_conv1", *parts[1:]])
    place = ["conv_down"] if parts[2] == "0" else ["blocks", str(int(parts[2]) - 1)]
    return ".".join([f"stages_{parts[1]}", *place, *parts[3:]])


def as_yolact_calls_it(name: str) -> str:
    """YOLACT's name of a tensor."""
    parts = ["_preconv" if part == "stem" else part for part in name.split(".")]
    parts = ["layers" if part == "stages" else part for part in parts]
    parts[-2] = {"conv": "0", "bn": "1"}[parts[-2]]
    return ".".join(parts)


def test_equals_timm_live_but_for_the_slope():
    import timm

    torch.manual_seed(0)
    ours = darknet.PRESETS["darknet53"].build()
    for name, tensor in ours.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    with torch.device("meta"):
        theirs = timm.create_model("darknet53", features_only=True)
    theirs.load_state_dict({as_timm_calls_it(name): tensor for name, tensor in ours.state_dict().items()}, assign=True)
    for module in theirs.modules():
        if isinstance(module, torch.nn.LeakyReLU):
            module.negative_slope = darknet.SLOPE
    image = torch.randn(1, 3, 65, 96, dtype=torch.float64)
    with torch.no_grad():
        maps, wanted = ours.double().eval()(image), theirs.double().eval()(image)[1:]
    for level, other, channels, stride in zip(maps, wanted, ours.channels, ours.strides, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-10, atol=1e-10)
        assert level.shape == (1, channels, -(-65 // stride), 96 // stride)


def test_by_hand_a_unit_and_a_block():
    network = TINY.build(in_channels=1).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.stem.conv.weight[0, 0, 1, 1] = 1.0  # the first channel is the image
        network.stem.bn.weight[0] = 1.0
        x = network.stem(torch.tensor([[[[2.0, -2.0]]]]))[0, 0]
        torch.testing.assert_close(x, torch.tensor([[2.0, -0.2]]) / (1 + 1e-5) ** 0.5)
        given = torch.randn(1, 64, 3, 3)
        assert torch.equal(network.stages[0][1](given), given)  # what a block finds is added, here nothing


def test_yolacts_names_find_their_places():
    ours = TINY.build().state_dict()
    theirs = {as_yolact_calls_it(name): tensor for name, tensor in ours.items()}
    assert {"_preconv.0.weight", "layers.0.0.1.running_var", "layers.3.2.conv2.0.weight"} <= theirs.keys()
    renamed = darknet.rename(theirs)
    assert renamed.keys() == ours.keys() and all(renamed[name] is tensor for name, tensor in ours.items())


def test_is_an_encoder_of_53_layers_with_its_classifier():
    assert isinstance(TINY, Encoder)
    with torch.device("meta"):
        network = darknet.PRESETS["darknet53"].build()
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 52
    assert network.strides == (2, 4, 8, 16, 32) and network.channels == (64, 128, 256, 512, 1024)


def test_gradients_reach_every_parameter_and_other_channels_are_taken():
    network = TINY.build(in_channels=5)
    maps = network(torch.randn(2, 5, 64, 96))
    sum(F.mse_loss(level, torch.ones_like(level)) for level in maps).backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_refuses_what_cannot_be_meant():
    with pytest.raises(SettingError, match=r"depths is \[1, -1, 1, 1, 1\]; give the blocks of each stage, 0 or more"):
        replace(TINY, depths=(1, -1, 1, 1, 1))
    with pytest.raises(FormatError, match="hold 'conv1.weight', which no Darknet has"):
        darknet.rename({"conv1.weight": torch.zeros(1)})
