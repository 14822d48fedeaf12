"""Vision Transformer against timm's and transformers' DINOv2 and DINOv3. Axes: B, C, H, W, h, w, N, Q, A, D."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segwright.core.errors import FormatError, SettingError
from segwright.encoders import vit

SMALL = vit.Config(width=128, depth=3, grid=4)


def shaken(network: nn.Module) -> nn.Module:
    """The network in float64, its parameters away from the zeros and ones of a new one."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network.double().eval()


def hugging_face(form: str, gated: bool) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="the live comparison needs transformers")
    settings = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=2, patch_size=16, image_size=64)
    if form == "dinov2":
        config = transformers.Dinov2WithRegistersConfig(
            **settings, num_register_tokens=4, use_swiglu_ffn=gated, layer_norm_eps=1e-6
        )
        return shaken(transformers.Dinov2WithRegistersModel(config))
    inside = 344 if gated else 512
    config = transformers.DINOv3ViTConfig(
        **settings, num_register_tokens=4, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu", intermediate_size=inside
    )
    return shaken(transformers.DINOv3ViTModel(config))


def last_tokens(network: vit.VisionTransformer, image: torch.Tensor) -> torch.Tensor:
    tokens, rotation = network.embed(image)
    for block in network.blocks:
        tokens = block(tokens, rotation)
    return network.norm(tokens)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("form", ["dinov2", "dinov3"])
def test_equals_transformers_live(form, gated):
    torch.manual_seed(0)
    theirs = hugging_face(form, gated)
    ours = replace(SMALL, form=form, has_gated_mlp=gated).build().double().eval()
    ours.load_state_dict(vit.rename(theirs.state_dict()))
    exact = form == "dinov2"  # the places of the other are computed in single precision there
    for sides in [(64, 64)] if exact else [(64, 64), (48, 112)]:
        image = torch.randn(2, 3, *sides).double()
        with torch.no_grad():
            wanted, tokens = theirs(image).last_hidden_state, last_tokens(ours, image)
        torch.testing.assert_close(tokens, wanted, **(dict(rtol=1e-9, atol=1e-9) if exact else dict(rtol=1e-4, atol=1e-4)))


def timm_vit(grid: int, patch: int = 16) -> nn.Module:
    timm = pytest.importorskip("timm", reason="the live comparison needs timm")
    return timm.models.VisionTransformer(
        img_size=patch * grid, patch_size=patch, embed_dim=128, depth=3, num_heads=2, num_classes=0, reg_tokens=4,
        no_embed_class=True, init_values=1e-5,
    )  # fmt: skip


def test_takes_weights_of_other_patches_and_images_as_timm_does():
    """Positions of 4 x 4 for more, for fewer and for sides that differ; patches of 14 to 16."""
    from timm.layers import resample_abs_pos_embed, resample_patch_embed

    torch.manual_seed(0)
    theirs = shaken(timm_vit(4, patch=14))
    ours = SMALL.build().double().eval()
    ours.load_state_dict(vit.rename(theirs.state_dict()))
    for h, w in ((4, 4), (6, 6), (3, 3), (5, 2), (1, 9)):
        wanted = resample_abs_pos_embed(theirs.pos_embed, [h, w], num_prefix_tokens=0)[0]
        torch.testing.assert_close(vit.resampled_positions(ours.positions, h, w), wanted, rtol=1e-5, atol=1e-6)  # float32 there
    wanted = resample_patch_embed(theirs.patch_embed.proj.weight, [16, 16])
    torch.testing.assert_close(ours.embed_patches.weight, wanted, rtol=1e-4, atol=1e-5)
    wide = timm_vit(4).double().eval()
    wide.load_state_dict(theirs.state_dict() | {"patch_embed.proj.weight": ours.embed_patches.weight.data})
    image = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad():
        tokens = wide.forward_features(image)
        torch.testing.assert_close(last_tokens(ours, image), tokens, rtol=1e-9, atol=1e-9)


def test_resampling_is_torchs_bicubic_with_antialias():
    for old, new in ((37, 40), (37, 8), (5, 5), (3, 11), (4, 1)):
        line = torch.randn(1, 1, 1, old, dtype=torch.float64)
        wanted = F.interpolate(line, (1, new), mode="bicubic", antialias=True, align_corners=False)[0, 0, 0]
        torch.testing.assert_close(torch.from_numpy(vit.resampling(old, new)) @ line[0, 0, 0], wanted, rtol=1e-9, atol=1e-9)
    assert (vit.resampling(7, 7).round(12) == torch.eye(7).numpy()).all()


def test_an_enlarged_patch_says_what_it_said():
    weight = torch.randn(2, 3, 14, 14, dtype=torch.float64)
    patch = torch.randn(3, 14, 14, dtype=torch.float64)
    enlarge = torch.from_numpy(vit.resampling(14, 16))
    enlarged = enlarge @ patch @ enlarge.T
    renamed = vit.rename({"patch_embed.proj.weight": weight})["embed_patches.weight"]
    torch.testing.assert_close((renamed * enlarged).sum((1, 2, 3)), (weight * patch).sum((1, 2, 3)))


def test_a_position_of_the_class_token_is_added_to_it():
    weights = {
        "cls_token": torch.ones(1, 1, 8),
        "register_tokens": torch.zeros(1, 4, 8),
        "pos_embed": torch.cat([torch.full((1, 1, 8), 2.0), torch.full((1, 9, 8), 5.0)], dim=1),
        "mask_token": torch.zeros(1, 8),
    }
    ours = vit.rename(weights)
    assert ours.keys() == {"prefix", "positions"} and ours["positions"].shape == (9, 8) and (ours["positions"] == 5).all()
    assert (ours["prefix"][0] == 3).all() and not ours["prefix"][1:].any() and ours["prefix"].shape == (5, 8)


def test_the_authors_names_of_dinov3_are_known():
    """Theirs have biases of keys, with a mask that takes them away, and the periods of the rotation."""
    network = replace(SMALL, form="dinov3", depth=1).build()
    ours = network.state_dict()
    theirs = {
        "cls_token": ours["prefix"][None, :1],
        "storage_tokens": ours["prefix"][None, 1:],
        "mask_token": torch.zeros(1, 128),
        "rope_embed.periods": torch.zeros(16),
        "patch_embed.proj.weight": ours["embed_patches.weight"],
        "patch_embed.proj.bias": ours["embed_patches.bias"],
        "blocks.0.attn.qkv.bias_mask": torch.zeros(384),
        "norm.weight": ours["norm.weight"],
        "norm.bias": ours["norm.bias"],
        "blocks.0.ls1.gamma": ours["blocks.0.attention_scale"],
        "blocks.0.ls2.gamma": ours["blocks.0.mlp_scale"],
    }
    parts = {
        "norm1": "attention_norm",
        "attn.qkv": "query_key_value",
        "attn.proj": "output",
        "norm2": "mlp_norm",
        "mlp.fc1": "widen",
        "mlp.fc2": "narrow",
    }
    for there, here in parts.items():
        theirs |= {f"blocks.0.{there}.{kind}": ours[f"blocks.0.{here}.{kind}"] for kind in ("weight", "bias")}
    renamed = vit.rename(theirs)
    assert renamed.keys() == ours.keys() and all(torch.equal(renamed[name], ours[name]) for name in ours)


@pytest.mark.parametrize("size", ["small", "giant"])
def test_presets_are_the_published_networks(size):
    timm = pytest.importorskip("timm", reason="the comparison of layouts needs timm")
    with torch.device("meta"):
        theirs = timm.create_model(f"vit_{size}_patch14_reg4_dinov2", num_classes=0)
        ours = vit.PRESETS[f"vit_{size}_dinov2"].build()
    renamed = vit.rename(theirs.state_dict())
    assert {key: each.shape for key, each in renamed.items()} == {key: each.shape for key, each in ours.state_dict().items()}


@pytest.mark.parametrize("form", ["dinov2", "dinov3"])
def test_a_bias_of_keys_moves_nothing(form):
    """Of all keys alike it moves no softmax; where keys are turned by their places it would, so they have none."""
    torch.manual_seed(0)
    network, image = replace(SMALL, form=form).build().double().eval(), torch.randn(1, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        before = last_tokens(network, image)
        for block in network.blocks:
            block.query_key_value.bias[:256] = 3.0
        moved = last_tokens(network, image)
        for block in network.blocks:
            block.query_key_value.bias[128:256] = -5.0
        torch.testing.assert_close(last_tokens(network, image), moved)
    assert not torch.allclose(before, moved)  # that of queries does


def test_turning_tells_how_patches_lie_apart_and_nothing_else():
    query, key = (torch.randn(1, 1, 1, 64, dtype=torch.float64).expand(1, 1, 12, 64) for _ in range(2))
    turns = vit.patch_rotation(3, 4, 1.0, query)
    products = (vit.turned(query, turns) @ vit.turned(key, turns).mT)[0, 0].view(3, 4, 3, 4)
    torch.testing.assert_close(products[:2, :3, :2, :3], products[1:, 1:, 1:, 1:])
    assert not torch.allclose(products[0, 0, 0, 1], products[0, 0, 1, 0])
    still = turns.after(2)
    assert still.cos.shape == (14, 32) and (still.cos[:2] == 1).all() and not still.sin[:2].any()


def test_what_is_not_visible_is_not_seen():
    """As by the formula, with a mask of all tokens by all."""
    torch.manual_seed(0)
    block, tokens = replace(SMALL, depth=1).build().double().blocks[0], torch.randn(2, 9, 128, dtype=torch.float64)
    visible = torch.rand(2, 3, 9) > 0.5
    visible[..., 0] = True
    parts = block.query_key_value(block.attention_norm(tokens)).view(2, 9, 3, 2, 64).permute(2, 0, 3, 1, 4)
    scores = parts[0] @ parts[1].mT / 8
    scores[:, :, :3] = scores[:, :, :3].masked_fill(~visible[:, None], -torch.inf)
    seen = tokens + block.output((scores.softmax(-1) @ parts[2]).transpose(1, 2).flatten(2))
    wanted = seen + block.narrow(F.gelu(block.widen(block.mlp_norm(seen))))
    torch.testing.assert_close(block(tokens, None, visible), wanted)


def test_gives_other_networks_four_maps_of_any_image():
    torch.manual_seed(0)
    for form in ("dinov2", "dinov3"):
        network = replace(SMALL, form=form).build(in_channels=2).eval()
        image = torch.randn(1, 2, 70, 33)
        with torch.no_grad():
            maps = network(image)
            tokens = last_tokens(network, F.pad(image, (0, 15, 0, 10)))
        assert [level.shape for level in maps] == [(1, 128, 18, 9), (1, 128, 9, 5), (1, 128, 5, 3), (1, 128, 3, 2)]
        torch.testing.assert_close(maps[2].flatten(2).mT, tokens[:, 5:])
        assert network.channels == (128,) * 4 and network.strides == (4, 8, 16, 32)


def test_places_are_scaled_in_training_by_what_the_generator_draws():
    network = replace(SMALL, form="dinov3").build()
    image = torch.randn(1, 3, 48, 48)
    seeded = [network.embed(image, torch.Generator().manual_seed(seed))[1].cos for seed in (0, 0, 1)]
    assert torch.equal(seeded[0], seeded[1]) and not torch.allclose(seeded[0], seeded[2])
    generator = torch.Generator().manual_seed(0)
    scales = torch.stack([vit.drawn_scale(generator, image.device) for _ in range(400)])
    assert 0.5 <= scales.min() < 0.55 and 1.9 < scales.max() <= 2.0
    assert scales.log().mean().abs() < 0.06  # as likely above 1 as below
    network.eval()
    assert torch.equal(network.embed(image)[1].cos, network.embed(image)[1].cos)


def test_says_what_is_wrong():
    with pytest.raises(SettingError, match="width is 100; heads have 64 channels, so give a multiple of 64, such as 384"):
        vit.Config(width=100)
    with pytest.raises(SettingError, match="depth is 0; give 1 or more"):
        vit.Config(depth=0)
    with pytest.raises(FormatError, match="'head.weight', which no Vision Transformer has"):
        vit.rename({"head.weight": torch.zeros(1)})
    with pytest.raises(FormatError, match="have query and key but no value; take the whole file"):
        vit.rename({f"layers.0.attention.{part}_proj.weight": torch.zeros(4, 4) for part in "qk"})
