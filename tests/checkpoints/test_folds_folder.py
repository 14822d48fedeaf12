"""What a cross-validation is begun with is read back as it was written."""

from dataclasses import replace

import pytest

from segwright.checkpoints.folds_folder import FoldsFolder, fold_runs, is_folds_folder
from segwright.core.errors import FormatError
from segwright.core.run_files import FOLDS_FILE


@pytest.fixture
def folds(tiny_plan, tmp_path):
    plan = replace(tiny_plan, reasons={"training.steps": "a reason"})
    return FoldsFolder(folder=tmp_path / "run", plan=plan, count=3, minutes=1.5)


def test_what_is_written_reads_back_with_its_reasons(folds):
    assert not is_folds_folder(folds.folder)
    folds.write()
    assert is_folds_folder(folds.folder)
    again = FoldsFolder.read(folds.folder)
    assert again == folds and again.plan.reasons == {"training.steps": "a reason"}


def test_each_fold_has_a_folder_and_a_plan_of_its_own(folds):
    assert [run.name for run in folds.runs] == ["fold-0", "fold-1", "fold-2"]
    for run in folds.runs[:2]:
        run.mkdir(parents=True)
    assert fold_runs(folds.folder) == folds.runs[:2]
    assert [folds.plan_of(number).data.fold for number in range(3)] == [(0, 3), (1, 3), (2, 3)]
    assert folds.plan.data.fold is None


def test_a_fold_without_a_model_is_told_with_the_way_on(folds):
    for run in folds.runs:
        run.mkdir(parents=True)
        if run.name != "fold-1":
            (run / "model.safetensors").touch()
    with pytest.raises(FormatError, match="fold-1/model.safetensors is not there: .* segwright train --resume .*/run"):
        folds.model_files()
    (folds.runs[1] / "model.safetensors").touch()
    assert [file.parent for file in folds.model_files()] == folds.runs


@pytest.mark.parametrize(
    "text", ["", "[]", '{"count": 3}', '{"count": "x", "minutes": 1, "plan": {"toml": "", "reasons": {}}}']
)
def test_a_damaged_file_is_named(folds, text):
    folds.write()
    (folds.folder / FOLDS_FILE).write_text(text)
    with pytest.raises(FormatError, match="folds.json is damaged .*; put back the file that was there, or fit anew"):
        FoldsFolder.read(folds.folder)
