"""Name to module."""

import sys
from pathlib import Path

import pytest

from segwright import core
from segwright.core.errors import UnknownNameError
from segwright.core.lookup import class_name, did_you_mean, find, names

CORE = sorted(path.stem for path in Path(core.__file__).parent.glob("*.py") if path.stem != "__init__")


def test_the_name_is_the_file_name():
    assert names("segwright.core") == CORE
    assert find("segwright.core", "grid").__name__ == "segwright.core.grid"


def test_a_folder_is_read_once_and_each_list_is_ones_own(monkeypatch):
    names("segwright.core").clear()
    monkeypatch.setattr("segwright.core.lookup.iter_modules", None)
    assert names("segwright.core") == CORE


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("unet", "Unet"),
        ("weighted_sum", "WeightedSum"),
        ("segwright.losses.weighted_sum", "WeightedSum"),
        ("a.unet_2d", "Unet2d"),
    ],
)
def test_the_class_that_a_module_is_called_after(module, name):
    assert class_name(module) == name


def test_listing_imports_no_module(tmp_path, monkeypatch):
    (tmp_path / "a_folder").mkdir()
    (tmp_path / "a_folder" / "__init__.py").touch()
    (tmp_path / "a_folder" / "broken.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert names("a_folder") == ["broken"]
    assert "a_folder.broken" not in sys.modules
    with pytest.raises(RuntimeError, match="imported"):
        find("a_folder", "broken")


def test_a_dotted_name_is_a_users_own_module(tmp_path, monkeypatch):
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "net.py").write_text("ANSWER = 42")
    monkeypatch.syspath_prepend(tmp_path)
    assert find("segwright.core", "their_package.net").ANSWER == 42


@pytest.mark.parametrize(
    ("name", "answer"),
    [("grdi", ", did you mean 'grid'?"), ("segmentations", ", did you mean 'segmentation'?"), ("xyzzy", ""), ("", "")],
)
def test_the_nearest_name(name, answer):
    assert did_you_mean(name, CORE) == answer


@pytest.mark.parametrize(
    ("folder", "what"),
    [("models", "model"), ("losses", "loss"), ("metrics", "metric"), ("formats", "format"), ("encoders", "encoder")],
)
def test_an_unknown_name_is_called_by_its_kind(folder, what):
    with pytest.raises(UnknownNameError, match=f"there is no {what} 'qqqqqqq'; known are"):
        find(f"segwright.{folder}", "qqqqqqq")


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match=f"there is no core 'grdi', did you mean 'grid'?.*known are {', '.join(CORE)}"):
        find("segwright.core", "grdi")
    find("segwright.core", "grid")


@pytest.mark.parametrize("name", ["no_such_package.net", "segwright.no_such_module", "a..b", "a."])
def test_a_dotted_name_that_is_not_installed(name):
    with pytest.raises(UnknownNameError, match="cannot be imported .*; install the package that holds it"):
        find("segwright.core", name)


@pytest.mark.parametrize("name", [".", ".grid", "..core.grid"])
def test_a_relative_name_is_no_name(name):
    with pytest.raises(UnknownNameError, match="there is no core"):
        find("segwright.core", name)
