"""TinyViT against timm's. Parity with MobileSAM's own code is in tests/models/test_sam.py. Axes: B, C, H, W."""

import copy

import pytest
import torch

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import tiny_vit

SMALL = tiny_vit.Config(widths=(16, 32, 32, 48), num_heads=(2, 4, 3))


def shaken(network):
    """The network with its parameters and statistics moved away from the zeros and ones of a new one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("output_stride", [16, 32])
def test_equals_and_learns_like_timm_live(output_stride):
    from timm.models.tiny_vit import TinyVit  # from timm: its registered sizes are large

    torch.manual_seed(output_stride)
    theirs = shaken(TinyVit(embed_dims=SMALL.widths, num_heads=(1, *SMALL.num_heads), drop_path_rate=0.0)).double().eval()
    if output_stride == 16:  # as MobileSAM does
        theirs.stages[3].downsample.conv2.conv.stride = (1, 1)
    ours = tiny_vit.Config(widths=SMALL.widths, num_heads=SMALL.num_heads, output_stride=output_stride).build().double().eval()
    ours.load_state_dict(tiny_vit.rename(theirs.state_dict()))
    image = torch.randn(2, 3, 72, 96, dtype=torch.float64)  # neither windows of 7 nor of 14 fill the maps
    x, wanted = theirs.patch_embed(image), []
    for stage in theirs.stages:
        x = stage(x)
        wanted.append(x)
    found = ours(image)
    assert ours.strides == (4, 8, 16, output_stride)
    for level, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(level, other, rtol=1e-9, atol=1e-10)
    for last in (found[-1], wanted[-1]):
        last.pow(3).mean().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    gradients = tiny_vit.rename(gradients)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, gradients[name], rtol=1e-7, atol=1e-11, msg=lambda text, at=name: f"{at}: {text}"
        )


@pytest.mark.parametrize("name", ["tiny_vit_5m", "tiny_vit_11m", "tiny_vit_21m"])
def test_every_size_is_timms(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        theirs = timm.create_model(f"{name}_224").state_dict()
        ours = tiny_vit.PRESETS[name].build().state_dict()
    renamed = tiny_vit.rename(theirs)
    assert {key: value.shape for key, value in renamed.items()} == {key: value.shape for key, value in ours.items()}


def test_an_image_of_any_sides_gives_four_maps():
    network = SMALL.build(in_channels=1).eval()
    with torch.no_grad():
        maps = network(torch.randn(1, 1, 70, 37))
    assert [tuple(level.shape[1:]) for level in maps] == [(16, 18, 10), (32, 9, 5), (32, 5, 3), (48, 3, 2)]
    assert network.channels == SMALL.widths


def test_a_trace_stays_near():
    torch.manual_seed(0)
    network = shaken(SMALL.build()).eval()
    image = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        traced = torch.jit.trace(copy.deepcopy(network), image, check_trace=False)
        for level, wanted in zip(traced(image), network(image), strict=True):
            torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-4)


def test_paths_are_dropped_in_training_alone():
    torch.manual_seed(0)
    network = shaken(tiny_vit.Config(widths=SMALL.widths, num_heads=SMALL.num_heads, drop_path=0.9).build())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(network(image)[-1], network(image)[-1])
        network.eval()
        assert torch.equal(network(image)[-1], network(image)[-1])


def test_rename_refuses_strangers():
    for key in ("blocks.0.attn.qkv.weight", "layers.1.blocks.0.attn.other.weight", "patch_embed.seq.1.c.weight"):
        with pytest.raises(FormatError, match=f"hold '{key}', which no TinyViT has"):
            tiny_vit.rename({key: torch.zeros(1)})
    assert tiny_vit.rename({"head.weight": torch.zeros(1), "norm_head.bias": torch.zeros(1)}) == {}


def test_refuses_heads_that_do_not_divide():
    with pytest.raises(SettingError, match="the 128 channels of stage 2 do not divide among 3 heads; give heads that divide"):
        tiny_vit.Config(num_heads=(3, 5, 10))
