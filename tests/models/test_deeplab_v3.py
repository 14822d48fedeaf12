"""DeepLabV3 against torchvision's, detectron2's and segmentation_models.pytorch's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.models import deeplab_v3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchvision_on_resnet50_at_every_depth(golden, dtype):
    arrays = golden("tv_deeplabv3_resnet50_a")
    network = deeplab_v3.PRESETS["deeplab_v3_resnet50"].build().eval()
    network.load_state_dict(deeplab_v3.rename(arrays.weights))
    network.to(dtype)
    image = arrays.input("x").to(dtype)
    with torch.no_grad():
        maps = network.encoder(image)
        arrays.check("backbone_out", maps[-1])
        logits, auxiliary = network.decode(maps[-1]), network.auxiliary(maps[-2])
        for name, small in (("classifier_lowres", logits), ("aux_lowres", auxiliary)):
            arrays.check(name, small)
        for name, small in (("logits", logits), ("aux_logits", auxiliary)):
            arrays.check(name, F.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False))
        assert torch.equal(network(image), logits)


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_torchvisions_files_fit(manifest, name):
    renamed = deeplab_v3.rename(manifest(f"torchvision_deeplabv3_{name}"))
    with torch.device("meta"):
        network = deeplab_v3.PRESETS[f"deeplab_v3_{name}"].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
