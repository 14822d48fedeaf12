"""SegFormer against the authors' network and Hugging Face's. Axes: B, C, K, H, W."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.encoders import mit, timm
from segwright.models import segformer

GOLDEN = Path(__file__).parents[1] / "golden"
MANIFESTS = Path(__file__).parents[3] / "shared" / "parity" / "manifests"
SMALL = segformer.Config(
    num_classes=5,
    decoder_width=16,
    encoder=mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 2, 1)),
)


def published(preset: str, *, num_classes: int) -> segformer.Config:
    return replace(segformer.PRESETS[preset], num_classes=num_classes)


class Twin(nn.Module):
    """The decoder as the authors describe it: project, upsample, concatenate deepest first, mix."""

    def __init__(self, decoder: segformer.Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, maps):
        levels = []
        for level, project in zip(maps, self.decoder.project, strict=True):
            tokens = project(level.flatten(2).mT)  # (B, H*W, E)
            level = tokens.mT.unflatten(2, level.shape[2:])
            levels.append(F.interpolate(level, size=maps[0].shape[2:], mode="bilinear", align_corners=False))
        mixed = self.decoder.fuse(torch.cat(levels[::-1], dim=1))
        return self.decoder.classify(self.decoder.dropout(F.relu(self.decoder.norm(mixed))))


@pytest.mark.parametrize(("name", "image", "norm_eps"), [("hf", "pixel_values", 1e-5), ("nvlabs", "x", 1e-6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_reference_at_every_depth(name, image, norm_eps, dtype):
    arrays = load_file(GOLDEN / f"segformer_{name}_a.safetensors")
    meta = json.loads((GOLDEN / f"segformer_{name}_a.json").read_text())
    network = replace(SMALL, encoder=replace(SMALL.encoder, norm_eps=norm_eps)).build().eval()
    network.load_state_dict(segformer.rename({k[2:]: v for k, v in arrays.items() if k.startswith("w/")}))
    network.to(dtype)
    with torch.no_grad():
        maps = network.encoder(arrays[f"in/{image}"].to(dtype))
        outputs = {f"stage{i + 1}": level for i, level in enumerate(maps)} | {"logits": network.decoder(maps)}
    for depth in ("stage1", "stage2", "stage3", "stage4", "logits"):  # the first failure says where to look
        noise = meta["outputs"][depth]["f32_vs_f64_maxdiff"]  # of the reference itself, which ran in float32
        limits = {"atol": 2 * noise, "rtol": 0} if dtype == torch.float64 else meta["tolerance"][depth]
        torch.testing.assert_close(outputs[depth].to(torch.float32), arrays[f"out/{depth}"], **limits)


@pytest.mark.parametrize("sides", [(64, 96), (60, 76)])  # the second: rows that do not fill a stride
def test_equals_hugging_face_live(sides, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    config = transformers.SegformerConfig(
        num_labels=4, hidden_sizes=[8, 16, 40, 32], depths=[1, 2, 1, 1], num_attention_heads=[1, 2, 5, 4],
        mlp_ratios=[4, 2, 3, 4], sr_ratios=[4, 2, 2, 1], decoder_hidden_size=24, num_channels=2,
    )  # fmt: skip
    torch.manual_seed(sum(sides))
    theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for tensor in [*theirs.parameters(), theirs.decode_head.batch_norm.running_mean]:
            tensor.add_(0.2 * torch.randn_like(tensor))  # away from the zeros and ones of a new network
    theirs.save_pretrained(tmp_path)  # under the names of the hub
    ours = segformer.Config(
        in_channels=2,
        num_classes=4,
        decoder_width=24,
        encoder=mit.Config(
            hidden_sizes=(8, 16, 40, 32), depths=(1, 2, 1, 1), num_heads=(1, 2, 5, 4),
            mlp_ratios=(4, 2, 3, 4), sr_ratios=(4, 2, 2, 1), norm_eps=1e-5,
        ),
    ).build().eval()  # fmt: skip
    ours.load_state_dict(segformer.rename(load_file(tmp_path / "model.safetensors")))
    image = torch.randn(2, 2, *sides, dtype=torch.float64)
    with torch.no_grad():
        wanted = theirs.double()(image, output_hidden_states=True)
        maps = ours.double().encoder(image)
        for level, other in zip(maps, wanted.hidden_states, strict=True):
            torch.testing.assert_close(level, other, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(ours.decoder(maps), wanted.logits, rtol=1e-9, atol=1e-9)


def test_trains_like_hugging_face_live(tmp_path):
    """Gradients of the products of weights are those of the layers one after the other."""
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    config = transformers.SegformerConfig(
        num_labels=5, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], num_attention_heads=[1, 2, 3, 4],
        decoder_hidden_size=16, drop_path_rate=0.0, classifier_dropout_prob=0.0,
    )  # fmt: skip
    theirs = transformers.SegformerForSemanticSegmentation(config)
    theirs.save_pretrained(tmp_path)
    ours = replace(SMALL, dropout=0.0, encoder=replace(SMALL.encoder, drop_path=0.0, norm_eps=1e-5)).build()
    ours.load_state_dict(segformer.rename(load_file(tmp_path / "model.safetensors")))
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    ours.double().train()(image).square().mean().backward()
    theirs.double().train()(image).logits.square().mean().backward()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)  # gradients leave by the same door as weights
    theirs.save_pretrained(tmp_path)
    wanted = segformer.rename(load_file(tmp_path / "model.safetensors"))
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].double(), rtol=1e-7, atol=1e-10, msg=name)


@pytest.mark.skipif(not MANIFESTS.exists(), reason="the lists of published tensors lie in ../shared/parity, which is absent")
def test_every_published_file_fits():
    paths = sorted(MANIFESTS.glob("*_segformer_b?_*.json"))
    assert len(paths) >= 19  # Hugging Face: six sizes on two data sets; the authors: seven
    for path in paths:
        _, _, size, data = path.stem.split("_")
        tensors = json.loads(path.read_text())["tensors"]
        with torch.device("meta"):
            renamed = segformer.rename({key: torch.empty(shape) for key, shape in tensors.items()})
            network = published(f"segformer_{size}", num_classes=150 if data == "ade" else 19).build()
        assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in network.state_dict().items()}, path.stem


@pytest.mark.parametrize("sides", [(32, 64), (96, 32)])
def test_the_decoder_equals_its_slow_twin(sides):
    torch.manual_seed(0)
    network = SMALL.build().double().eval()
    network.decoder.norm.running_mean.normal_()
    network.decoder.fuse.weight.data.normal_()
    maps = network.encoder(torch.randn(2, 3, *sides, dtype=torch.float64))
    torch.testing.assert_close(network.decoder(maps), Twin(network.decoder)(maps), rtol=1e-10, atol=1e-12)


def test_each_published_size_has_the_published_number_of_parameters():
    wanted = {"b0": 3.75, "b1": 13.72, "b2": 27.46, "b3": 47.34, "b4": 64.11, "b5": 84.71}  # millions, of the ADE20K files
    for name, millions in wanted.items():
        with torch.device("meta"):
            network = segformer.PRESETS[f"segformer_{name}"].build()
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(millions * 1e6, abs=6e3)


def test_a_timm_network_can_take_the_encoders_place():
    network = segformer.Config(in_channels=4, num_classes=3, decoder_width=8, encoder=timm.Config(name="resnet18")).build()
    logits = network(torch.randn(2, 4, 64, 32))
    assert logits.shape == (2, 3, 16, 8)
    logits.mean().backward()
    assert all(p.grad is not None for p in network.parameters())  # none lies idle, which distributed training would refuse


def test_bfloat16_and_channels_last_stay_close_and_keep_the_layout():
    torch.manual_seed(0)
    network = SMALL.build().eval().to(memory_format=torch.channels_last)
    network.decoder.classify.weight.data.normal_()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image.to(memory_format=torch.channels_last))
    assert logits.dtype == torch.bfloat16 and logits.is_contiguous(memory_format=torch.channels_last)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()  # 8 bits of mantissa through ten layers


def test_rename_leaves_its_argument_alone_and_refuses_strangers():
    weights = {k[2:]: v for k, v in load_file(GOLDEN / "segformer_hf_a.safetensors").items() if k.startswith("w/")}
    keys = list(weights)
    segformer.rename(weights)
    assert list(weights) == keys
    for key in ("decode_head.linear_d.0.proj.weight", "auxiliary.weight", "segformer.encoder.block.0.0.other.weight"):
        with pytest.raises(FormatError, match=f"hold '{key.removeprefix('segformer.')}', which no"):
            segformer.rename(weights | {key: torch.zeros(1)})
    del weights["segformer.encoder.block.0.0.attention.self.value.weight"]
    with pytest.raises(FormatError, match=r"attention.key.weight but not stages.0.blocks.0.attention.value.weight"):
        segformer.rename(weights)


def test_refuses_other_sides_and_the_remedy_works():
    network = SMALL.build().eval()
    with pytest.raises(ShapeError, match=r"40 x 64, .* divisible by 32; pad them to 64 x 64"):
        network(torch.zeros(1, 3, 40, 64))
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 5, 16, 16)


@pytest.mark.parametrize("name", ["in_channels", "num_classes", "decoder_width"])
def test_refuses_settings_below_one(name):
    with pytest.raises(SettingError, match=f"{name} is 0; it must be 1 or more"):
        replace(SMALL, **{name: 0})
