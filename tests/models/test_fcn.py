"""FCN on a dilated ResNet against torchvision's and mmsegmentation's. Axes: B, C, K, H, W."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import resnet, timm, vgg
from segwright.models import fcn

BASIC = resnet.Config(block="basic", depths=(1, 1, 1, 1))
SMALL = fcn.Config(num_classes=4, encoder=BASIC)


def upsampled(logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


def torchvisions(*, num_classes: int, seed: int) -> nn.Module:
    """The reference on the encoder of SMALL."""
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    torch.manual_seed(seed)
    backbone = IntermediateLayerGetter(ResNet(BasicBlock, [1, 1, 1, 1]), {"layer4": "out", "layer3": "aux"})
    return FCN(backbone, FCNHead(512, num_classes), FCNHead(256, num_classes))


@pytest.fixture
def pair(peers):
    """torchvision's network and ours with the same weights."""

    def build(seed: int) -> tuple[nn.Module, fcn.Fcn]:
        theirs = peers.randomised(torchvisions(num_classes=4, seed=seed))
        ours = SMALL.build().double()
        ours.load_state_dict(fcn.rename(theirs.state_dict()))
        return theirs, ours

    return build


def mmsegmentations(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of ours under mmsegmentation's names, by the rules of its ResNetV1c and its FCNHead."""
    stem = {
        "conv1.0": "stem.0",
        "conv1.1": "stem.1",
        "conv1.3": "stem.3",
        "conv1.4": "stem.4",
        "conv1.6": "stem.6",
        "bn1": "stem.7",
    }
    theirs = {}
    for key, tensor in state_dict.items():
        module, _, kind = key.rpartition(".")
        if module.startswith("encoder."):
            name = module.removeprefix("encoder.")
            theirs[f"backbone.{stem.get(name, name)}.{kind}"] = tensor
            continue
        home, part = module.split(".", 1)
        part = re.sub(r"\.0$", ".conv", re.sub(r"\.1$", ".bn", part))
        part = {"classify": "conv_seg", "concatenate.conv": "conv_cat.conv", "concatenate.bn": "conv_cat.bn"}.get(part, part)
        theirs[f"{'decode_head' if home == 'head' else 'auxiliary_head'}.{part}.{kind}"] = tensor
    return theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchvision_on_resnet50_at_every_depth(golden, dtype):
    arrays = golden("tv_fcn_resnet50_a")
    network = fcn.PRESETS["fcn_resnet50"].build().eval()
    network.load_state_dict(fcn.rename(arrays.weights))
    network.to(dtype)
    image = arrays.input("x").to(dtype)
    with torch.no_grad():
        maps = network.encoder(image)
        arrays.check("backbone_out", maps[-1])
        logits, auxiliary = network.head(maps[-1]), network.auxiliary(maps[-2])
        assert torch.equal(network(image), logits)
    for name, small in (("classifier_lowres", logits), ("aux_lowres", auxiliary)):
        arrays.check(name, small)
    for name, small in (("logits", logits), ("aux_logits", auxiliary)):
        arrays.check(name, upsampled(small, image))


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_torchvisions_files_fit(manifest, name):
    with torch.device("meta"):
        renamed = fcn.rename(manifest(f"torchvision_fcn_{name}"))
        network = fcn.PRESETS[f"fcn_{name}"].build()
        encoder = resnet.rename(manifest(f"torchvision_{name}"))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
    assert {k: v.shape for k, v in encoder.items()} == {k: v.shape for k, v in network.encoder.state_dict().items()}


@pytest.mark.parametrize("sides", [(64, 96), (77, 50)])  # the second: rows that do not fill a stride
def test_equals_torchvision_live_values_and_gradients(pair, sides):
    theirs, ours = pair(sum(sides))
    image = torch.randn(2, 3, *sides, dtype=torch.float64)
    wanted = theirs.eval()(image)
    maps = ours.eval().encoder(image)
    logits, auxiliary = upsampled(ours.head(maps[-1]), image), upsampled(ours.auxiliary(maps[-2]), image)
    torch.testing.assert_close(logits, wanted["out"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(auxiliary, wanted["aux"], rtol=1e-10, atol=1e-10)
    (wanted["out"].square().mean() + wanted["aux"].square().mean()).backward()
    (logits.square().mean() + auxiliary.square().mean()).backward()
    gradients = fcn.rename({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-8, atol=1e-12, msg=name)


def test_a_run_of_20_steps_follows_torchvisions_losses(pair, peers):
    theirs, ours = pair(3)
    peers.assert_equal_training(ours, theirs, 2, 3, 64, 32, classes=4)


def test_mmsegmentations_head_sees_its_input_again():
    torch.manual_seed(0)
    head = fcn.FcnHead(16, 3, "concatenated").double().eval()
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    found = x
    for conv, norm, _ in (head.convs[0], head.convs[1]):
        found = F.relu(norm(F.conv2d(found, conv.weight, padding=1)))
    conv, norm, _ = head.concatenate
    found = F.relu(norm(F.conv2d(x, conv.weight[:, :16], padding=1) + F.conv2d(found, conv.weight[:, 16:], padding=1)))
    torch.testing.assert_close(head(x), head.classify(found))


@pytest.mark.parametrize("preset", ["fcn_r50_d8", "fcn_r101_d8"])
def test_mmsegmentations_names_find_their_places(preset):
    with torch.device("meta"):
        state = fcn.PRESETS[preset].build().state_dict()
        theirs = mmsegmentations(state)
        renamed = fcn.rename(theirs)
    assert {
        "backbone.stem.0.weight",
        "decode_head.conv_cat.bn.running_var",
        "auxiliary_head.convs.0.conv.weight",
    } <= theirs.keys()
    assert sum(not key.startswith("backbone.") for key in theirs) == 3 * 6 + 2 + 6 + 2  # a convolution has 1 tensor, a norm 5
    assert theirs["backbone.stem.0.weight"].shape == (32, 3, 3, 3)
    assert theirs["decode_head.conv_cat.conv.weight"].shape == (512, 2048 + 512, 3, 3)
    assert theirs["auxiliary_head.convs.0.conv.weight"].shape == (256, 1024, 3, 3)
    assert renamed.keys() == state.keys()
    assert all(renamed[key] is tensor for key, tensor in state.items())


def test_each_published_network_has_the_published_number_of_parameters():
    for name, count in (("fcn_resnet50", 35_322_218), ("fcn_resnet101", 54_314_346)):
        with torch.device("meta"):
            network = fcn.PRESETS[name].build()
        assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_weights_are_those_that_torchvision_publishes():
    from torchvision.models import get_model_weights

    for name in ("fcn_resnet50", "fcn_resnet101"):
        weights, theirs = fcn.WEIGHTS[f"{name}_voc"], get_model_weights(name).DEFAULT
        assert weights.address == theirs.url and len(weights.classes) == len(theirs.meta["categories"])
        assert weights.score.startswith(str(theirs.meta["_metrics"]["COCO-val2017-VOC-labels"]["miou"]))


def test_weights_name_presets_with_as_many_classes():
    for weights in fcn.WEIGHTS.values():
        assert fcn.PRESETS[weights.preset].num_classes == weights.num_classes
        assert weights.sha256 in weights.file


@pytest.mark.parametrize(
    ("encoder", "stride"),
    [(timm.Config(name="resnet18", output_stride=16), 16), (replace(vgg.PRESETS["vgg11_bn"], output_stride=8), 8)],
)
def test_another_encoder_can_take_the_place(encoder, stride):
    network = fcn.Config(in_channels=4, num_classes=3, encoder=encoder).build().train()
    assert network.divisors == (stride, stride)
    outputs = network(torch.randn(2, 4, 32, 48))
    assert outputs.logits.shape == outputs.auxiliary[0].shape == (2, 3, 32 // stride, 48 // stride)
    (outputs.logits.mean() + outputs.auxiliary[0].mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_bfloat16_and_channels_last_stay_close_and_keep_the_layout():
    torch.manual_seed(0)
    network = SMALL.build().eval().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.bfloat16 and logits.is_contiguous(memory_format=torch.channels_last)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through twelve layers


def test_refuses_what_cannot_be_meant_and_the_remedy_works():
    with pytest.raises(SettingError, match="num_classes is 0; it must be 1 or more"):
        replace(SMALL, num_classes=0)
    for key in ("decode_head.convs.2.conv.weight", "classifier.2.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no FCN has"):
            fcn.rename({key: torch.zeros(1)})
    network = SMALL.build().eval()
    with pytest.raises(ShapeError, match=r"40 x 64, .* divisible by 32; pad them to 64 x 64"):
        network(torch.zeros(1, 3, 40, 64))
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 2, 2)
