"""DeepLab-LargeFOV. Axes: B, C, K, H, W."""

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import resnet, vgg
from segwright.models import deeplab_v1

BASIC = resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=8)
STAGES = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)


@pytest.fixture
def narrow(monkeypatch):
    """Networks of the same depth and few channels."""
    monkeypatch.setattr(vgg, "WIDTHS", (3, 4, 5, 6, 6))
    monkeypatch.setattr(deeplab_v1, "WIDTH", 8)


def seeded() -> deeplab_v1.DeepLabV1:
    torch.manual_seed(0)
    network = deeplab_v1.Config(num_classes=3).build().double().eval()
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))  # biases that count
    return network


def as_the_authors(network: deeplab_v1.DeepLabV1, image: torch.Tensor) -> torch.Tensor:
    """Their network, layer by layer, on an image with sides of 8n + 1; Caffe's poolings round up."""
    head, x, pools = network.head, image, 0
    for layer in network.encoder.features:
        if isinstance(layer, torch.nn.Conv2d):
            hole = 2 if pools == 4 else 1
            x = F.conv2d(x, layer.weight, layer.bias, padding=hole, dilation=hole)
        elif isinstance(layer, torch.nn.ReLU):
            x = F.relu(x)
        else:
            pools += 1
            x = F.max_pool2d(x, 3, 2 if pools <= 3 else 1, padding=1, ceil_mode=True)
    x = F.avg_pool2d(x, 3, 1, padding=1, ceil_mode=True)
    x = F.relu(F.conv2d(x, head.fc6.weight, head.fc6.bias, padding=12, dilation=12))
    x = F.relu(F.conv2d(x, head.fc7.weight, head.fc7.bias))
    scores = F.conv2d(x, head.classify.weight, head.classify.bias)
    height, width = scores.shape[2:]
    size = (8 * (height - 1) + 1, 8 * (width - 1) + 1)
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=True)


def test_equals_the_authors_network_on_an_image_of_their_sides(narrow):
    network = seeded()
    image = torch.randn(2, 3, 112, 136, dtype=torch.float64)
    theirs = as_the_authors(network, F.pad(image, (0, 1, 0, 1)))
    assert theirs.shape[2:] == (113, 137)
    torch.testing.assert_close(network(image), theirs[:, :, :112, :136], rtol=1e-11, atol=1e-11)
    assert network(image).std() > 0.001


def test_what_lies_at_a_pixel_is_scored_at_that_pixel(narrow):
    """The scores of an image turned around are the scores turned around, where its sides are the authors'."""
    network = seeded()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data = layer.weight.data + layer.weight.data.flip(2, 3)  # no direction is special to it
    image = torch.randn(1, 3, 64, 80, dtype=torch.float64)
    image[:, :, 0], image[:, :, :, 0] = 0, 0  # what the network adds at the other end
    turned = network(F.pad(image.flip(2, 3), (1, 0, 1, 0))[:, :, :64, :80])
    torch.testing.assert_close(turned.flip(2, 3)[:, :, :-1, :-1], network(image)[:, :, 1:, 1:], rtol=1e-10, atol=1e-10)


def test_every_parameter_learns(narrow):
    network = deeplab_v1.Config(in_channels=2, num_classes=3).build()
    logits = network(torch.randn(2, 2, 32, 48))
    assert logits.shape == (2, 3, 32, 48)
    F.cross_entropy(logits, torch.zeros(2, 32, 48, dtype=torch.int64)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_authors_files_fit():
    shapes, before = {}, 3
    for stage, widths in enumerate(STAGES, 1):
        for number, width in enumerate(widths, 1):
            shapes |= {f"conv{stage}_{number}.weight": (width, before, 3, 3), f"conv{stage}_{number}.bias": (width,)}
            before = width
    shapes |= {"fc6.weight": (1024, 512, 3, 3), "fc6.bias": (1024,), "fc7.weight": (1024, 1024, 1, 1), "fc7.bias": (1024,)}
    shapes |= {"fc8_voc12.weight": (21, 1024, 1, 1), "fc8_voc12.bias": (21,)}
    with torch.device("meta"):
        renamed = deeplab_v1.rename({key: torch.empty(shape) for key, shape in shapes.items()})
        network = deeplab_v1.PRESETS["deeplab_v1_vgg16"].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(20.5e6, rel=1e-3)  # the paper's table


def test_another_encoder_can_take_the_place(narrow):
    network = deeplab_v1.Config(num_classes=3, encoder=BASIC).build()
    assert network.divisors == (8, 8) and network(torch.randn(2, 3, 32, 40)).shape == (2, 3, 32, 40)


def test_bfloat16_and_channels_last_stay_close(narrow):
    network = seeded().float().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        wanted = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image)
    assert logits.dtype == torch.bfloat16
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through sixteen layers


def test_refuses_what_cannot_be_meant_and_the_remedy_works(narrow):
    with pytest.raises(SettingError, match="num_classes is 0; it must be 1 or more"):
        deeplab_v1.Config(num_classes=0)
    for key in ("conv1_1.weights", "fc8.weight", "fc9.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no DeepLab-LargeFOV has"):
            deeplab_v1.rename({key: torch.zeros(1)})
    network = seeded()
    with pytest.raises(ShapeError, match=r"42 x 64, .* divisible by 8; pad them to 48 x 64"):
        network(torch.zeros(1, 3, 42, 64, dtype=torch.float64))
    assert network(torch.zeros(1, 3, 48, 64, dtype=torch.float64)).shape == (1, 3, 48, 64)
