"""Semantic FPN against detectron2's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import mit, resnet
from segwright.models import semantic_fpn

SMALL = semantic_fpn.Config(
    num_classes=3,
    encoder=resnet.Config(block="basic", depths=(1, 1, 1, 1)),
    pyramid_width=16,
    branch_width=32,
)
MEAN = torch.tensor([123.675, 116.28, 103.53])  # red, green, blue


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_detectron2_at_every_depth(golden, dtype):
    """Its Panoptic FPN holds this network; images are blue, green, red there, and padded after the mean is off."""
    file = golden("d2_panoptic_fpn_a")
    network = replace(semantic_fpn.PRESETS["semantic_fpn_resnet50"], num_classes=6, pyramid_width=64, branch_width=64).build()
    network.load_state_dict(semantic_fpn.rename(file.weights))
    network.eval().to(dtype)
    batch = torch.zeros(2, 3, 128, 128, dtype=dtype)
    for place, name in zip(batch, ("image0", "image1"), strict=True):
        image = file.input(name).flip(0).to(dtype)
        place[:, : image.shape[1], : image.shape[2]] = image - MEAN.to(dtype)[:, None, None]
    with torch.no_grad():
        levels = network.pyramid(network.encoder(batch)[-4:])
        outputs = {f"fpn.p{number}": level for number, level in enumerate(levels, start=2)}
        outputs["sem.logits_quarter"] = network(batch)
        outputs["sem.logits"] = F.interpolate(outputs["sem.logits_quarter"], scale_factor=4, mode="bilinear")
    for depth, output in outputs.items():  # the first failure says where to look; the authors' ran in float32 alone
        file.check(depth, output.float())


@pytest.mark.parametrize("name", ["d2_semantic_R_50_FPN_1x", "d2_panoptic_fpn_R_50_3x"])
def test_the_published_files_fit(manifest, name):
    with torch.device("meta"):
        network = semantic_fpn.PRESETS["semantic_fpn_resnet50"].build()
    renamed = semantic_fpn.rename(manifest(name))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_older_files_hold_how_images_were_normalised_which_is_left_out():
    assert semantic_fpn.rename({"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}) == {}


def test_only_the_first_convolution_is_turned_round():
    stem, deeper = torch.arange(3.0).reshape(1, 3, 1, 1), torch.arange(3.0).reshape(1, 3, 1, 1)
    ours = semantic_fpn.rename({"backbone.bottom_up.stem.conv1.weight": stem, "backbone.bottom_up.res2.0.conv1.weight": deeper})
    assert ours["encoder.conv1.weight"].flatten().tolist() == [2, 1, 0]
    assert ours["encoder.layer1.0.conv1.weight"].flatten().tolist() == [0, 1, 2]
    assert stem.flatten().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("encoder", "divisor"),
    [
        (resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=8), 8),
        (mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 1, 1)), 32),
    ],
)
def test_stands_on_other_encoders(encoder, divisor):
    network = replace(SMALL, in_channels=4, encoder=encoder).build()
    assert network.divisors == (divisor, divisor)
    logits = network(torch.randn(2, 4, 4 * divisor, 8 * divisor))
    assert logits.shape == (2, 3, divisor, 2 * divisor)
    logits.mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("key", ["sem_seg_head.p6.0.weight", "sem_seg_head.p2.1.weight", "backbone.fpn_lateral6.weight"])
def test_rename_refuses_strangers(key):
    with pytest.raises(FormatError, match=f"hold '{key}', which no Semantic FPN has"):
        semantic_fpn.rename({key: torch.zeros(1)})
    with pytest.raises(FormatError, match=r"hold 'res2.0.other.weight', which no ResNet has"):
        semantic_fpn.rename({"backbone.bottom_up.res2.0.other.weight": torch.zeros(1)})


def test_weights_say_what_their_images_look_like():
    for weights in semantic_fpn.WEIGHTS.values():
        assert weights.preset in semantic_fpn.PRESETS
        assert weights.num_classes == semantic_fpn.PRESETS[weights.preset].num_classes
        assert weights.intake.std == (1, 1, 1) and weights.intake.mean == pytest.approx(tuple(MEAN.tolist()))


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "pyramid_width", "branch_width"])
def test_refuses_settings_that_cannot_be_meant(name):
    with pytest.raises(SettingError, match=f"{name} is 0; "):
        replace(SMALL, **{name: 0})
