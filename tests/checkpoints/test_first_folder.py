"""The first run of a cascade in the folder of the second."""

import shutil

import pytest
import torch

from segwright.checkpoints.first_folder import copy_first, first_of
from segwright.checkpoints.folds_folder import FoldsFolder
from segwright.checkpoints.model_file import read_tensors, write_tensors
from segwright.core.errors import FormatError, OutputError


def files_below(folder) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()
    }


def run_at(folder, text: str):
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "state.safetensors", "log.jsonl", "report.html"):
        (folder / name).write_text(f"{text} {name}")
    return folder


def test_only_what_prediction_needs_is_copied_and_it_moves_with_the_folder(tmp_path):
    first, second = run_at(tmp_path / "low", "low"), run_at(tmp_path / "high", "high")
    copy_first(first, second)
    assert files_below(second / "first") == {"model.safetensors": "low model.safetensors"}
    shutil.rmtree(first)
    moved = second.rename(tmp_path / "moved")
    assert first_of(moved) == moved / "first"


def test_a_model_file_and_a_cascade_can_be_first_too(tmp_path):
    coarse, low, second = (run_at(tmp_path / name, name) for name in ("coarse", "low", "high"))
    copy_first(coarse, low)
    copy_first(low / "model.safetensors", second)
    assert files_below(second / "first") == {
        "model.safetensors": "low model.safetensors",
        "first/model.safetensors": "coarse model.safetensors",
    }


def test_all_runs_of_folds_are_copied(tmp_path, tiny_plan):
    folds = FoldsFolder(folder=tmp_path / "low", plan=tiny_plan, count=2, minutes=None)
    folds.write()
    run_at(tmp_path / "low" / "fold-0", "0")
    second = run_at(tmp_path / "high", "high")
    with pytest.raises(FormatError, match="fold-1/model.safetensors is not there: the cross-validation .* was not finished"):
        copy_first(folds.folder, second)
    run_at(tmp_path / "low" / "fold-1", "1")
    write_tensors(folds.runs[1] / "state.safetensors", {"network/a": torch.ones(9)}, {"state": "{}"})
    copy_first(folds.folder, second)
    names = {"plan.toml", "folds.json", "fold-0/model.safetensors", "fold-1/model.safetensors", "fold-1/state.safetensors"}
    assert read_tensors(second / "first" / "fold-1" / "state.safetensors") == ({}, {"state": "{}"})
    assert files_below(second / "first").keys() == names
    assert FoldsFolder.read(second / "first").model_files()


def test_a_folder_that_is_missing_is_told_with_the_remedy(tmp_path):
    second = run_at(tmp_path / "high", "high")
    with pytest.raises(FormatError, match="first is not there, and the model in .* needs the first network .* copy the whole"):
        first_of(second)
    (second / "first").write_text("in the way")
    with pytest.raises(OutputError, match="cannot copy .*low into .*high"):
        copy_first(run_at(tmp_path / "low", "low"), second)
