"""The encoder of SAM 2 against Hugging Face's. Golden parity is in tests/models/test_sam2.py. Axes: B, C, H, W."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import hiera

SMALL = hiera.Config(width=8, depths=(1, 2, 2, 1), global_blocks=(4,), windows=(4, 2, 6, 3), position_side=3)


def shaken(network):
    """The network with its parameters moved away from the zeros and ones of a new one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def test_equals_and_learns_like_hugging_face_live(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    config = transformers.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[96, 96], blocks_per_stage=[1, 2, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8], window_size_per_stage=[4, 2, 6, 3],
        global_attention_blocks=[4], window_positional_embedding_background_size=[3, 3],
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = shaken(transformers.models.sam2.modeling_sam2.Sam2HieraDetModel(config))
    theirs.save_pretrained(tmp_path)
    ours = SMALL.build()
    ours.load_state_dict(hiera.rename(load_file(tmp_path / "model.safetensors")))
    ours, theirs, image = ours.double(), theirs.double(), torch.randn(2, 3, 96, 96, dtype=torch.float64)
    answers = ours(image), [level.permute(0, 3, 1, 2) for level in theirs(image).intermediate_hidden_states]
    for level, wanted in zip(*answers, strict=True):
        torch.testing.assert_close(level, wanted, rtol=1e-9, atol=1e-10)
    for maps in answers:
        sum(level.pow(3).mean() for level in maps).backward()
    wanted = hiera.rename({name: parameter.grad for name, parameter in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, wanted[name], rtol=1e-7, atol=1e-10, msg=lambda text, at=name: f"{at}: {text}"
        )


def test_an_image_of_any_sides_gives_four_maps_that_the_padding_does_not_change():
    torch.manual_seed(0)
    network = shaken(SMALL.build(in_channels=1)).eval()
    with torch.no_grad():
        image = torch.randn(1, 1, 70, 40)
        maps = network(image)
        assert [tuple(level.shape[1:]) for level in maps] == [(8, 18, 10), (16, 9, 5), (32, 5, 3), (64, 3, 2)]
        assert all(level.is_contiguous(memory_format=torch.channels_last) for level in maps[3:])
        padded = network(torch.nn.functional.pad(image, (0, 24, 0, 26)))
        for level, wider in zip(maps, padded, strict=True):
            torch.testing.assert_close(level, wider[:, :, : level.shape[2], : level.shape[3]])


def test_by_hand_pooling_takes_the_largest_of_four():
    x = torch.tensor([[1.0, 5, 2, 0], [3, 4, 7, 1]])[None, :, :, None]
    assert hiera.pool_largest(x).flatten().tolist() == [5, 7]


def test_positions_are_a_coarse_map_and_a_repeated_window():
    network = hiera.Config(width=4, depths=(1, 1, 1, 1), global_blocks=(), position_side=1).build()
    with torch.no_grad():
        network.positions.fill_(2)
        network.window_positions.copy_(torch.arange(8.0)[:, None].expand(4, 8, 8))  # the row within a window
        places = network._places(16, 24)
    assert places.shape == (16, 24, 4)
    assert places[:, 5, 0].tolist() == pytest.approx([2 + row % 8 for row in range(16)])


def test_half_precision_and_a_trace_stay_near():
    torch.manual_seed(0)
    network = shaken(SMALL.build()).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        wanted = network(image)[-1]
        with torch.autocast("cpu", torch.bfloat16):
            half = network(image)[-1]
        assert (half - wanted).norm() < 0.05 * wanted.norm()  # 8 bits of mantissa through six blocks
        traced = torch.jit.trace(copy.deepcopy(network), image, check_trace=False)
        torch.testing.assert_close(traced(image)[-1], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 10, "num_heads": 3}, "width is 10, num_heads 3 .* heads that divide the width"),
        ({"depths": (1, 2, 7)}, r"depths are \[1, 2, 7\] .* give 4 of each"),
        ({"windows": (8, 4, 7, 7)}, r"windows are \[8, 4, 7, 7\].* give even ones"),
        ({"global_blocks": (3,)}, r"0 to 11, and 1, 3, 10 halve the map .*: leave out 3"),
        ({"global_blocks": (12,)}, "leave out 12"),
    ],
)
def test_refuses_settings_that_cannot_be(settings, message):
    with pytest.raises(SettingError, match=message):
        hiera.Config(**settings)


def test_rename_refuses_strangers():
    with pytest.raises(FormatError, match=r"hold 'blocks.0.attn.other.weight', which no Hiera"):
        hiera.rename({"image_encoder.trunk.blocks.0.attn.other.weight": torch.zeros(1)})
