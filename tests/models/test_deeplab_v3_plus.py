"""DeepLabV3+ against segmentation_models.pytorch's, and detectron2's as it is described. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import mit, resnet, timm
from segwright.models import deeplab_v3_plus

TINY = resnet.Config(block="basic", depths=(1, 1, 1, 1), output_stride=16, dilate_first=True)
FULL = deeplab_v3_plus.Config(num_classes=5, width=8, encoder=TINY, rates=(1, 2, 3), pool_window=(2, 3))
SEPARABLE = replace(deeplab_v3_plus.SMP, num_classes=5, width=8, encoder=TINY)


@pytest.fixture
def smps(smp, peers):
    def build(**options) -> torch.nn.Module:
        torch.manual_seed(0)
        options |= {"encoder_weights": None, "decoder_channels": 12, "classes": 3}
        return peers.randomised(smp.DeepLabV3Plus("resnet18", **options))

    return build


def ours_like(theirs: torch.nn.Module, **options) -> deeplab_v3_plus.DeepLabV3Plus:
    encoder = replace(resnet.PRESETS["resnet18"], output_stride=options.pop("output_stride", 16), dilate_first=True)
    network = replace(deeplab_v3_plus.SMP, num_classes=3, width=12, encoder=encoder, **options).build().double()
    network.load_state_dict(deeplab_v3_plus.rename(theirs.state_dict()))
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_segmentation_models_pytorch_at_every_depth(golden, dtype):
    encoder = replace(resnet.PRESETS["resnet18"], output_stride=16, dilate_first=True)
    network = replace(deeplab_v3_plus.SMP, encoder=encoder, width=64, num_classes=5).build()
    golden("smp_deeplabv3plus_a").check_levels(network, deeplab_v3_plus.rename, dtype)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_equals_segmentation_models_pytorch_live(smps, peers, output_stride):
    theirs = smps(encoder_output_stride=output_stride, decoder_atrous_rates=(3, 5, 7), in_channels=2)
    ours = ours_like(theirs, output_stride=output_stride, rates=(3, 5, 7), in_channels=2)
    peers.assert_equal(ours, theirs, 1, 2, 80, 112)


def test_gradients_and_the_losses_of_twenty_steps_follow_segmentation_models_pytorch(smps, peers):
    theirs = smps()
    peers.assert_equal_gradients(ours_like(theirs), theirs, deeplab_v3_plus.rename, 3, 3, 32, 48)
    peers.assert_equal_training(ours_like(theirs), theirs, 3, 3, 32, 48, classes=3, momentum=0.0)


@pytest.mark.parametrize("sides", [(64, 96), (60, 75)])  # the second: sides that no stride divides
def test_the_decoder_equals_its_slow_twin(peers, sides):
    """As detectron2 describes it: low map first, corners apart, windows in the image pooling."""
    torch.manual_seed(0)
    network = peers.randomised(FULL.build()).eval()
    with torch.no_grad():
        maps = network.encoder(torch.randn(2, 3, *sides, dtype=torch.float64))
        deep, low = maps[-1], maps[1]
        assert low.shape[1] == 64 and low.shape[2] == -(-sides[0] // 4)
        branches = [network.aspp.pointwise(deep)]
        branches += [F.relu(branch.norm(branch.conv(deep))) for branch in network.aspp.atrous]
        pooled = F.relu(network.aspp.pool.conv(F.avg_pool2d(deep, (2, 3), stride=1)))
        branches.append(F.interpolate(pooled, size=deep.shape[2:], mode="bilinear", align_corners=False))
        mixed = F.relu(network.aspp.norm(network.aspp.project(torch.cat(branches, dim=1))))
        mixed = F.interpolate(mixed, size=low.shape[2:], mode="bilinear", align_corners=False)
        logits = network.classify(network.fuse(torch.cat([network.low(low), mixed], dim=1)))
        torch.testing.assert_close(network.decode(maps), logits, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("file", "preset"),
    [
        ("d2_deeplab_v3_plus_R_103_os16_mg124_poly_90k_bs16", "deeplab_v3_plus_r103"),
        ("smp_deeplabv3plus_resnet101", "smp_deeplab_v3_plus_resnet101"),
    ],
)
def test_every_published_file_fits(manifest, file, preset):
    renamed = deeplab_v3_plus.rename(manifest(file) | {"pixel_std": torch.zeros(3)})
    with torch.device("meta"):
        network = deeplab_v3_plus.PRESETS[preset].build()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}
    for name, weights in deeplab_v3_plus.WEIGHTS.items():
        assert name.startswith(weights.preset)
        assert weights.num_classes == deeplab_v3_plus.PRESETS[weights.preset].num_classes


@pytest.mark.parametrize("config", [FULL, SEPARABLE])
@pytest.mark.parametrize("encoder", [timm.Config(name="resnet18", output_stride=8), mit.Config(depths=(1, 1, 1, 1))])
def test_any_encoder_will_do_and_no_parameter_lies_idle(config, encoder):
    network = replace(config, encoder=encoder, in_channels=4).build().train()
    logits = network(torch.randn(2, 4, 64, 32))
    assert network.divisors == (max(network.encoder.strides),) * 2
    assert logits.shape == ((2, 5, 64, 32) if config.upsampling == "corners" else (2, 5, 16, 8))
    logits.mean().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("config", [FULL, SEPARABLE])
def test_bfloat16_and_channels_last_stay_close_and_keep_the_layout(config):
    torch.manual_seed(0)
    network = config.build().eval().to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    layouts = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _, inputs, output: layouts.extend(
                    tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (inputs[0], output)
                )
            )
    with torch.no_grad():
        wanted = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image)
    assert layouts and all(layouts) and logits.is_contiguous(memory_format=torch.channels_last)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through twenty layers


def test_rename_leaves_its_argument_alone_and_refuses_strangers(manifest):
    weights = manifest("smp_deeplabv3plus_resnet101")
    keys = list(weights)
    deeplab_v3_plus.rename(weights)
    assert list(weights) == keys
    for key in ("classifier.1.weight", "decoder.block3.0.weight", "sem_seg_head.decoder.res3.project_conv.weight"):
        with pytest.raises(FormatError, match=rf"hold '{key}', which no DeepLabV3\+ has"):
            deeplab_v3_plus.rename(weights | {key: torch.zeros(1)})


def test_refuses_other_sides_and_the_remedy_works():
    network = FULL.build().eval()
    with pytest.raises(ShapeError, match=r"40 x 64, .* divisible by 16; pad them to 48 x 64"):
        network(torch.zeros(1, 3, 40, 64))
    assert network(torch.zeros(1, 3, 48, 64)).shape == (1, 5, 12, 16)


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "width"])
def test_refuses_settings_that_cannot_be_meant(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(FULL, **{name: 0})
    with pytest.raises(SettingError, match=r"rates is \[\]; give at least one dilation"):
        replace(FULL, rates=())
