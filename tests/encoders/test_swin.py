"""Swin Transformer against Hugging Face's and timm's. Golden parity is in tests/models/test_upernet.py. Axes: B, C, H, W."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import swin

MANIFESTS = Path(__file__).parents[3] / "shared" / "parity" / "manifests"
SMALL = swin.Config(width=8, depths=(2, 1, 2, 1), num_heads=(1, 2, 2, 4), window=4, drop_path=0.0)


def shaken(network):
    """The network with its parameters moved away from the zeros and ones of a new one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def hugging_face(in_channels: int = 2):
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    config = transformers.SwinConfig(
        embed_dim=8, depths=[2, 1, 2, 1], num_heads=[1, 2, 2, 4], window_size=4, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"], num_channels=in_channels,
    )  # fmt: skip
    return shaken(transformers.SwinBackbone(config))


def hub_weights(network, folder):
    """What a network of Hugging Face's saves, under the names of the hub."""
    network.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def test_equals_hugging_face_live(tmp_path):
    torch.manual_seed(0)
    theirs = hugging_face()
    ours = SMALL.build(in_channels=2)
    ours.load_state_dict(swin.rename(hub_weights(theirs, tmp_path)))
    ours, theirs = ours.double().eval(), theirs.double().eval()
    for sides in ((64, 96), (60, 76), (97, 45), (7, 33)):  # all but the first leave windows, merges or patches unfilled
        image = torch.randn(2, 2, *sides, dtype=torch.float64)
        with torch.no_grad():
            wanted, maps = theirs(image).feature_maps, ours(image)
        formula = [level.detach() for level in ours(image)]  # attention takes another way where gradients are asked
        for level, other, again in zip(maps, wanted, formula, strict=True):
            torch.testing.assert_close(level, other, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(again, other, rtol=1e-10, atol=1e-12)


def test_learns_like_hugging_face_live(tmp_path):
    torch.manual_seed(1)
    theirs = hugging_face()
    ours = SMALL.build(in_channels=2)
    ours.load_state_dict(swin.rename(hub_weights(theirs, tmp_path)))
    image = torch.randn(2, 2, 52, 76, dtype=torch.float64)
    sum(level.pow(3).mean() for level in ours.double().train()(image)).backward()
    sum(level.pow(3).mean() for level in theirs.double().train()(image).feature_maps).backward()
    with torch.no_grad():
        for parameter in theirs.parameters():  # its last norm, which no map passes, has no gradient
            parameter.copy_(torch.zeros(()) if parameter.grad is None else parameter.grad)
    wanted = swin.rename(hub_weights(theirs, tmp_path))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, wanted[name], rtol=1e-9, atol=1e-12, msg=lambda text, at=name: f"{at}: {text}"
        )


def test_equals_timm_live():
    """At sides that windows fill: timm shifts before it pads, the authors' segmentation code and Hugging Face after."""
    timm = pytest.importorskip("timm", reason="the live comparison needs timm")
    torch.manual_seed(2)
    theirs = shaken(
        timm.create_model(
            "swin_tiny_patch4_window7_224", embed_dim=8, depths=(2, 1, 2, 1), num_heads=(1, 2, 2, 4), window_size=4,
            img_size=128, always_partition=True, strict_img_size=False, num_classes=5,
        )
    ).double().eval()  # fmt: skip
    ours = SMALL.build().double().eval()
    ours.load_state_dict(swin.rename(theirs.state_dict()))
    image = torch.randn(2, 3, 128, 256, dtype=torch.float64)
    with torch.no_grad():
        wanted = theirs.forward_intermediates(image, intermediates_only=True)
        for level, other in zip(ours(image), wanted, strict=True):
            tokens = other.permute(0, 2, 3, 1)
            normed = F.layer_norm(tokens, tokens.shape[-1:]).permute(0, 3, 1, 2)  # timm gives maps out without a norm
            torch.testing.assert_close(level, normed, rtol=1e-9, atol=1e-11)


def files() -> list[str]:
    return sorted(path.stem for pattern in ("m2f_swin_*", "hf_*swin*") for path in MANIFESTS.glob(f"{pattern}.json"))


@pytest.mark.skipif(not MANIFESTS.exists(), reason="the lists of published tensors lie in ../shared/parity, which is absent")
def test_the_encoders_of_all_published_files_fit():
    assert len(files()) >= 9  # the authors' Mask2Former, Hugging Face's, its MaskFormer and UPerNet
    for name in files():
        tensors = json.loads((MANIFESTS / f"{name}.json").read_text())["tensors"]
        begins = [before for before in ("model.pixel_level_module.encoder.", "backbone.") if any(map(starts(before), tensors))][
            0
        ]
        with torch.device("meta"):
            part = {key.removeprefix(begins): torch.empty(tensors[key]) for key in tensors if key.startswith(begins)}
            network = swin.PRESETS["swin_tiny"].build()
        assert {k: v.shape for k, v in swin.rename(part).items()} == {k: v.shape for k, v in network.state_dict().items()}, name


def starts(before: str):
    return lambda key: key.startswith(before)


AUTHORS = {  # their names of the parts of a block, where ours are beside
    "attention_norm": "norm1", "attention.query_key_value": "attn.qkv", "attention.output": "attn.proj",
    "mlp_norm": "norm2", "widen": "mlp.fc1", "narrow": "mlp.fc2",
}  # fmt: skip


def authors(network) -> dict[str, torch.Tensor]:
    """Our weights under the names of the authors' segmentation code."""
    named = {}
    for name, tensor in network.state_dict().items():
        match name.split("."):
            case ["stages", stage, "blocks", block, "attention", "bias_table"]:
                key = f"layers.{stage}.blocks.{block}.attn.relative_position_bias_table"
            case ["stages", stage, "blocks", block, *part, kind]:
                key = f"layers.{stage}.blocks.{block}.{AUTHORS['.'.join(part)]}.{kind}"
            case ["stages", stage, "merge", part, kind]:
                key = f"layers.{int(stage) - 1}.downsample.{part.replace('reduce', 'reduction')}.{kind}"
            case ["stages", stage, "norm", kind]:
                key = f"norm{stage}.{kind}"
            case [part, kind]:
                key = f"patch_embed.{ {'embed': 'proj', 'embed_norm': 'norm'}[part] }.{kind}"
        named[key] = tensor
    return named


def test_the_authors_imagenet_files_fit_and_norms_of_maps_begin_at_one():
    network = SMALL.build()
    file = {key: tensor for key, tensor in authors(network).items() if not key.startswith("norm")}
    file |= {"norm.weight": torch.zeros(64), "head.weight": torch.zeros(1000, 64)}
    file |= {
        "layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16),
        "layers.0.blocks.0.attn.relative_position_index": torch.ones(1),
    }
    renamed = swin.rename(file)
    wanted = network.state_dict()  # whose norms are new
    assert renamed.keys() == wanted.keys() and all(torch.equal(renamed[name], wanted[name]) for name in wanted)


def test_mmsegmentations_merges_are_put_into_our_order():
    torch.manual_seed(3)
    scale, shift, matrix = torch.randn(32), torch.randn(32), torch.randn(16, 32)
    file = {"norm.weight": scale, "norm.bias": shift, "reduction.weight": matrix}
    renamed = swin.rename({f"stages.0.downsample.{name}": tensor for name, tensor in file.items()})
    merge = SMALL.build().stages[1].merge
    merge.load_state_dict({name.removeprefix("stages.1.merge."): tensor for name, tensor in renamed.items()})
    x = torch.randn(2, 8, 6, 4)
    pieces = F.unfold(x, 2, stride=2).mT  # (B, 6, 4C), as mmsegmentation takes them
    wanted = F.linear(F.layer_norm(pieces, (32,), scale, shift), matrix).view(2, 3, 2, 16)
    torch.testing.assert_close(merge(x.permute(0, 2, 3, 1)), wanted)


def test_mmsegmentations_names_fit():
    network = SMALL.build()
    file = {}
    for key, tensor in authors(network).items():
        key = key.replace("layers.", "stages.").replace("patch_embed.proj.", "patch_embed.projection.")
        key = key.replace("attn.", "attn.w_msa.").replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        file[key] = tensor
    network.load_state_dict(swin.rename(file))


@pytest.mark.parametrize(("depth", "reach"), [(1, (0, 16)), (2, (0, 24))])
def test_a_pixel_sees_its_window_and_through_a_shift_its_neighbours(depth, reach):
    """Windows of 4 pixels are 16 of the image; the shift by 2 pixels makes one of 8 to 24, which no pixel left of 8 is in."""
    encoder = shaken(replace(SMALL, depths=(depth, 1, 1, 1)).build(in_channels=1)).double()
    image = torch.randn(1, 1, 48, 48, dtype=torch.float64, requires_grad=True)
    at = 0 if depth == 1 else 3  # the pixel whose view is looked at: in the first window, and in the shifted one from 2 to 5
    encoder(image)[0][0, :, at, at].sum().backward()
    seen = image.grad[0, 0].abs().amax(dim=1).nonzero().flatten()
    window_end = 16 if depth == 1 else 32  # the shifted window holds pixels of the first two windows
    assert (seen.min(), seen.max()) == (reach[0], window_end - 1)


@pytest.mark.parametrize("sides", [(32, 64), (33, 70)])
def test_maps_have_their_strides_rounded_up_and_channels_last_memory(sides):
    encoder = SMALL.build(in_channels=2)
    maps = encoder(torch.randn(2, 2, *sides))
    for level, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert level.shape == (2, channels, *(-(-side // stride) for side in sides))
        assert level.is_contiguous(memory_format=torch.channels_last)


def test_the_last_block_is_dropped_most():
    encoder = replace(SMALL, drop_path=0.2).build()
    rates = [block.drop_path.rate for stage in encoder.stages for block in stage.blocks]
    assert rates == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16, 0.2])


def test_bfloat16_stays_close():
    torch.manual_seed(0)
    encoder, image = SMALL.build().eval(), torch.randn(2, 3, 60, 76)
    with torch.no_grad():
        wanted = encoder(image)
        with torch.autocast("cpu", torch.bfloat16):
            maps = encoder(image)
    for level, other in zip(maps, wanted, strict=True):
        assert (level - other).abs().max() < 0.05 * other.abs().max()  # 8 bits of mantissa through a dozen layers


def test_an_exporter_gets_by():
    encoder, image = SMALL.build(), torch.randn(1, 3, 60, 76)
    exported = torch.export.export(encoder.eval(), (image,)).module()
    for level, other in zip(exported(image), encoder(image), strict=True):
        torch.testing.assert_close(level, other)


@pytest.mark.parametrize(("size", "millions"), {"tiny": 27.5, "small": 48.8, "base": 86.9, "large": 195.2}.items())
def test_each_published_size_has_the_published_number_of_parameters(size, millions):
    """Those of the ImageNet files, 28, 50, 88 and 197 million, less a classifier of 1000 classes and one norm, with four."""
    with torch.device("meta"):
        encoder = swin.PRESETS[f"swin_{size}"].build()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == pytest.approx(millions * 1e6, rel=2e-3)


def test_refuses_settings_that_cannot_be_and_the_remedies_work():
    with pytest.raises(
        SettingError, match=r"the 8 channels of stage 1 do not divide among 3 heads; give each stage heads that"
    ):
        replace(SMALL, num_heads=(3, 2, 2, 4))
    replace(SMALL, num_heads=(2, 4, 8, 16))
    with pytest.raises(SettingError, match="window is 1; .* give 2 or more"):
        replace(SMALL, window=1)
    replace(SMALL, window=2)


def test_rename_names_strangers_and_what_is_missing():
    for key in ("layers.0.blocks.0.attn.q.weight", "encoder.layers.0.pool.weight", "patch_embed.bn.weight", "norm5.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no Swin Transformer has; .* check the file"):
            swin.rename({key: torch.zeros(1)})
    query = {"encoder.layers.0.blocks.0.attention.self.query.weight": torch.zeros(1, 1)}
    with pytest.raises(
        FormatError, match=r"attention.query.weight but not stages.0.blocks.0.attention.key.weight; take the whole"
    ):
        swin.rename(query)
