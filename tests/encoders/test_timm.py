"""timm's networks as encoders. Axes: B, C, H, W."""

import pytest
import timm as library
import torch

from segwright.core.errors import SettingError, ShapeError, UnknownNameError
from segwright.encoders import timm


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", (64, 64, 128, 256, 512)),  # has a map at stride 2 as well
        ("convnext_atto", (40, 80, 160, 320)),  # has these four only
        ("swin_tiny_patch4_window7_224", (96, 192, 384, 768)),  # channels last, and one image size by default
        ("mobilenetv3_small_050", (16, 8, 16, 24, 288)),  # its own kind of feature extractor
    ],
)
def test_maps_at_strides_2_or_4_to_32(name, channels):
    encoder = timm.Config(name=name).build(in_channels=2).eval()
    assert encoder.channels == channels
    with torch.no_grad():
        maps = encoder(torch.randn(1, 2, 64, 96))
    assert [tuple(level.shape) for level in maps] == [
        (1, count, 64 // stride, 96 // stride) for count, stride in zip(channels, encoder.strides, strict=True)
    ]


@pytest.mark.parametrize(("name", "output_stride"), [("resnet18", 8), ("tf_efficientnet_lite0", 16)])
def test_the_last_maps_keep_the_output_stride(name, output_stride):
    encoder = timm.Config(name=name, output_stride=output_stride).build().eval()
    assert encoder.strides == (2, 4, 8, *((8, 8) if output_stride == 8 else (16, 16)))
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, 64, 96))
    assert [level.shape[2:] for level in maps] == [(64 // stride, 96 // stride) for stride in encoder.strides]
    with pytest.raises(SettingError, match="edgenext_small' does not work .* with an output stride of 8"):
        timm.Config(name="edgenext_small", output_stride=8).build()


def test_equals_timm_itself():
    torch.manual_seed(0)
    encoder = timm.Config(name="resnet18").build().eval()
    theirs = library.create_model("resnet18", features_only=True).eval()
    theirs.load_state_dict(encoder.network.state_dict())
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, wanted in zip(encoder(image), theirs(image), strict=True):
            assert torch.equal(ours, wanted)


def test_one_value_per_channel_is_told_with_remedies_that_help():
    encoder = timm.Config(name="resnet10t").build(3)
    with pytest.raises(ShapeError, match=r"one image of 32 x 32 .*--set training.crop=\[64,64\], or with two at a time"):
        encoder(torch.zeros(1, 3, 32, 32))
    assert encoder(torch.zeros(1, 3, 64, 64))[-1].shape[2:] == encoder(torch.zeros(2, 3, 64, 64))[-1].shape[2:] == (2, 2)
    assert encoder(torch.zeros(2, 3, 32, 32))[-1].shape[2:] == encoder.eval()(torch.zeros(1, 3, 32, 32))[-1].shape[2:] == (1, 1)


def test_misspelt_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="timm has no network 'resnet-18', did you mean 'resnet18'"):
        timm.Config(name="resnet-18").build()
    with pytest.raises(UnknownNameError, match="no network 'hf-hub:somebody/something'"):  # never fetches code or settings
        timm.Config(name="hf-hub:somebody/something").build()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_224", r"does not work as an encoder .*Input height.*take a network that does, such as 'resnet18'"),
        ("convmixer_768_32", r"maps 1 x 768 x 13 x 22, .* exactly 1/4, 1/8, 1/16 and 1/32 are needed; take .*'resnet18'"),
        ("resnet18.nobody", r"Invalid pretrained tag"),
    ],
)
def test_networks_without_a_pyramid_are_refused_and_the_remedy_works(name, message):
    with pytest.raises(SettingError, match=message):
        timm.Config(name=name).build()
    with torch.device("meta"):
        timm.Config(name="convnext_tiny").build()


def test_weights_that_cannot_be_fetched_are_answered_with_a_remedy(monkeypatch):
    encoder = timm.Config(name="resnet18").build()

    def create(name, in_channels, *, pretrained=False, **options):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create", create)
    with pytest.raises(SettingError, match=r"could not be fetched \(no route to host\); .* leave out init.weights"):
        timm.fetch(encoder)


def test_weights_are_fetched_under_the_names_of_the_encoder(monkeypatch):
    asked = []

    def create(name, in_channels, *, pretrained=False, **options):
        asked.append(pretrained)
        return library.create_model(name, features_only=True, in_chans=in_channels, **options)

    monkeypatch.setattr(timm, "create", create)
    encoder = timm.Config(name="resnet18").build()
    assert asked == [False, False]  # to learn its shapes, and to build it
    encoder.load_state_dict(timm.fetch(encoder))
    assert asked[-1] is True
