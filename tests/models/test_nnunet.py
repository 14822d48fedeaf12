"""nnU-Net's networks. Axes: B, C, K, *S."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from segwright.checkpoints.foreign_weights import read_state_dict
from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.layers.auxiliary import WithAuxiliary
from segwright.layers.norms import InstanceNorm
from segwright.models import nnunet
from segwright.tasks.semantic import Semantic

TINY = nnunet.Config(in_channels=2, num_classes=3, axes=2, features=(4, 6, 8))
THICK = replace(TINY, axes=3, strides=((1, 2, 2), (2, 2, 2)), kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)))
FORMS = [TINY, THICK, replace(TINY, is_residual=True), replace(THICK, is_residual=True)]


def of_golden(config: dict) -> nnunet.Config:
    """The config that says what the authors' arguments say."""
    given = config["kwargs"]
    tuples = lambda rows: tuple(tuple(row) for row in rows)  # noqa: E731
    return nnunet.Config(
        in_channels=given["input_channels"],
        num_classes=given["num_classes"],
        axes=len(given["strides"][0]),
        features=tuple(given["features_per_stage"]),
        strides=tuples(given["strides"][1:]),
        kernels=tuples(given["kernel_sizes"]),
        is_residual=config["class"] == "ResidualEncoderUNet",
        encoder_depths=tuple(given.get("n_blocks_per_stage", given.get("n_conv_per_stage"))),
        decoder_depths=tuple(reversed(given["n_conv_per_stage_decoder"])),
    )


def seeded(config: nnunet.Config) -> nnunet.NnUNet:
    torch.manual_seed(0)
    network = config.build().double()
    for module in network.modules():  # a scale and a shift that a norm must really apply
        if isinstance(module, InstanceNorm):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return network.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["nnunet_plain2d_a", "nnunet_plain3d_a", "nnunet_resenc2d_a"])
def test_equals_the_authors_at_every_depth(golden, name, dtype):
    file = golden(name)
    network = of_golden(file.config).build()
    network.load_state_dict(nnunet.rename(file.weights))
    network.to(dtype)
    x = image = file.input("x").to(dtype)
    with torch.no_grad():
        for number, stage in enumerate(network.eval().encoder):  # the first failure says where to look
            x = stage(x)
            file.check(f"encoder.skip{number}", x)
        file.check("logits", network(image))
        outputs = network.train()(image)
    file.check("ds0", outputs.logits)
    file.check("ds1", outputs.auxiliary[0])
    assert outputs.weights == (0.5,)


def theirs_of(config: nnunet.Config) -> nn.Module:
    """The authors' network for a config, with norms that must really be applied."""
    unet = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet",
        reason="the live comparison needs dynamic_network_architectures, which is not installed",
    )
    kind, depths = (
        (unet.ResidualEncoderUNet, "n_blocks_per_stage") if config.is_residual else (unet.PlainConvUNet, "n_conv_per_stage")
    )
    convolution, norm = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}[config.axes]
    network = kind(
        input_channels=config.in_channels,
        n_stages=len(config.features),
        features_per_stage=config.features,
        conv_op=convolution,
        kernel_sizes=config.kernels or ((3,) * config.axes,) * len(config.features),
        strides=((1,) * config.axes, *(config.strides or ((2,) * config.axes,) * (len(config.features) - 1))),
        **{depths: config.encoder_blocks},
        num_classes=config.num_classes,
        n_conv_per_stage_decoder=config.decoder_blocks[::-1],
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    ).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, norm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    return network


@pytest.mark.parametrize("config", [replace(form, features=(4, 6, 8, 8), strides=(), kernels=()) for form in FORMS] + FORMS)
def test_equals_the_authors_live_in_logits_and_gradients(config):
    torch.manual_seed(1)
    theirs, ours = theirs_of(config), config.build().double()
    ours.load_state_dict(nnunet.rename(theirs.state_dict()))
    image = torch.randn(2, 2, *(2 * divisor for divisor in ours.divisors), dtype=torch.float64)
    outputs, wanted = ours.train()(image), theirs.train()(image)
    for one, other in zip((outputs.logits, *outputs.auxiliary), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    for logits in ((outputs.logits, *outputs.auxiliary), wanted):
        sum(each.square().mean() for each in logits).backward()
    gradients = nnunet.rename({name: one.grad for name, one in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-6, atol=1e-9, msg=name)


PUBLISHED = {
    "nnunet_plainconvunet_2d": "nnunet_2d",
    "nnunet_plainconvunet_3d_fullres": "nnunet_3d_fullres",
    "nnunet_resencunet_m_2d": "nnunet_resenc_m_2d",
    "nnunet_resencunet_m_3d_fullres": "nnunet_resenc_m_3d_fullres",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_of_the_authors_fill_the_presets_strictly(manifest, name):
    weights = nnunet.rename(manifest(name))
    with torch.device("meta"):
        network = replace(nnunet.PRESETS[PUBLISHED[name]], num_classes=weights["heads.0.bias"].shape[0]).build()
    network.load_state_dict(weights, assign=True)


def test_a_checkpoint_is_read_out_of_its_envelope_and_its_compiler(golden, tmp_path):
    weights = golden("nnunet_plain2d_a").weights
    content = {f"_orig_mod.{key}": tensor for key, tensor in weights.items()}
    torch.save({"network_weights": content, "trainer_name": "nnUNetTrainer"}, tmp_path / "checkpoint_final.pth")
    found = nnunet.rename(read_state_dict(tmp_path / "checkpoint_final.pth"))
    wanted = nnunet.rename(weights)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_by_hand_the_encoder_steps_over_pixels_and_the_decoder_repeats_them():
    network = replace(TINY, in_channels=1, num_classes=1, features=(1, 1)).build().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.zero_()
                module.weight[0, 0, module.kernel_size[0] // 2, module.kernel_size[1] // 2] = 1  # the identity
        for stages in (network.encoder, network.decoder):  # norms that do nothing
            for stage in stages:
                for block in stage:
                    block[1] = nn.Identity()
        network.up[0].weight.fill_(1)  # repeats each pixel 2 x 2
        network.decoder[0][0][0].weight[0, :, 1, 1] = torch.tensor([10.0, 1])  # first what comes from below, then the skip
        image = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 5], [5, 0, 1, 1], [0, 7, 1, 1]])
        wanted = torch.tensor([[11.0, 12, 0, 0], [13, 14, 0, 5], [55, 50, 11, 11], [50, 57, 11, 11]])
        torch.testing.assert_close(network(image[None, None])[0, 0], wanted)


def test_the_shortcut_is_the_mean_of_what_the_stride_covers():
    network = replace(TINY, features=(2, 2), is_residual=True).build()
    block = network.encoder[1][0]
    block.branch[4].weight.data.zero_()
    x = torch.rand(1, 2, 4, 6)
    torch.testing.assert_close(block(x), nn.functional.avg_pool2d(x, 2))
    assert len(block.shortcut) == 1 and isinstance(network.encoder[1][1].shortcut[0], nn.Identity)


@pytest.mark.parametrize("is_residual", [False, True])
def test_slices_that_nothing_joins_are_images(is_residual):
    """Kernels of one slice and strides of 1 along the first axis: but for norms, a volume is a batch of images."""
    flat = seeded(replace(TINY, is_residual=is_residual))
    apart = {"axes": 3, "strides": ((1, 2, 2),) * 2, "kernels": ((1, 3, 3),) * 3}
    deep = seeded(replace(TINY, is_residual=is_residual, **apart))
    own = deep.state_dict()
    deep.load_state_dict({name: weight.reshape(own[name].shape) for name, weight in flat.state_dict().items()})
    image = torch.randn(1, 2, 8, 12, dtype=torch.float64)
    volume = image[:, :, None].expand(-1, -1, 3, -1, -1)  # of equal slices, whose statistics are those of one
    torch.testing.assert_close(deep(volume), flat(image)[:, :, None].expand(-1, -1, 3, -1, -1))


@pytest.mark.parametrize("config", FORMS)
def test_the_scale_of_the_image_changes_little(config):
    """Instance norms take a factor on all values out again, but for their epsilon; so they do with a bias of convolutions."""
    network = seeded(replace(config, kernels=((1,) * config.axes, *config.kernels[1:]) if config.kernels else ()))
    image = torch.randn(1, 2, *(4 * divisor for divisor in network.divisors), dtype=torch.float64)
    torch.testing.assert_close(network(100 * image), network(10 * image), rtol=1e-3, atol=1e-3)


def test_depths_and_channels_are_those_of_the_plans():
    assert TINY.encoder_blocks == (2, 2, 2) and TINY.decoder_blocks == (2, 2)
    deep = replace(TINY, features=(4,) * 8, is_residual=True)
    assert deep.encoder_blocks == (1, 3, 4, 6, 6, 6, 6, 6) and deep.decoder_blocks == (1,) * 7
    assert replace(TINY, encoder_depths=(1, 2, 3)).encoder_blocks == (1, 2, 3)
    network = replace(TINY, encoder_depths=(1, 2, 3), decoder_depths=(3, 1)).build()
    assert [len(stage) for stage in network.encoder] == [1, 2, 3] and [len(stage) for stage in network.decoder] == [3, 1]


@pytest.mark.parametrize("config", FORMS)
def test_coarser_maps_have_logits_in_training_alone(config):
    network = seeded(replace(config, features=(4, 6, 8, 8), strides=(), kernels=()))
    image = torch.randn(1, 2, *(2 * divisor for divisor in network.divisors), dtype=torch.float64)
    outputs = network.train()(image)
    assert isinstance(outputs, WithAuxiliary) and outputs.weights == (0.5, 0.25)
    assert [tuple(logits.shape[2:]) for logits in outputs.auxiliary] == [(8,) * config.axes, (4,) * config.axes]
    assert torch.equal(network.eval()(image), outputs.logits)


def test_deep_supervision_of_the_task_counts_the_coarsest_map_for_nothing_but_gives_it_a_gradient():
    network = seeded(replace(TINY, features=(4, 6, 8, 8))).train()
    task = Semantic(deep_supervision=True)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 2, 16, 16, dtype=torch.float64, generator=generator)
    batch = task.collate([("a", image[0].numpy(), torch.randint(0, 3, (16, 16), generator=generator).numpy())])
    sum(task.loss(network, batch, generator).values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.heads[1].weight.grad.any() and not network.heads[2].weight.grad.any()


def test_axes_of_a_cube_are_halved_together_by_hand():
    (strides, kernels, patch), why = nnunet.stages((1, 1, 1), (30, 32, 120))
    assert strides == ((2, 2, 2),) * 3 + ((1, 1, 2),)  # 30 has 15, 8, 4 pixels; 120 has 15 then, enough to be halved alone
    assert kernels == ((3, 3, 3),) * 5 and patch == (32, 32, 128) and "3, 3, 4 times" in why
    assert nnunet.stages((1, 1, 1), (30, 32, 80))[0][0] == ((2, 2, 2),) * 3  # 80 has 10 then


def test_thick_slices_are_joined_once_the_others_are_as_far_apart_by_hand():
    (strides, kernels, _), _ = nnunet.stages((4, 1, 1), (32, 128, 128))
    assert strides[:3] == ((1, 2, 2), (1, 2, 2), (2, 2, 2)) and kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def test_an_axis_of_one_slice_is_neither_halved_nor_joined():
    (strides, kernels, patch), _ = nnunet.stages((float("inf"), 1, 1), (1, 32, 32))
    assert patch == (1, 32, 32) and strides == ((1, 2, 2),) * 3
    assert kernels == ((1, 3, 3),) * 3 + ((3, 3, 3),)


def test_refuses_what_leaves_a_norm_nothing_to_normalise_and_the_remedies_work():
    with pytest.raises(ShapeError, match="leave one pixel .* pad the last side to 8 or build it with fewer stages"):
        TINY.build()(torch.randn(1, 2, 4, 4))
    TINY.build()(torch.randn(1, 2, 4, 8))
    replace(TINY, features=(4, 6)).build()(torch.randn(1, 2, 4, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_channels": 0}, "in_channels is 0; it must be 1 or more"),
        ({"features": (4,)}, r"features is \[4\]; give the channels, 1 or more, of at least two stages"),
        ({"strides": ((2, 2),)}, r"strides is \[\[2, 2\]\]; an nnU-Net of 3 stages on 2 axes needs 2 times 2 numbers"),
        ({"kernels": ((3, 3),)}, "kernels is .* needs 3 times 2 numbers above 0, or none at all"),
        ({"kernels": ((2, 3), (3, 3), (3, 3))}, r"kernels is \[\[2, 3\], .*; each must be odd"),
        ({"encoder_depths": (2, 2)}, r"encoder_depths is \[2, 2\]; an nnU-Net of 3 stages needs 3 numbers above 0"),
        ({"decoder_depths": (2, 0)}, r"decoder_depths is \[2, 0\]; an nnU-Net of 3 stages needs 2 numbers above 0"),
    ],
)
def test_refuses_settings_that_do_not_fit(settings, message):
    with pytest.raises(SettingError, match=message):
        replace(TINY, **settings)


def test_refuses_weights_of_another_network():
    with pytest.raises(FormatError, match="hold 'backbone.conv.weight', which no nnU-Net has; .* check that the file is a"):
        nnunet.rename({"backbone.conv.weight": torch.zeros(1)})
