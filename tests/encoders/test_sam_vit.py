"""The encoder of Segment Anything against Hugging Face's. Golden parity is in tests/models/test_sam.py. Axes: B, C, H, W."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import sam_vit

SMALL = sam_vit.Config(width=32, depth=2, num_heads=4, global_blocks=(1,))


def shaken(network):
    """The network with its parameters moved away from the zeros and ones of a new one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("window", [14, 3])  # wider than the map, or cutting it
def test_equals_and_learns_like_hugging_face_live(window, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    monkeypatch.setattr(sam_vit, "GRID", 5)
    monkeypatch.setattr(sam_vit, "WINDOW", window)
    config = transformers.SamVisionConfig(
        hidden_size=32, output_channels=8, num_hidden_layers=2, num_attention_heads=4, image_size=80, window_size=window,
        global_attn_indexes=[1], num_channels=2, mlp_dim=128,
    )  # fmt: skip
    torch.manual_seed(window)
    theirs = shaken(transformers.SamVisionModel(config))
    theirs.save_pretrained(tmp_path)
    ours = SMALL.build(in_channels=2)
    ours.load_state_dict(sam_vit.rename(load_file(tmp_path / "model.safetensors")))
    image, seen = torch.randn(2, 2, 80, 80, dtype=torch.float64), []
    theirs.double().vision_encoder.neck.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    theirs(image)
    answer = ours.double().last_map(image).permute(0, 2, 3, 1)
    torch.testing.assert_close(answer, seen[0], rtol=1e-10, atol=1e-11)
    for output in (answer, seen[0]):
        output.pow(3).mean().backward()
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    wanted = sam_vit.rename({name: gradient for name, gradient in wanted.items() if "neck" not in name})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, wanted[name], rtol=1e-8, atol=1e-11, msg=lambda text, at=name: f"{at}: {text}"
        )


def test_an_image_of_any_sides_gives_four_maps():
    network = shaken(SMALL.build(in_channels=1)).eval()
    with torch.no_grad():
        image = torch.randn(1, 1, 70, 40)
        maps = network(image)
        assert [tuple(level.shape[1:]) for level in maps] == [(32, 18, 10), (32, 9, 5), (32, 5, 3), (32, 3, 2)]
        assert all(level.is_contiguous(memory_format=torch.channels_last) for level in maps)
        torch.testing.assert_close(maps[2], network.last_map(image))  # the stride of patches


def test_half_precision_and_a_trace_stay_near():
    torch.manual_seed(0)
    network = shaken(SMALL.build()).eval()
    image = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        wanted = network.last_map(image)
        with torch.autocast("cpu", torch.bfloat16):
            half = network.last_map(image)
        assert (half - wanted).norm() < 0.03 * wanted.norm()  # 8 bits of mantissa through two blocks
        traced = torch.jit.trace_module(copy.deepcopy(network), {"last_map": image}, check_trace=False)
        torch.testing.assert_close(traced.last_map(image), wanted, rtol=1e-4, atol=1e-4)


def test_positions_are_those_of_training_where_the_image_is_of_that_size(monkeypatch):
    monkeypatch.setattr(sam_vit, "GRID", 4)
    network = sam_vit.Config(width=8, depth=1, num_heads=1, global_blocks=()).build()
    with torch.no_grad():
        network.positions.copy_(torch.arange(4.0)[:, None, None].expand(4, 4, 8))  # the row
        network.embed.weight.zero_()
        for parameter in network.blocks.parameters():
            parameter.zero_()
        rows = network.last_map(torch.zeros(1, 3, 64, 64))[0, 0, :, 0]
        more = network.last_map(torch.zeros(1, 3, 128, 64))[0, 0, :, 0]
    bias = network.embed.bias[0]
    torch.testing.assert_close(rows - bias, torch.arange(4.0))
    assert len(more) == 8 and (more.diff() > 0).all()  # in their order, finer


def test_rename_refuses_strangers():
    for key in ("head.weight", "blocks.0.attn.other.weight", "blocks.0.norm1"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no encoder of Segment Anything has"):
            sam_vit.rename({key: torch.zeros(1)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 5}, "width is 768, depth 12 and num_heads 5; give a depth of 1 or more and heads that divide"),
        ({"depth": 0, "global_blocks": ()}, "depth 0"),
        ({"global_blocks": (12,)}, r"global_blocks are \[12\], and there are 12 blocks; give numbers from 0 to 11"),
    ],
)
def test_refuses_settings_that_cannot_be(settings, message):
    with pytest.raises(SettingError, match=message):
        sam_vit.Config(**settings)
