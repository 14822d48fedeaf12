"""FCN-32s, -16s and -8s on VGG-16. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import resnet, vgg
from segwright.models import fcn_vgg

BASIC = resnet.Config(block="basic", depths=(1, 1, 1, 1))


@pytest.fixture
def narrow(monkeypatch):
    """Networks of the same depth and few channels."""
    monkeypatch.setattr(vgg, "WIDTHS", (3, 4, 5, 6, 6))
    monkeypatch.setattr(fcn_vgg, "WIDTH", 8)


def seeded(stride: int) -> fcn_vgg.FcnVgg:
    """A network whose scores of every map count."""
    torch.manual_seed(stride)
    network = fcn_vgg.Config(num_classes=3, stride=stride).build().double().eval()
    for parameter in network.head.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return network


def as_the_authors(network: fcn_vgg.FcnVgg, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Their network, layer by layer: the image padded by 100 pixels, fc6 unpadded, maps cropped to each other."""
    head, x, pools = network.head, image, []
    for number, layer in enumerate(network.encoder.features):
        if isinstance(layer, torch.nn.Conv2d):
            x = F.conv2d(x, layer.weight, layer.bias, padding=100 if number == 0 else 1)
        elif isinstance(layer, torch.nn.ReLU):
            x = F.relu(x)
        else:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
    x = F.relu(F.conv2d(x, head.fc6.weight, head.fc6.bias))
    x = F.relu(F.conv2d(x, head.fc7.weight, head.fc7.bias))
    scores = {"32": F.conv2d(x, head.score.weight, head.score.bias)}
    double = F.conv_transpose2d(scores["32"], head.doubles[0].weight, stride=2)
    height, width = double.shape[2:]
    skip = F.conv2d(pools[3], head.skips[0].weight, head.skips[0].bias)
    scores["16"] = double + skip[:, :, 5 : 5 + height, 5 : 5 + width]
    double = F.conv_transpose2d(scores["16"], head.doubles[1].weight, stride=2)
    height, width = double.shape[2:]
    skip = F.conv2d(pools[2], head.skips[1].weight, head.skips[1].bias)
    scores["8"] = double + skip[:, :, 9 : 9 + height, 9 : 9 + width]
    return scores


def test_equals_the_authors_network_inside_a_black_frame(narrow):
    """In a frame of 99 pixels our cells are theirs; what they compute from cells of the inside alone is equal."""
    network = seeded(8)
    image = torch.randn(1, 3, 122, 122, dtype=torch.float64)  # 122 + 2 x 99 = 320
    framed = F.pad(image, (99, 99, 99, 99))
    with torch.no_grad():
        wanted = as_the_authors(network, image)
        ours = network(framed)
        coarse = seeded(32)
        coarse.load_state_dict({key: tensor for key, tensor in network.state_dict().items() if key in coarse.state_dict()})
        middle = seeded(16)
        middle.load_state_dict({key: tensor for key, tensor in network.state_dict().items() if key in middle.state_dict()})
        torch.testing.assert_close(coarse(framed)[:, :, 3:7, 3:7], wanted["32"], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(middle(framed)[:, :, 7:13, 7:13], wanted["16"][:, :, 2:8, 2:8], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ours[:, :, 15:25, 15:25], wanted["8"][:, :, 6:16, 6:16], rtol=1e-11, atol=1e-11)
    assert ours.std() > 0.01


def test_a_new_network_doubles_scores_as_bilinear_interpolation_does(narrow):
    double = fcn_vgg.Config(num_classes=3).build().head.doubles[0]
    scores = torch.randn(2, 3, 5, 4)
    wanted = F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(double(scores)[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1])


@pytest.mark.parametrize(("stride", "count"), [(32, 0), (16, 1), (8, 2)])
def test_a_new_network_scores_by_its_deepest_map_alone_and_every_parameter_learns(narrow, stride, count):
    network = fcn_vgg.Config(in_channels=2, num_classes=3, stride=stride).build()
    assert len(network.head.skips) == len(network.head.doubles) == count
    image = torch.randn(2, 2, 64, 96)
    logits = network(image)
    assert logits.shape == (2, 3, 64 // stride, 96 // stride)
    F.cross_entropy(logits, torch.zeros(2, *logits.shape[2:], dtype=torch.int64)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    with torch.no_grad():
        maps = network.eval().encoder(image)[-3:]
        assert torch.equal(network.head([torch.zeros_like(maps[0]), torch.zeros_like(maps[1]), maps[2]]), network(image))


def test_maps_whose_sides_were_rounded_up_still_meet(narrow):
    network = seeded(8)
    assert network.head(network.encoder(torch.randn(1, 3, 75, 130, dtype=torch.float64))[-3:]).shape == (1, 3, 10, 17)


@pytest.mark.parametrize("name", sorted(fcn_vgg.PRESETS))
def test_the_authors_files_fit(name):
    """The layers of their net.py with the sizes that it states; red, green and blue lie the other way around."""
    stages = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
    shapes, before = {}, 3
    for stage, widths in enumerate(stages, 1):
        for number, width in enumerate(widths, 1):
            shapes |= {f"conv{stage}_{number}.weight": (width, before, 3, 3), f"conv{stage}_{number}.bias": (width,)}
            before = width
    shapes |= {"fc6.weight": (4096, 512, 7, 7), "fc6.bias": (4096,), "fc7.weight": (4096, 4096, 1, 1), "fc7.bias": (4096,)}
    shapes |= {"score_fr.weight": (21, 4096, 1, 1), "score_fr.bias": (21,)}
    if name != "fcn_32s":
        shapes |= {"score_pool4.weight": (21, 512, 1, 1), "score_pool4.bias": (21,), "upscore2.weight": (21, 21, 4, 4)}
    if name == "fcn_8s":
        shapes |= {"score_pool3.weight": (21, 256, 1, 1), "score_pool3.bias": (21,), "upscore_pool4.weight": (21, 21, 4, 4)}
    last = {"fcn_32s": ("upscore", 64), "fcn_16s": ("upscore16", 32), "fcn_8s": ("upscore8", 16)}[name]
    shapes[f"{last[0]}.weight"] = (21, 21, last[1], last[1])
    with torch.device("meta"):
        renamed = fcn_vgg.rename({key: torch.empty(shape) for key, shape in shapes.items()})
        network = fcn_vgg.PRESETS[name].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_the_first_convolution_sees_red_first():
    weight = torch.arange(3.0).reshape(1, 3, 1, 1)
    assert fcn_vgg.rename({"conv1_1.weight": weight})["encoder.features.0.weight"].flatten().tolist() == [2, 1, 0]


def test_another_encoder_can_take_the_place(narrow):
    network = fcn_vgg.Config(num_classes=3, encoder=BASIC).build()
    assert network(torch.randn(2, 3, 64, 32)).shape == (2, 3, 8, 4)


def test_refuses_what_cannot_be_meant_and_the_remedies_work(narrow):
    with pytest.raises(SettingError, match="in_channels is 0; it must be 1 or more"):
        fcn_vgg.Config(in_channels=0)
    with pytest.raises(SettingError, match="output stride of 16, .* leave out output_stride"):
        fcn_vgg.Config(encoder=replace(BASIC, output_stride=16)).build()
    for key in ("conv1_1.weights", "score_pool2.weight", "upscore4.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no FCN on VGG has"):
            fcn_vgg.rename({key: torch.zeros(1)})
    network = fcn_vgg.Config(encoder=BASIC).build().eval()
    with pytest.raises(ShapeError, match=r"40 x 64, .* divisible by 32; pad them to 64 x 64"):
        network(torch.zeros(1, 3, 40, 64))
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 21, 8, 8)
