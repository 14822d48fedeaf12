"""UPerNet and its Swin Transformer against the authors' and Hugging Face's. Axes: B, C, K, H, W."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import resnet, swin
from segwright.layers.auxiliary import WithAuxiliary
from segwright.models import upernet

SWIN = swin.Config(width=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 4), window=4, drop_path=0.0)  # of the golden files
SMALL = upernet.Config(num_classes=5, decoder_width=16, dropout=0.0, encoder=SWIN)
BASIC = resnet.Config(block="basic", depths=(1, 1, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_encoder_equals_hugging_faces_golden_at_every_depth(golden, dtype):
    reference = golden("mask2former_hf_a")
    before = "model.pixel_level_module.encoder."
    weights = {key.removeprefix(before): value for key, value in reference.weights.items() if key.startswith(before)}
    encoder = SWIN.build().eval()
    encoder.load_state_dict(swin.rename(weights))
    with torch.no_grad():
        maps = encoder.to(dtype)(reference.input("pixel_values").to(dtype))
    for number, level in enumerate(maps):
        reference.check(f"backbone.stage{number + 1}", level)


def test_the_encoder_equals_the_authors_golden_at_every_depth(golden):
    """The one of Mask2Former, which holds Swin as the authors wrote it for segmentation; it was not run in float64."""
    reference = golden("m2f_official_swin_a")
    weights = {key.removeprefix("backbone."): value for key, value in reference.weights.items() if key.startswith("backbone.")}
    encoder = SWIN.build().eval()
    encoder.load_state_dict(swin.rename(weights))
    mean, std = (torch.tensor(reference.config[name])[:, None, None] for name in ("PIXEL_MEAN", "PIXEL_STD"))
    with torch.no_grad():
        maps = encoder((reference.input("image0").float() - mean)[None] / std)
    for number, level in enumerate(maps):
        reference.check(f"backbone.res{number + 2}", level)


def hugging_face(**options):
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    encoder = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.UperNetConfig(
        backbone_config=encoder, hidden_size=16, auxiliary_channels=8, num_labels=5, auxiliary_in_channels=32, **options
    )
    return transformers.UperNetForSemanticSegmentation(config)


def taken_over(theirs, folder) -> upernet.UPerNet:
    """Our network with the weights of theirs, by the names of the hub."""
    theirs.save_pretrained(folder)
    ours = SMALL.build()
    ours.load_state_dict(upernet.rename(load_file(folder / "model.safetensors")))
    return ours


def test_equals_hugging_face_live(tmp_path):
    torch.manual_seed(0)
    theirs = hugging_face()
    with torch.no_grad():
        for tensor in theirs.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand_like(tensor))  # away from a new network's zeros and ones; variances stay positive
    ours, theirs = taken_over(theirs, tmp_path).double().eval(), theirs.double().eval()
    for sides in ((64, 96), (60, 77)):  # the second fills no stride
        image = torch.randn(2, 3, *sides, dtype=torch.float64)
        with torch.no_grad():
            maps = ours.encoder(image)
            logits = F.interpolate(ours.head(maps), size=sides, mode="bilinear", align_corners=False)
            torch.testing.assert_close(logits, theirs(image).logits, rtol=1e-9, atol=1e-9)
            second = theirs.auxiliary_head(theirs.backbone(image).feature_maps)
            torch.testing.assert_close(ours.auxiliary(maps[-2]), second, rtol=1e-9, atol=1e-9)


def test_follows_hugging_faces_training_for_twenty_steps(tmp_path):
    torch.manual_seed(1)
    theirs = hugging_face().train()
    ours = taken_over(theirs, tmp_path).double().train()
    theirs.double()
    images = torch.randn(20, 2, 3, 64, 64, dtype=torch.float64)
    truths = torch.randint(0, 5, (20, 2, 8, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    optimisers = [torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9) for network in (ours, theirs)]
    losses = []
    for image, truth in zip(images, truths, strict=True):
        outputs = ours(image)
        terms = [(outputs.logits, 1.0), *zip(outputs.auxiliary, outputs.weights, strict=True)]
        large = [(F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False), by) for logits, by in terms]
        loss = sum(by * F.cross_entropy(logits, truth) for logits, by in large)
        wanted = theirs(image, labels=truth).loss
        for value, optimiser in zip((loss, wanted), optimisers, strict=True):
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        losses.append((loss.item(), wanted.item()))
    for ours_at, theirs_at in losses:
        assert ours_at == pytest.approx(theirs_at, rel=1e-6)
    assert losses[0][0] != pytest.approx(losses[-1][0], rel=1e-3)  # something was learnt


def test_the_published_file_fits(manifest):
    with torch.device("meta"):
        network = upernet.PRESETS["upernet_swin_tiny"].build()
    renamed = upernet.rename(manifest("hf_upernet_swin_tiny"))
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}


def test_mmsegmentations_names_fit():
    """A ResNet behind three 3x3 convolutions, and heads whose norms are called bn."""
    network = replace(SMALL, encoder=replace(BASIC, stem="3x3", stem_width=8)).build()
    parts = {
        "encoder": "backbone", "head.classify": "decode_head.conv_seg",
        "auxiliary.2": "auxiliary_head.conv_seg", "auxiliary.0": "auxiliary_head.convs.0",
        "head.context": "decode_head.bottleneck", "head.join": "decode_head.fpn_bottleneck",
        **{f"head.pooled.{number}": f"decode_head.psp_modules.{number}.1" for number in range(4)},
        **{f"head.lateral.{number}": f"decode_head.lateral_convs.{number}" for number in range(3)},
        **{f"head.smooth.{number}": f"decode_head.fpn_convs.{number}" for number in range(3)},
    }  # fmt: skip
    file = {}
    for name, tensor in network.state_dict().items():
        here = next(part for part in parts if name.startswith(f"{part}."))
        rest = name.removeprefix(f"{here}.")
        if here == "encoder":
            rest = rest.replace("conv1.", "stem.", 1) if rest.startswith("conv1.") else rest
            rest = rest.replace("bn1.", "stem.7.", 1) if rest.startswith("bn1.") else rest
        elif "classify" not in here and here != "auxiliary.2":
            rest = rest.replace("0.", "conv.", 1) if rest.startswith("0.") else rest.replace("1.", "bn.", 1)
        file[f"{parts[here]}.{rest}"] = tensor
    renamed = upernet.rename(file)
    assert renamed.keys() == network.state_dict().keys()
    assert all(torch.equal(renamed[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("size", "millions"), [("tiny", 60), ("small", 81), ("base", 121), ("large", 234)])
def test_each_published_size_has_the_published_number_of_parameters(size, millions):
    with torch.device("meta"):
        network = upernet.PRESETS[f"upernet_swin_{size}"].build()
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def test_what_is_known_of_weights_fits_the_presets():
    for weights in upernet.WEIGHTS.values():
        assert upernet.PRESETS[weights.preset].num_classes == weights.num_classes


@pytest.mark.parametrize(("output_stride", "second"), [(32, 4), (8, 8)])
def test_another_encoder_takes_the_place_and_every_parameter_learns(output_stride, second):
    config = replace(SMALL, in_channels=4, encoder=replace(BASIC, output_stride=output_stride))
    network = config.build().train()
    assert network.divisors == (output_stride,) * 2
    outputs = network(torch.randn(2, 4, 64, 64))
    assert isinstance(outputs, WithAuxiliary) and outputs.weights == (0.4,)
    assert outputs.logits.shape == (2, 5, 16, 16) and outputs.auxiliary[0].shape == (2, 5, second, second)
    (outputs.logits.mean() + outputs.auxiliary[0].mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())  # of the stem too
    assert network.eval()(torch.randn(1, 4, 64, 64)).shape == (1, 5, 16, 16)


def test_bfloat16_and_channels_last_stay_close_and_keep_the_layout():
    torch.manual_seed(0)
    network = SMALL.build().eval().to(memory_format=torch.channels_last)
    network.head.classify.weight.data.normal_()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.bfloat16 and logits.is_contiguous(memory_format=torch.channels_last)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through a dozen layers


def test_refuses_one_image_in_training_and_the_remedy_works():
    network = SMALL.build().train()
    with pytest.raises(ShapeError, match="pools to 1 x 1, .* train with two images or more at a time"):
        network(torch.randn(1, 3, 64, 64))
    network(torch.randn(2, 3, 64, 64))


@pytest.mark.parametrize(("name", "least"), [("in_channels", 1), ("num_classes", 1), ("decoder_width", 2)])
def test_refuses_settings_that_are_too_small(name, least):
    with pytest.raises(SettingError, match=f"{name} is {least - 1}; it must be {least} or more"):
        replace(SMALL, **{name: least - 1})


def test_rename_names_strangers():
    for key in ("decode_head.psp_modules.4.1.conv.weight", "decode_head.join.conv.weight", "classifier.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no UPerNet has; .* check that the file holds a UPerNet"):
            upernet.rename({key: torch.zeros(1)})
