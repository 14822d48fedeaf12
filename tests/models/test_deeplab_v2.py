"""DeepLab v2. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import resnet, timm, vgg
from segwright.models import deeplab_v2

BASIC = resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=8)
SMALL = deeplab_v2.Config(num_classes=3, encoder=BASIC)
CAFFE = resnet.Config(depths=(1, 1, 2, 2), output_stride=8, stride_on="1x1", dilate_first=True)
STAGES = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)


def deeplab_pytorchs(network: deeplab_v2.DeepLabV2) -> dict[str, torch.Tensor]:
    """A state dict of ours on ResNet under the names of deeplab-pytorch, blue first."""
    theirs = {}
    for key, tensor in network.state_dict().items():
        parts = key.split(".")
        if parts[0] == "branches":
            theirs[f"base.aspp.c{parts[1]}.{parts[2]}"] = tensor
        elif parts[1] in ("conv1", "bn1"):
            theirs[f"base.layer1.conv1.{parts[1][:-1]}.{parts[2]}"] = tensor.flip(1) if parts[1] == "conv1" else tensor
        else:
            place, kind = ("shortcut", ("conv", "bn")[int(parts[4])]) if parts[3] == "downsample" else (
                ("reduce", "conv3x3", "increase")[int(parts[3][-1]) - 1], parts[3][:-1],
            )  # fmt: skip
            theirs[f"base.layer{int(parts[1][5]) + 1}.block{int(parts[2]) + 1}.{place}.{kind}.{parts[-1]}"] = tensor
    return theirs


def as_caffe(weights: dict[str, torch.Tensor], image: torch.Tensor, depths: tuple[int, ...]) -> torch.Tensor:
    """The authors' network on ResNet, layer by layer, from weights under the names of deeplab-pytorch; blue first."""

    def layer(x, name, *, stride=1, hole=1):
        weight = weights[f"base.{name}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=hole * (weight.shape[2] // 2), dilation=hole)
        norm = [weights[f"base.{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *norm)

    x = F.max_pool2d(F.relu(layer(image, "layer1.conv1", stride=2)), 3, 2, padding=1, ceil_mode=True)
    for stage, (depth, step, hole) in enumerate(zip(depths, (1, 2, 1, 1), (1, 1, 2, 4), strict=True), 2):
        for number in range(1, depth + 1):
            block, stride = f"layer{stage}.block{number}", step if number == 1 else 1
            shortcut = layer(x, f"{block}.shortcut", stride=stride) if number == 1 else x
            y = F.relu(layer(x, f"{block}.reduce", stride=stride))
            y = F.relu(layer(y, f"{block}.conv3x3", hole=hole))
            x = F.relu(layer(y, f"{block}.increase") + shortcut)
    names = [(f"base.aspp.c{number}", rate) for number, rate in enumerate((6, 12, 18, 24))]
    scores = sum(
        F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=rate, dilation=rate) for name, rate in names
    )
    size = [8 * (side - 1) + 1 for side in scores.shape[2:]]
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=True)


def test_equals_the_authors_network_on_an_image_of_their_sides():
    torch.manual_seed(0)
    network = replace(SMALL, encoder=CAFFE).build().double().eval()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    theirs = deeplab_pytorchs(network)
    image = torch.randn(1, 3, 48, 64, dtype=torch.float64)
    with torch.no_grad():
        wanted = as_caffe(theirs, F.pad(image.flip(1), (0, 1, 0, 1)), CAFFE.depths)
        assert wanted.shape[2:] == (49, 65)
        torch.testing.assert_close(network(image), wanted[:, :, :48, :64], rtol=1e-10, atol=1e-10)
    renamed = deeplab_v2.rename(theirs)
    assert renamed.keys() == network.state_dict().keys()
    assert all(torch.equal(renamed[name], tensor) for name, tensor in network.state_dict().items())


def test_deeplab_pytorchs_file_fits():
    with torch.device("meta"):
        network = deeplab_v2.PRESETS["deeplab_v2_resnet101"].build()
        renamed = deeplab_v2.rename(deeplab_pytorchs(network))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert network.encoder.layer4[0].conv2.dilation == (4, 4) and network.encoder.layer2[0].conv1.stride == (2, 2)
    weights = deeplab_v2.WEIGHTS["deeplab_v2_resnet101_voc"]
    assert deeplab_v2.PRESETS[weights.preset].num_classes == weights.num_classes == 21


def test_the_authors_files_on_vgg_fit():
    shapes, before = {}, 3
    for stage, widths in enumerate(STAGES, 1):
        for number, width in enumerate(widths, 1):
            shapes |= {f"conv{stage}_{number}.weight": (width, before, 3, 3), f"conv{stage}_{number}.bias": (width,)}
            before = width
    for n in (1, 2, 3, 4):
        shapes |= {f"fc6_{n}.weight": (1024, 512, 3, 3), f"fc6_{n}.bias": (1024,)}
        shapes |= {f"fc7_{n}.weight": (1024, 1024, 1, 1), f"fc7_{n}.bias": (1024,)}
        shapes |= {f"fc8_voc12_{n}.weight": (21, 1024, 1, 1), f"fc8_voc12_{n}.bias": (21,)}
    with torch.device("meta"):
        renamed = deeplab_v2.rename({key: torch.empty(shape) for key, shape in shapes.items()})
        network = deeplab_v2.PRESETS["deeplab_v2_vgg16"].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_on_vgg_each_dilation_has_layers_of_its_own(monkeypatch):
    monkeypatch.setattr(vgg, "WIDTHS", (3, 4, 5, 6, 6))
    monkeypatch.setattr(deeplab_v2, "WIDTH", 8)
    torch.manual_seed(0)
    network = replace(deeplab_v2.PRESETS["deeplab_v2_vgg16"], num_classes=3).build().double().eval()
    last = torch.randn(1, 6, 30, 31, dtype=torch.float64)
    wanted = 0
    for (fc6, _, _, fc7, _, _, fc8), rate in zip(network.branches, (6, 12, 18, 24), strict=True):
        x = F.relu(F.conv2d(last, fc6.weight, fc6.bias, padding=rate, dilation=rate))
        wanted = wanted + fc8(F.relu(F.conv2d(x, fc7.weight, fc7.bias)))
    torch.testing.assert_close(network.classify(last), wanted)
    assert network(torch.zeros(1, 3, 32, 40, dtype=torch.float64)).shape == (1, 3, 32, 40)


@pytest.mark.parametrize("encoder", [BASIC, timm.Config(name="resnet18", output_stride=16)])
def test_another_encoder_can_take_the_place_and_every_parameter_learns(encoder):
    network = deeplab_v2.Config(in_channels=2, num_classes=3, encoder=encoder).build()
    logits = network(torch.randn(2, 2, 32, 48))
    assert logits.shape == (2, 3, 32, 48)
    F.cross_entropy(logits, torch.zeros(2, 32, 48, dtype=torch.int64)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_bfloat16_and_channels_last_stay_close():
    torch.manual_seed(0)
    network = SMALL.build().eval().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image)
    assert logits.dtype == torch.bfloat16
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through ten layers


def test_refuses_what_cannot_be_meant_and_the_remedy_works():
    with pytest.raises(SettingError, match="in_channels is 0; it must be 1 or more"):
        replace(SMALL, in_channels=0)
    for key in ("base.layer6.block1.reduce.conv.weight", "base.aspp.c4.weight", "fc6_5.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no DeepLab v2 has"):
            deeplab_v2.rename({key: torch.zeros(1)})
    network = SMALL.build().eval()
    with pytest.raises(ShapeError, match=r"42 x 64, .* divisible by 8; pad them to 48 x 64"):
        network(torch.zeros(1, 3, 42, 64))
    assert network(torch.zeros(1, 3, 48, 64)).shape == (1, 3, 48, 64)
