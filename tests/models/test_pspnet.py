"""PSPNet against segmentation_models_pytorch's, and against the paper's as mmsegmentation trains it. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import mit, resnet
from segwright.layers.auxiliary import WithAuxiliary
from segwright.models import pspnet

SMALL = pspnet.Config(
    num_classes=3,
    width=12,
    encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1), stem="3x3", stem_width=8, output_stride=8),
)
SMP = pspnet.Config(num_classes=3, width=64, form="smp", dropout=0.2, encoder=replace(resnet.PRESETS["resnet18"], stages=2))


@pytest.fixture
def theirs(smp, peers):
    def build(**options) -> nn.Module:
        torch.manual_seed(3)
        network = smp.PSPNet("resnet18", encoder_weights=None, psp_out_channels=64, classes=3, **options)
        return peers.randomised(network)

    return build


def ours(config: pspnet.Config, reference: nn.Module) -> pspnet.PSPNet:
    network = replace(config, dropout=0.0).build().double()
    network.load_state_dict(pspnet.rename(reference.state_dict()))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_reference_at_every_depth(golden, dtype):
    golden("smp_pspnet_resnet18_a").check_levels(SMP.build(), pspnet.rename, dtype)


def test_equals_the_reference_live_with_its_gradients(theirs, peers):
    reference = theirs(in_channels=2)
    network = ours(replace(SMP, in_channels=2), reference)
    peers.assert_equal(network, reference, 2, 2, 56, 88)
    odd = torch.randn(1, 2, 61, 43, dtype=torch.float64)
    with torch.no_grad():
        wanted = reference.segmentation_head[0](reference.decoder(reference.encoder(odd)))
        torch.testing.assert_close(network.decode(network.encoder(odd)[-1]), wanted, rtol=1e-9, atol=1e-9)
    peers.assert_equal_gradients(network, reference, pspnet.rename, 2, 2, 56, 88)


def test_equals_the_reference_live_on_a_whole_encoder(theirs, peers):
    """smp ends at stride 8 unless asked otherwise; then its file holds no stage that is not read."""
    reference = theirs(encoder_depth=5, upsampling=32)
    peers.assert_equal(ours(replace(SMP, encoder=resnet.PRESETS["resnet18"]), reference), reference, 1, 3, 64, 96)


def test_follows_the_loss_of_the_reference_for_twenty_steps(theirs, peers):
    reference = theirs()
    peers.assert_equal_training(ours(SMP, reference), reference, 2, 3, 32, 48, classes=3)


class Twin(nn.Module):
    """The paper's head as mmsegmentation names its parts, written down plainly."""

    def __init__(self, last: int, before: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.decode_head = nn.Module()
        self.decode_head.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), self.module(last, width, 1)) for side in (1, 2, 3, 6)
        )
        self.decode_head.bottleneck = self.module(last + 4 * width, width, 3)
        self.decode_head.conv_seg = nn.Conv2d(width, num_classes, 1)
        self.auxiliary_head = nn.Module()
        self.auxiliary_head.convs = nn.Sequential(self.module(before, before // 4, 3))
        self.auxiliary_head.conv_seg = nn.Conv2d(before // 4, num_classes, 1)

    @staticmethod
    def module(before: int, after: int, kernel: int) -> nn.Sequential:
        parts = nn.Sequential()
        parts.add_module("conv", nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False))
        parts.add_module("bn", nn.BatchNorm2d(after))
        parts.add_module("activate", nn.ReLU())
        return parts

    def forward(self, before, last):
        parts = [last]
        for branch in self.decode_head.psp_modules:
            parts.append(F.interpolate(branch(last), size=last.shape[2:], mode="bilinear", align_corners=False))
        logits = self.decode_head.conv_seg(self.decode_head.bottleneck(torch.cat(parts, dim=1)))
        return logits, self.auxiliary_head.conv_seg(self.auxiliary_head.convs(before))


def test_the_papers_head_equals_its_twin_under_mmsegmentations_names(peers):
    torch.manual_seed(0)
    network = replace(SMALL, dropout=0.0).build().double()
    twin = peers.randomised(Twin(512, 256, 12, 3))
    head = pspnet.rename(twin.state_dict())
    missing = network.load_state_dict(head, strict=False)
    assert not missing.unexpected_keys and all(name.startswith("encoder.") for name in missing.missing_keys)
    image = torch.randn(2, 3, 72, 104, dtype=torch.float64)
    with torch.no_grad():
        maps = network.encoder(image)  # in training: both see the statistics of this batch
        wanted, auxiliary = twin(*maps[-2:])
        outputs = network(image)
    torch.testing.assert_close(outputs.logits, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(outputs.auxiliary[0], auxiliary, rtol=1e-9, atol=1e-9)
    assert outputs.weights == (0.4,)


def mmsegmentation_names(name: str) -> str:
    """What mmsegmentation calls a tensor of a ResNet with three convolutions in its stem."""
    for ours, others in {"conv1.": "stem.", "bn1.": "stem.7."}.items():
        if name.startswith(f"encoder.{ours}"):
            return name.replace(f"encoder.{ours}", f"backbone.{others}", 1)
    return name.replace("encoder.", "backbone.", 1)


def test_a_whole_file_of_mmsegmentation_fits():
    with torch.device("meta"):
        network = pspnet.PRESETS["pspnet_resnet50"].build()
        twin = Twin(2048, 1024, 512, 19)
    file = {mmsegmentation_names(k): v for k, v in network.encoder.state_dict(prefix="encoder.").items()} | twin.state_dict()
    renamed = pspnet.rename(file)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


@pytest.mark.parametrize(
    "encoder",
    [
        resnet.Config(block="basic", depths=(1, 1, 1, 1)),
        mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 1, 1)),
    ],
)
@pytest.mark.parametrize("form", ["paper", "smp"])
def test_stands_on_other_encoders(encoder, form):
    network = replace(SMALL, in_channels=4, encoder=encoder, form=form).build()
    assert network.divisors == (32, 32)
    outputs = network(torch.randn(2, 4, 96, 64))
    logits = [outputs.logits, *outputs.auxiliary] if isinstance(outputs, WithAuxiliary) else [outputs]
    assert [list(one.shape) for one in logits] == ([[2, 3, 3, 2], [2, 3, 6, 4]] if form == "paper" else [[2, 3, 96, 64]])
    sum(one.mean() for one in logits).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("key", ["decode_head.ppm.0.weight", "decoder.psp.blocks.0.pool.1.1.weight", "conv_seg.weight"])
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no PSPNet has"):
        pspnet.rename({key: torch.zeros(1)})
    with pytest.raises(FormatError, match=r"hold 'layer1.0.other.weight', which no ResNet has"):
        pspnet.rename({"backbone.layer1.0.other.weight": torch.zeros(1)})


def test_refuses_to_train_on_one_image_and_the_remedy_works():
    network = SMALL.build()
    with pytest.raises(ShapeError, match=r"one image leaves PSPNet one value .* training.batch_size=2"):
        network(torch.randn(1, 3, 32, 32))
    network(torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "width"])
def test_refuses_settings_below_one(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(SMALL, **{name: 0})
