"""What a file is of can be told from its names and shapes."""

import pytest
import torch

from segwright.checkpoints.recognise import recognised, shapes
from segwright.encoders import resnet
from segwright.models import unet


def test_shapes_by_hand():
    found = shapes(unet.PRESETS["unet_tiny"])
    assert found["head.weight"] == (2, 16, 1, 1) and list(found) == list(unet.PRESETS["unet_tiny"].build().state_dict())


@pytest.mark.parametrize(
    ("file", "preset"),
    [
        ("hf_segformer_b1_ade", "segformer_b1"),
        ("nvlabs_segformer_b0_cityscapes", "segformer_b0"),
        ("nvlabs_mit_b2_imagenet_backbone", "mit_b2"),
        ("torchvision_resnet101", "resnet101"),
    ],
)
def test_a_published_file(manifest, file, preset):
    assert recognised(manifest(file)) == preset


def test_no_published_variant():
    with torch.device("meta"):
        weights = resnet.Config(depths=(1, 1, 1, 2)).build().state_dict()
    assert recognised(weights) == "a resnet"
    assert recognised({"x": torch.ones(1)}) is None
    assert recognised({}) is None
