"""VGG. Axes: B, C, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import Encoder, vgg

TINY = vgg.Config(depths=(1, 1, 1, 1, 1))


def pooled(theirs: torch.nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """What torchvision's network gives after each pooling, which rounds up."""
    maps, x = [], image
    for layer in theirs.features:
        if isinstance(layer, torch.nn.MaxPool2d):
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            maps.append(x)
        else:
            x = layer(x)
    return maps


@pytest.mark.parametrize(("name", "sides"), [("vgg16", (32, 43)), ("vgg11_bn", (33, 32))])
def test_equals_torchvision_live(name, sides):
    import torchvision

    torch.manual_seed(sum(sides))
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(weights=None)
    theirs.features.to_empty(device="cpu")
    for key, tensor in theirs.features.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.05)
        else:
            tensor.zero_()
    theirs.double().eval()
    ours = vgg.PRESETS[name].build().double().eval()
    ours.load_state_dict(vgg.rename(theirs.state_dict()))
    image = torch.randn(1, 3, *sides, dtype=torch.float64)
    with torch.no_grad():
        maps, wanted = ours(image), pooled(theirs, image)
    for level, other, channels, stride in zip(maps, wanted, ours.channels, ours.strides, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-11, atol=1e-11)
        assert level.shape[1:] == (channels, *(-(-side // stride) for side in sides))


@pytest.mark.parametrize("name", sorted(vgg.PRESETS))
def test_holds_the_tensors_of_torchvisions_file(name):
    import torchvision

    with torch.device("meta"):
        theirs = vgg.rename(getattr(torchvision.models, name)(weights=None).state_dict())
        ours = vgg.PRESETS[name].build().state_dict()
    assert {key: tensor.shape for key, tensor in theirs.items()} == {key: tensor.shape for key, tensor in ours.items()}


def test_weights_are_those_that_torchvision_publishes():
    import torchvision

    for weights in vgg.WEIGHTS.values():
        theirs = torchvision.models.get_model_weights(weights.preset).DEFAULT
        assert weights.address == theirs.url and weights.num_classes == 0 and weights.preset in vgg.PRESETS
        assert weights.score.startswith(str(theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]))


@pytest.mark.parametrize(
    ("output_stride", "strides", "dilations"),
    [(32, (2, 4, 8, 16, 32), [1, 1, 1, 1, 1]), (16, (2, 4, 8, 16, 16), [1, 1, 1, 1, 1]), (8, (2, 4, 8, 8, 8), [1, 1, 1, 1, 2])],
)
@pytest.mark.parametrize("pool", [2, 3])
def test_keeps_the_output_stride_and_dilates_behind_it(output_stride, strides, dilations, pool):
    network = replace(TINY, output_stride=output_stride, pool=pool).build(in_channels=2)
    assert isinstance(TINY, Encoder) and network.strides == strides
    assert [layer.dilation[0] for layer in network.features if isinstance(layer, torch.nn.Conv2d)] == dilations
    maps = network(torch.zeros(1, 2, 41, 64))
    assert [level.shape[2:] for level in maps] == [(-(-41 // stride), -(-64 // stride)) for stride in strides]


def test_by_hand_the_first_pooling_of_an_image_with_one_bright_pixel():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 3] = 1
    for pool, cells in ((2, [(1, 1)]), (3, [(1, 1), (1, 2)])):  # of kernel 3: around columns 2 and 4, so both see column 3
        network = replace(TINY, pool=pool).build(in_channels=1)
        with torch.no_grad():
            network.features[0].weight.zero_()
            network.features[0].weight[0, 0, 1, 1] = 1  # the identity
            first = network(image)[0][0, 0]
        assert [tuple(cell) for cell in first.nonzero().tolist()] == cells


def test_caffes_names_find_their_places_and_red_comes_first():
    ours = replace(TINY, depths=(2, 1, 3, 1, 1)).build().state_dict()
    names = [f"conv{stage}_{number}" for stage, depth in enumerate((2, 1, 3, 1, 1), 1) for number in range(1, depth + 1)]
    indices = sorted({int(key.split(".")[1]) for key in ours})
    theirs = {
        f"{name}.{kind}": ours[f"features.{index}.{kind}"]
        for name, index in zip(names, indices, strict=True)
        for kind in ("weight", "bias")
    }
    theirs["conv1_1.weight"] = theirs["conv1_1.weight"][:, [2, 1, 0]]
    renamed = vgg.rename(theirs | {"fc6.weight": torch.zeros(1)})
    assert renamed.keys() == ours.keys()
    assert all(torch.equal(renamed[key], tensor) for key, tensor in ours.items())


def test_refuses_what_cannot_be_meant():
    with pytest.raises(SettingError, match="each stage needs a convolution"):
        replace(TINY, depths=(1, 1, 0, 1, 1))
    with pytest.raises(FormatError, match="hold 'layer1.weight', which no VGG has"):
        vgg.rename({"layer1.weight": torch.zeros(1)})
    assert vgg.rename({"classifier.0.weight": torch.zeros(1)}) == {}
