"""Model folders of nnU-Net, as nnunetv2 wrote them."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from segwright.checkpoints.nnunet_folder import NnunetFolder, is_nnunet_folder
from segwright.core.errors import FormatError
from segwright.models import nnunet

MODELS = Path(__file__).parent.parent / "golden" / "nnunet_models"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of a model to change."""
    return Path(shutil.copytree(MODELS / "even_3d_fullres", tmp_path / "model"))


def change(folder: Path, file: str, edit) -> None:
    content = json.loads((folder / file).read_text())
    edit(content)
    (folder / file).write_text(json.dumps(content))


def test_everything_is_read_by_hand(folder):
    assert is_nnunet_folder(folder) and not is_nnunet_folder(folder.parent)
    found = NnunetFolder.read(folder)
    plans = json.loads((folder / "plans.json").read_text())
    plan = plans["configurations"]["3d_fullres"]
    assert found.patch == tuple(plan["patch_size"]) and found.spacing_mm == tuple(plan["spacing"])
    assert found.network.features == (4, 6, 8) and not found.network.is_residual and found.network.num_classes == 3
    assert found.mirrored == (-3, -2, -1) and found.region_numbers is None and not found.is_photograph
    assert found.meaning.classes.names == ("background", "a", "b")
    assert [scheme.name for scheme in found.channels] == ["ZScoreNormalization"]
    assert len(found.folds) == 2
    for weights in found.folds:
        found.network.build().load_state_dict(weights)
    first, second = (weights["heads.0.weight"] for weights in found.folds)
    assert not torch.equal(first, second)


def test_flat_networks_mirror_their_own_axes():
    assert NnunetFolder.read(MODELS / "even_2d").mirrored == (-2, -1)


def test_plans_of_earlier_versions_say_the_same(folder):
    wanted = NnunetFolder.read(folder).network

    def older(plans):
        plan = plans["configurations"]["3d_fullres"]
        given = plan.pop("architecture")["arch_kwargs"]
        plan |= {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 4,
            "unet_max_num_features": 8,
            "pool_op_kernel_sizes": given["strides"],
            "conv_kernel_sizes": given["kernel_sizes"],
            "n_conv_per_stage_encoder": given["n_conv_per_stage"],
            "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
        }

    change(folder, "plans.json", older)
    found = NnunetFolder.read(folder).network
    assert found.features == (4, 8, 8)  # doubled up to the maximum
    assert (found.strides, found.kernels, found.encoder_depths) == (wanted.strides, wanted.kernels, wanted.encoder_depths)


def test_a_configuration_takes_over_what_it_does_not_say(folder):
    def inherit(plans):
        plans["configurations"]["base"] = plans["configurations"]["3d_fullres"]
        plans["configurations"]["3d_fullres"] = {"inherits_from": "base", "patch_size": [4, 8, 8]}

    wanted = NnunetFolder.read(folder)
    change(folder, "plans.json", inherit)
    found = NnunetFolder.read(folder)
    assert found.patch == (4, 8, 8) and found.network == wanted.network


def test_a_checkpoint_of_a_compiled_network_is_read(folder):
    file = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["network_weights"] = {f"_orig_mod.{key}": tensor for key, tensor in content["network_weights"].items()}
    wanted = {name: tensor.clone() for name, tensor in NnunetFolder.read(folder).folds[0].items()}  # the file is replaced
    torch.save(content, file)
    found = NnunetFolder.read(folder).folds[0]
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


class Program:
    """What a checkpoint must not be able to run."""

    def __reduce__(self):
        return (print, ("was run",))


def test_refuses_a_checkpoint_that_holds_a_program(folder, capsys):
    file = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save(content | {"trainer_name": Program()}, file)
    with pytest.raises(FormatError, match="holds .*print, which may be a program"):
        NnunetFolder.read(folder)
    assert capsys.readouterr().out == ""


def test_refuses_a_folder_without_a_final_checkpoint_and_the_remedy_works(folder):
    for fold in (0, 1):
        (folder / f"fold_{fold}" / "checkpoint_final.pth").rename(folder / f"fold_{fold}" / "checkpoint_best.pth")
    with pytest.raises(
        FormatError, match=r"has no fold_\*/checkpoint_final.pth, .*; finish it, or rename checkpoint_best.pth so"
    ):
        NnunetFolder.read(folder)
    (folder / "fold_1" / "checkpoint_best.pth").rename(folder / "fold_1" / "checkpoint_final.pth")
    assert len(NnunetFolder.read(folder).folds) == 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda plan: plan.update(previous_stage="3d_lowres"), "previous_stage of 3d_fullres is a cascade"),
        (
            lambda plan: plan.update(resampling_fn_data="resample_torch"),
            "resampling of 3d_fullres is not by splines and linear",
        ),
        (lambda plan: plan["resampling_fn_data_kwargs"].update(order=1), "resampling of 3d_fullres is not by splines"),
        (lambda plan: plan.update(normalization_schemes=["Mine"]), "normalization_schemes of 3d_fullres is not among"),
        (lambda plan: plan["architecture"].update(network_class_name="a.b.MyNet"), "the network is a MyNet; PlainConvUNet and"),
        (lambda plan: plan["architecture"]["arch_kwargs"]["strides"][0].__setitem__(0, 2), r"the first stride is \[2, 1, 1\]"),
        (lambda plan: plan.pop("patch_size"), r"are not as nnU-Net 2 writes them \(KeyError: 'patch_size'\); copy the folder"),
    ],
)
def test_refuses_plans_that_it_does_not_know(folder, edit, message):
    change(folder, "plans.json", lambda plans: edit(plans["configurations"]["3d_fullres"]))
    with pytest.raises(FormatError, match=message):
        NnunetFolder.read(folder)


def test_refuses_a_reader_that_turns_axes(folder):
    change(folder, "plans.json", lambda plans: plans.update(image_reader_writer="NibabelIOWithReorient"))
    with pytest.raises(
        FormatError, match="image_reader_writer of 3d_fullres is one that turns axes before; predict with nnU-Net"
    ):
        NnunetFolder.read(folder)


def test_refuses_files_that_are_damaged(folder):
    (folder / "plans.json").write_text("{")
    with pytest.raises(FormatError, match="plans.json cannot be read .*; a model folder of nnU-Net has it"):
        NnunetFolder.read(folder)


def test_regions_write_the_numbers_of_the_dataset(folder):
    def regions(content):
        content["labels"] = {"background": 0, "all": [1, 2, 3], "some": [2, 3], "core": 3, "ignore": 4}
        content["regions_class_order"] = [1, 2, 3]

    change(folder, "dataset.json", regions)
    found = NnunetFolder.read(folder)
    assert found.region_numbers == (1, 2, 3) and found.network.num_classes == 3
    assert isinstance(found.network, nnunet.Config)
