"""The topology rules of nnU-Net. Axes: N images, n spatial axes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from segwright.core.errors import SettingError
from segwright.models import nnunet
from segwright.planning import nnunet_topology as rules

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = json.loads((FOLDER / "nnunet_plans.json").read_text())
REAL = {  # of fingerprints that nnU-Net has taken itself, of data that were not made up
    f"real {name}": facts | {"spacings": facts["fingerprint"]["spacings"], "shapes": facts["fingerprint"]["shapes_after_crop"]}
    for name, facts in json.loads((FOLDER / "nnunet_real.json").read_text())["sets"].items()
}
ALL = GOLDEN["sets"] | REAL
CASES = [(name, size) for name, facts in ALL.items() for size in facts["plans"]]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_plans_are_those_of_nnunet(name, size):
    facts = ALL[name]
    wanted = dict(facts["plans"][size])
    spacings, shapes = np.array(facts["spacings"]), np.array(facts["shapes"])
    found = rules.plans_for(spacings, shapes, channels=facts["channels"], num_classes=facts["labels"], size=size)
    target, _ = rules.target_spacing(spacings, shapes)
    assert list(rules.axis_order(target)[0]) == wanted.pop("transpose_forward")
    assert found.keys() == wanted.keys()
    for plan, ours in found.items():
        theirs, network = wanted[plan], ours.network
        assert ours.spacing_mm == pytest.approx(theirs["spacing"], rel=1e-12)
        assert ours.median_shape == pytest.approx(theirs["median_image_size_in_voxels"])
        assert (list(ours.patch), ours.batch_size) == (theirs["patch_size"], theirs["batch_size"])
        assert network.features == tuple(theirs["features_per_stage"]) and len(network.features) == theirs["n_stages"]
        assert [[1] * network.axes, *map(list, network.strides)] == theirs["strides"]
        assert list(map(list, network.kernels)) == theirs["kernel_sizes"]
        assert network.encoder_blocks == tuple(theirs["encoder_depths"])
        assert network.decoder_blocks == tuple(theirs["n_conv_per_stage_decoder"])
        assert network.in_channels == facts["channels"] and network.num_classes == facts["labels"]
        assert ours.reasons.keys() == {"spacing_mm", "patch", "batch_size", "strides", "kernels", "features"}
        assert not np.any(np.array(ours.patch) % np.prod(network.strides, axis=0))


@pytest.mark.parametrize(("size", "preset"), [*zip(rules.SIZES, ("", "_m", "_l", "_xl"), strict=True)])
def test_presets_are_the_networks_that_are_planned_for_ct(size, preset):
    wanted, name = GOLDEN["sets"]["ct"]["plans"][size], f"nnunet{'_resenc' * bool(preset)}{preset}"
    for plan in ("2d", "3d_fullres"):
        config = nnunet.PRESETS[f"{name}_{plan}"]
        assert list(config.features) == wanted[plan]["features_per_stage"]
        assert wanted[plan]["strides"][1:] == [[2] * config.axes] * (len(config.features) - 1)
        assert wanted[plan]["kernel_sizes"] == [[3] * config.axes] * len(config.features)
        assert list(config.encoder_blocks) == wanted[plan]["encoder_depths"]


def test_the_golden_plans_tell_the_rules_apart():
    plans = [facts["plans"][size] for facts in GOLDEN["sets"].values() for size in facts["plans"]]
    assert {tuple(each["transpose_forward"]) for each in plans} == {(0, 1, 2), (2, 0, 1)}
    assert {frozenset(each) - {"transpose_forward"} for each in plans} == {
        frozenset({"2d"}),
        frozenset({"2d", "3d_fullres"}),
        frozenset({"2d", "3d_fullres", "3d_lowres"}),
    }
    batches = {plan["batch_size"] for each in plans for name, plan in each.items() if name != "transpose_forward"}
    assert len(batches) > 5
    assert any([1, 3, 3] in each["3d_fullres"]["kernel_sizes"] for each in plans if "3d_fullres" in each)


def test_the_spacing_is_the_median_but_for_few_thick_slices():
    spacings, shapes = np.array([[1.0, 1, 1], [2, 1, 1], [3, 1, 1]]), np.array([[90, 100, 100]] * 3)
    assert rules.target_spacing(spacings, shapes) == (pytest.approx([2, 1, 1]), "the median spacing")
    thick = np.array([[5.0, 1, 1], *[[10.0, 1, 1]] * 9, [10, 1, 1]])
    few = np.array([[9, 200, 200]] * 11)
    target, why = rules.target_spacing(thick, few)
    assert target == pytest.approx([10, 1, 1]) and "along axis 0" in why
    assert rules.target_spacing(thick[:4], few[:4])[0] == pytest.approx([6.5, 1, 1])  # the tenth percentile of 5, 10, 10, 10
    mixed = np.array([[0.5, 1, 1], [0.5, 1, 1], *[[10.0, 1, 1]] * 4])
    assert rules.target_spacing(mixed, few[:6])[0] == pytest.approx([1 + 1e-5, 1, 1], abs=1e-9)  # never finer than the others
    assert rules.target_spacing(thick[:, 1:], few[:, 1:])[0].tolist() == [1, 1]


@pytest.mark.parametrize("is_residual", [False, True])
@pytest.mark.parametrize("axes", [2, 3])
def test_values_of_maps_are_those_that_convolutions_make(is_residual, axes):
    network = nnunet.Config(
        axes=axes, features=(2, 3, 5), strides=((2,) * axes, (1,) + (2,) * (axes - 1)), is_residual=is_residual, num_classes=4
    )
    built, made = network.build().eval(), []
    for name, module in built.named_modules():
        if hasattr(module, "stride") and hasattr(module, "weight") and not name.startswith(("heads.1",)):
            module.register_forward_hook(lambda _, __, out: made.append(out.numel()))
    patch = (16,) * axes
    with torch.no_grad():
        built(torch.zeros(1, 1, *patch))
    assert rules.map_values(network, patch) == sum(made)


def test_more_memory_never_gives_less():
    facts = GOLDEN["sets"]["ct"]
    found = [
        rules.plans_for(np.array(facts["spacings"]), np.array(facts["shapes"]), channels=1, num_classes=3, memory_gb=memory_gb)[
            "3d_fullres"
        ]
        for memory_gb in (2, 4, 8, 16)
    ]
    pixels = [np.prod(plan.patch) * plan.batch_size for plan in found]
    assert pixels == sorted(pixels) and len(set(pixels)) == 4


def test_images_of_two_axes_have_one_plan_that_equals_that_of_one_slice():
    facts = GOLDEN["sets"]["cells"]
    spacings, shapes = np.array(facts["spacings"]), np.array(facts["shapes"])
    flat, deep = (rules.plans_for(spacings[:, k:], shapes[:, k:], channels=3, num_classes=2) for k in (1, 0))
    assert flat == deep and list(flat) == ["2d"]


def test_a_batch_covers_a_part_of_the_data_set_at_most():
    plain, residual = rules.SIZES["nnUNetPlans"], rules.SIZES["nnUNetResEncUNetMPlans"]
    assert rules.batch_for((10, 10), 10_000, room=9.4, size=plain) == (5, "5% of the pixels of the data set, with room for 9.4")
    assert rules.batch_for((10, 10), 10_000, room=9.4, size=residual) == (9, "there is room for 9.4")
    assert rules.batch_for((10, 10), 1_000, room=9.4, size=plain) == (2, "the smallest, with room for 9.4")


def test_refuses_a_size_that_is_none_and_a_memory_that_holds_nothing():
    with pytest.raises(SettingError, match="size is 'large'; give one of nnUNetPlans, nnUNetResEncUNetMPlans"):
        rules.plans_for(np.ones((1, 3)), np.full((1, 3), 64), channels=1, num_classes=2, size="large")
    with pytest.raises(SettingError, match="0.001 GB of memory are too little .*; give more, such as 0.002 GB"):
        rules.plans_for(np.ones((1, 3)), np.full((1, 3), 64), channels=1, num_classes=2, memory_gb=0.001)
