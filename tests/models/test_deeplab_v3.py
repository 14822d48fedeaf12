"""DeepLabV3 against torchvision's, detectron2's and segmentation_models.pytorch's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import mit, resnet, timm
from segwright.layers.auxiliary import WithAuxiliary
from segwright.models import deeplab_v3

ONE_BLOCK_EACH = (1, 1, 1, 1)
SHALLOW = {
    "resnet": deeplab_v3.Config(num_classes=4, encoder=resnet.Config(depths=ONE_BLOCK_EACH, output_stride=8)),
    "basic": deeplab_v3.Config(num_classes=4, encoder=resnet.Config(block="basic", depths=ONE_BLOCK_EACH)),
}
SMALL = deeplab_v3.Config(num_classes=5, width=8, encoder=resnet.Config(block="basic", depths=ONE_BLOCK_EACH, output_stride=16))


def torchvisions(name: str) -> torch.nn.Module:
    """torchvision's network of four classes; that on a ResNet with one block a stage."""
    from torchvision.models import _utils
    from torchvision.models import resnet as resnets
    from torchvision.models.segmentation import deeplabv3, deeplabv3_mobilenet_v3_large, fcn

    torch.manual_seed(0)
    if name == "mobilenet_v3_large":
        options = {"weights": None, "weights_backbone": None, "num_classes": 4, "aux_loss": True}
        return deeplabv3_mobilenet_v3_large(**options)
    if name == "basic":  # the cheapest that can be made
        backbone = _utils.IntermediateLayerGetter(
            resnets.ResNet(resnets.BasicBlock, [1, 1, 1, 1]), {"layer3": "aux", "layer4": "out"}
        )
        return deeplabv3.DeepLabV3(backbone, deeplabv3.DeepLabHead(512, 4), fcn.FCNHead(256, 4))
    backbone = resnets.ResNet(resnets.Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=[False, True, True])
    return deeplabv3._deeplabv3_resnet(backbone, 4, True)


def ours_like(name: str, theirs: torch.nn.Module) -> deeplab_v3.DeepLabV3:
    config = SHALLOW.get(name) or replace(deeplab_v3.PRESETS[f"deeplab_v3_{name}"], num_classes=4)
    network = config.build().double()
    network.load_state_dict(deeplab_v3.rename(theirs.state_dict()))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v3_large"])
def test_equals_torchvision_at_every_depth(golden, name, dtype):
    arrays = golden(f"tv_deeplabv3_{name}_a")
    network = deeplab_v3.PRESETS[f"deeplab_v3_{name}"].build().eval()
    network.load_state_dict(deeplab_v3.rename(arrays.weights))
    network.to(dtype)
    image = arrays.input("x").to(dtype)
    with torch.no_grad():
        maps = network.encoder(image)
        arrays.check("backbone_out", maps[-1])
        logits, auxiliary = network.decode(maps[-1]), network.auxiliary(maps[network.config.auxiliary])
        for depth, small in (("classifier_lowres", logits), ("aux_lowres", auxiliary)):
            arrays.check(depth, small)
        for depth, small in (("logits", logits), ("aux_logits", auxiliary)):
            arrays.check(depth, F.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False))
        assert torch.equal(network(image), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_segmentation_models_pytorch_at_every_depth(golden, dtype):
    encoder = replace(resnet.PRESETS["resnet18"], output_stride=8, dilate_first=True)
    config = replace(deeplab_v3.PRESETS["smp_deeplab_v3_resnet34"], encoder=encoder, width=64, num_classes=5)
    golden("smp_deeplabv3_a").check_levels(config.build(), deeplab_v3.rename, dtype)


@pytest.mark.parametrize(("name", "sides"), [("resnet", (65, 43)), ("resnet", (40, 64)), ("mobilenet_v3_large", (70, 97))])
def test_equals_torchvision_live(peers, name, sides):
    theirs = peers.randomised(torchvisions(name)).eval()
    ours = ours_like(name, theirs).eval()
    image = torch.randn(2, 3, *sides, dtype=torch.float64)
    with torch.no_grad():
        wanted, maps = theirs(image), ours.encoder(image)
    heads = {"out": ours.decode(maps[-1]), "aux": ours.auxiliary(maps[ours.config.auxiliary])}
    for head, logits in heads.items():
        logits = F.interpolate(logits, size=sides, mode="bilinear", align_corners=False)
        torch.testing.assert_close(logits, wanted[head], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_equals_segmentation_models_pytorch_live(smp, peers, output_stride):
    torch.manual_seed(0)
    options = {"encoder_weights": None, "encoder_output_stride": output_stride, "decoder_channels": 12, "classes": 3}
    theirs = peers.randomised(smp.DeepLabV3("resnet18", decoder_atrous_rates=(3, 5, 7), in_channels=2, **options))
    encoder = replace(resnet.PRESETS["resnet18"], output_stride=output_stride, dilate_first=True)
    config = replace(deeplab_v3.PRESETS["smp_deeplab_v3_resnet34"], encoder=encoder, width=12, rates=(3, 5, 7))
    ours = replace(config, in_channels=2, num_classes=3).build().double()
    ours.load_state_dict(deeplab_v3.rename(theirs.state_dict()))
    peers.assert_equal(ours, theirs, 1, 2, 80, 112)


def test_gradients_equal_torchvisions(peers):
    theirs = peers.randomised(torchvisions("resnet"))
    peers.assert_equal_gradients(ours_like("resnet", theirs), theirs, deeplab_v3.rename, 3, 3, 32, 48)


def test_twenty_steps_follow_torchvisions_losses(peers):
    theirs = peers.randomised(torchvisions("basic"))
    peers.assert_equal_training(ours_like("basic", theirs), theirs, 3, 3, 64, 32, classes=4, momentum=0.0)


@pytest.mark.parametrize(
    ("file", "preset"),
    [
        ("torchvision_deeplabv3_resnet50", "deeplab_v3_resnet50"),
        ("torchvision_deeplabv3_resnet101", "deeplab_v3_resnet101"),
        ("torchvision_deeplabv3_mobilenet_v3_large", "deeplab_v3_mobilenet_v3_large"),
        ("d2_deeplab_v3_R_103_os16_mg124_poly_90k_bs16", "deeplab_v3_r103"),
    ],
)
def test_every_published_file_fits(manifest, file, preset):
    renamed = deeplab_v3.rename(manifest(file) | {"pixel_mean": torch.zeros(3)})
    with torch.device("meta"):
        network = deeplab_v3.PRESETS[preset].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_what_is_said_of_weights_is_what_torchvision_says():
    from torchvision.models import segmentation

    wanted = {"resnet50": "ResNet50", "resnet101": "ResNet101", "mobilenet_v3_large": "MobileNet_V3_Large"}
    for name, theirs in wanted.items():
        weights, facts = (
            deeplab_v3.WEIGHTS[f"deeplab_v3_{name}_voc"],
            getattr(segmentation, f"DeepLabV3_{theirs}_Weights").DEFAULT,
        )
        assert weights.address == facts.url and f"-{weights.sha256}." in facts.url
        assert weights.score.startswith(f"{facts.meta['_metrics']['COCO-val2017-VOC-labels']['miou']} mIoU")
        assert weights.classes[1:] == tuple(facts.meta["categories"][1:])
    for name, weights in deeplab_v3.WEIGHTS.items():
        assert name.startswith(weights.preset) and weights.num_classes == deeplab_v3.PRESETS[weights.preset].num_classes


@pytest.mark.parametrize("encoder", [timm.Config(name="resnet18", output_stride=8), mit.Config(depths=(1, 1, 1, 1))])
def test_any_encoder_will_do_and_no_parameter_lies_idle(encoder):
    network = replace(SMALL, encoder=encoder, in_channels=4).build().train()
    outputs = network(torch.randn(2, 4, 64, 32))
    stride = max(network.encoder.strides)
    assert network.divisors == (stride, stride) and outputs.logits.shape == (2, 5, 64 // stride, 32 // stride)
    (outputs.logits.mean() + outputs.auxiliary[0].mean()).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_auxiliary_logits_come_in_training_alone():
    network = SMALL.build()
    image = torch.randn(2, 3, 32, 32)
    outputs = network.train()(image)
    assert isinstance(outputs, WithAuxiliary) and [out.shape for out in outputs.auxiliary] == [(2, 5, 2, 2)]
    assert network.eval()(image).shape == (2, 5, 2, 2)
    assert isinstance(replace(SMALL, auxiliary=None).build().train()(image), torch.Tensor)


def channels_are_last(tensor: torch.Tensor) -> bool:
    """Whether channels of a pixel lie side by side in memory, also in a part of a larger map."""
    return tensor.stride(1) == 1 or tensor.shape[2:] == (1, 1)


def test_bfloat16_and_channels_last_stay_close_and_keep_the_layout_both_ways():
    torch.manual_seed(0)
    network = replace(SMALL, dropout=0.1).build().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    layouts = []

    def note(_, inputs, output):
        for name, tensor in (("in", inputs[0]), ("out", output)):
            layouts.append((name, channels_are_last(tensor)))
            if tensor.requires_grad and tensor.shape[1] != 5:  # logits come back as the loss likes them
                tensor.register_hook(lambda grad: layouts.append(("grad", channels_are_last(grad))))

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network.train()(image)
    (outputs.logits.float().square().mean() + outputs.auxiliary[0].float().square().mean()).backward()
    assert {name for name, _ in layouts} == {"in", "out", "grad"} and all(is_last for _, is_last in layouts)
    with torch.no_grad():
        wanted = network.eval()(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image)
    assert logits.dtype == torch.bfloat16 and (logits - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_rename_leaves_its_argument_alone_and_refuses_strangers(manifest):
    weights = manifest("torchvision_deeplabv3_resnet50")
    keys = list(weights)
    deeplab_v3.rename(weights)
    assert list(weights) == keys
    for key in ("classifier.0.convs.5.0.weight", "decoder.aspp.0.convs.0.0.weight", "head.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no DeepLabV3 has"):
            deeplab_v3.rename(weights | {key: torch.zeros(1)})
    with pytest.raises(FormatError, match=r"hold 'layer5.0.conv1.weight', which no ResNet has"):
        deeplab_v3.rename({"backbone.layer5.0.conv1.weight": torch.zeros(1)})


def test_refuses_other_sides_and_the_remedy_works():
    network = SMALL.build().eval()
    with pytest.raises(ShapeError, match=r"40 x 64, .* divisible by 16; pad them to 48 x 64"):
        network(torch.zeros(1, 3, 40, 64))
    assert network(torch.zeros(1, 3, 48, 64)).shape == (1, 5, 3, 4)
    assert replace(SMALL, upsampling="corners").build().eval()(torch.zeros(1, 3, 48, 64)).shape == (1, 5, 48, 64)


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "width"])
def test_refuses_settings_that_cannot_be_meant(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(SMALL, **{name: 0})
    with pytest.raises(SettingError, match=r"rates is \[6, 0\]; give at least one dilation"):
        replace(SMALL, rates=(6, 0))
