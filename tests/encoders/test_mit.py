"""Mix Transformer. Parity with the authors at each stage is in tests/models/test_segformer.py. Axes: B, C, H, W."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import mit

MANIFESTS = Path(__file__).parents[3] / "shared" / "parity" / "manifests"
SMALL = mit.Config(hidden_sizes=(8, 16, 24, 32), num_heads=(1, 2, 3, 4), depths=(1, 1, 2, 1))


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
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.skipif(not MANIFESTS.exists(), reason="the lists of published tensors lie in ../shared/parity, which is absent")
@pytest.mark.parametrize("size", range(6))
def test_the_authors_imagenet_files_fit(size):
    tensors = json.loads((MANIFESTS / f"nvlabs_mit_b{size}_imagenet_backbone.json").read_text())["tensors"]
    with torch.device("meta"):
        file = {key: torch.empty(shape) for key, shape in tensors.items()} | {"head.weight": torch.empty(1000, 1)}
        encoder = mit.PRESETS[f"mit_b{size}"].build()
        assert {k: v.shape for k, v in mit.rename(file).items()} == {k: v.shape for k, v in encoder.state_dict().items()}


def test_refuses_channels_that_heads_cannot_share_and_the_remedy_works():
    with pytest.raises(SettingError, match="8 channels do not divide among 3 heads; give each stage a multiple"):
        replace(SMALL, num_heads=(3, 2, 3, 4))
    replace(SMALL, num_heads=(3, 2, 3, 4), hidden_sizes=(9, 16, 24, 32))


def test_rename_names_the_stranger():
    for key in ("block1.0.attn.qkv.weight", "patch_embed1.bn.weight", "pos_embed"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no Mix Transformer has; .* check the file"):
            mit.rename({key: torch.zeros(1)})
