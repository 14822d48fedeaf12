"""ResNet. Axes: B, C, H, W."""

from dataclasses import replace

import pytest
import torch

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import resnet
from segwright.layers.deformable_conv import DeformableConv

TINY = resnet.Config(block="basic", depths=(1, 1, 2, 3))


def randomised(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Norms that must really be applied."""
    torch.manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return network.double().eval()


@pytest.mark.parametrize(
    ("name", "output_stride", "sides"), [("resnet18", 32, (64, 96)), ("resnet50", 8, (65, 43)), ("resnet50", 16, (70, 97))]
)
def test_equals_torchvision_live(name, output_stride, sides):
    import torchvision

    dilate = {8: [False, True, True], 16: [False, False, True], 32: [False, False, False]}[output_stride]
    options = {"replace_stride_with_dilation": dilate} if output_stride < 32 else {}
    theirs = randomised(getattr(torchvision.models, name)(weights=None, **options), 1)
    ours = replace(resnet.PRESETS[name], output_stride=output_stride).build().double().eval()
    ours.load_state_dict(resnet.rename(theirs.state_dict()))
    x = image = torch.randn(2, 3, *sides, dtype=torch.float64)
    wanted = []
    with torch.no_grad():
        for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            x = getattr(theirs, part)(x)
            if part.startswith(("relu", "layer")):
                wanted.append(x)
        maps = ours(image)
    for level, other, channels, stride in zip(maps, wanted, ours.channels, ours.strides, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-10, atol=1e-10)
        assert level.shape[1:] == (channels, *(-(-side // stride) for side in sides))


@pytest.mark.parametrize(("stem", "stride_on"), [("7x7", "1x1"), ("3x3", "3x3")])
def test_detectron2s_names_find_their_places(stem, stride_on):
    ours = resnet.Config(stem=stem, stride_on=stride_on).build()
    state = ours.state_dict()
    theirs = {}
    for name, tensor in state.items():
        key = name
        if name.startswith(("conv1", "bn1")):
            place = {"conv1.": "conv1.", "bn1.": "conv1.norm."} if stem == "7x7" else {
                "conv1.0.": "conv1.", "conv1.1.": "conv1.norm.", "conv1.3.": "conv2.", "conv1.4.": "conv2.norm.",
                "conv1.6.": "conv3.", "bn1.": "conv3.norm.",
            }  # fmt: skip
            ((before, after),) = [pair for pair in place.items() if name.startswith(pair[0])]
            key = f"stem.{after}{name.removeprefix(before)}"
        else:
            key = key.replace("layer", "res", 1).replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
            key = f"res{int(key[3]) + 1}{key[4:]}"
            for number in "123":
                key = key.replace(f"bn{number}.", f"conv{number}.norm.")
        if not key.endswith("num_batches_tracked"):  # frozen norms count nothing
            theirs[key] = tensor
    renamed = resnet.rename(theirs)
    assert renamed.keys() == state.keys()
    assert all(torch.equal(renamed[name], tensor) for name, tensor in state.items())


def test_mmsegmentations_stem_finds_its_place():
    ours = resnet.Config(block="basic", depths=(1, 1, 1, 1), stem="3x3", stem_width=32).build().state_dict()
    places = {"conv1.0": 0, "conv1.1": 1, "conv1.3": 3, "conv1.4": 4, "conv1.6": 6, "bn1": 7}  # between these are ReLUs
    theirs = {}
    for name, tensor in ours.items():
        module, _, kind = name.rpartition(".")
        theirs[f"stem.{places[module]}.{kind}" if module in places else name] = tensor
    renamed = resnet.rename(theirs)
    assert renamed.keys() == ours.keys() and all(renamed[name] is tensor for name, tensor in ours.items())


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_equals_hugging_face_live(block, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    from safetensors.torch import load_file

    widths = [64, 128, 256, 512] if block == "basic" else [256, 512, 1024, 2048]
    names = [f"stage{number}" for number in (1, 2, 3, 4)]
    config = transformers.ResNetConfig(hidden_sizes=widths, depths=[1, 2, 1, 1], layer_type=block, out_features=names)
    theirs = randomised(transformers.ResNetBackbone(config), 2)
    theirs.save_pretrained(tmp_path)
    ours = resnet.Config(block=block, depths=(1, 2, 1, 1)).build()
    ours.load_state_dict(resnet.rename(load_file(tmp_path / "model.safetensors")))
    image = torch.randn(1, 3, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        for mine, wanted in zip(ours.double().eval()(image)[1:], theirs(image).feature_maps, strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-10, atol=1e-10)


def test_weights_are_those_that_torchvision_publishes():
    import torchvision

    for weights in resnet.WEIGHTS.values():
        theirs = {entry.url: entry for entry in torchvision.models.get_model_weights(weights.preset)}[weights.address]
        assert weights.score.startswith(f"{theirs.meta['_metrics']['ImageNet-1K']['acc@1']} %") and weights.num_classes == 0
    assert len({weights.address for weights in resnet.WEIGHTS.values()}) == 8  # of five sizes, three were trained twice


def test_dilation_and_multi_grid_follow_the_settings():
    config = replace(TINY, output_stride=8, multi_grid=(1, 2, 4))
    kept = [block.conv1.dilation[0] for stage in ("layer3", "layer4") for block in config.build().get_submodule(stage)]
    own = [
        block.conv1.dilation[0]
        for stage in ("layer3", "layer4")
        for block in replace(config, dilate_first=True).build().get_submodule(stage)
    ]
    assert kept == [1, 2, 2, 8, 16] and own == [2, 2, 4, 8, 16]
    strided = resnet.Config(stride_on="1x1").build().layer2[0]
    assert (strided.conv1.stride, strided.conv2.stride) == ((2, 2), (1, 1))


@pytest.mark.parametrize(("every", "places"), [(1, [3, 4, 6, 3]), (3, [1, 2, 2, 1]), (None, [0, 0, 0, 0])])
def test_each_so_manieth_bottleneck_is_deformable_and_starts_as_half_its_convolution(every, places):
    with torch.device("meta"):
        network = resnet.Config(deformable_every=every).build()
    for number, wanted in zip((2, 3, 4), places[1:], strict=True):
        blocks = [isinstance(block.conv2, DeformableConv) for block in network.get_submodule(f"layer{number}")]
        assert sum(blocks) == wanted and (not every or blocks == [place % every == 0 for place in range(len(blocks))])
    assert not any(isinstance(block.conv2, DeformableConv) for block in network.layer1)
    torch.manual_seed(0)
    small = resnet.Config(depths=(1, 1, 1, 1), deformable_every=every).build()
    names = small.state_dict().keys()
    assert resnet.rename(small.state_dict()).keys() == names and ("layer4.0.conv2.offset_mask.bias" in names) == bool(every)
    if every:
        assert not any(tensor.any() for name, tensor in small.state_dict().items() if "offset_mask" in name)
        assert 0.01 < small.layer4[0].conv2.weight.std() < 0.03  # He's, of 4608 outputs: 0.021


def test_stages_can_be_left_out_and_other_channels_taken():
    encoder = replace(TINY, stages=2).build(in_channels=5)
    assert [level.shape for level in encoder(torch.randn(2, 5, 32, 64))] == [(2, 64, 16, 32), (2, 64, 8, 16), (2, 128, 4, 8)]
    assert not hasattr(encoder, "layer3")


def test_refuses_what_cannot_be_meant():
    with pytest.raises(SettingError, match=r"multi_grid is \[1, 2\]; give one factor for each of the 3 blocks"):
        replace(TINY, multi_grid=(1, 2))
    with pytest.raises(SettingError, match="each stage needs a block"):
        replace(TINY, depths=(1, 1, 0, 1))
    with pytest.raises(SettingError, match="deformable_every is 1 and the blocks are of kind 'basic'"):
        replace(TINY, deformable_every=1)
    with pytest.raises(SettingError, match="deformable_every is 0 and the blocks"):
        resnet.Config(deformable_every=0)
    with pytest.raises(FormatError, match="hold 'layer5.0.conv1.weight', which no ResNet has"):
        resnet.rename({"layer5.0.conv1.weight": torch.zeros(1)})
    with pytest.raises(FormatError, match="hold 'encoder.stages.4.layers.0.shortcut.convolution.weight', which no ResNet has"):
        resnet.rename({"encoder.stages.4.layers.0.shortcut.convolution.weight": torch.zeros(1)})
    resnet.rename({"fc.weight": torch.zeros(1), "conv1.weight": torch.zeros(1)})
