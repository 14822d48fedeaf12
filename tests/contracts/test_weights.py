"""What every file says of published weights; a new file is tested by being there."""

import re
from collections import Counter
from math import isfinite

import pytest

from segwright.core.lookup import find, names
from segwright.core.weights import Weights

FOLDERS = ("segwright.models", "segwright.encoders")
FILES = [(folder, file) for folder in FOLDERS for file in names(folder)]
TABLES = [(folder, file, name) for folder, file in FILES for name in getattr(find(folder, file), "WEIGHTS", {})]
ADDRESS = re.compile(r"https://[\w.-]+(/[\w.%~+-]+)+|(hf|package)://[\w-]+/[\w.-]+(/[\w.-]+)*")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl")


def test_names_are_given_once():
    keys = [name for folder, file in FILES for name in getattr(find(folder, file), "WEIGHTS", {})]
    presets = [name for folder, file in FILES for name in getattr(find(folder, file), "PRESETS", {})]
    assert [name for name, count in Counter(keys + presets).items() if count > 1] == []
    assert [name for name in keys if not re.fullmatch(r"[a-z0-9_.]+", name) or name == "timm"] == []


@pytest.mark.parametrize(("folder", "file", "name"), TABLES)
def test_an_entry_is_whole(folder, file, name):
    module = find(folder, file)
    weights: Weights = module.WEIGHTS[name]
    assert weights.preset in module.PRESETS
    assert ADDRESS.fullmatch(weights.address) and weights.address.endswith(SUFFIXES), weights.address
    assert weights.licence.strip() and weights.trained_on.strip()
    assert weights.sha256 is None or re.fullmatch(r"[0-9a-f]{6,64}", weights.sha256)
    if weights.sha256 and (digest := re.search(r"-([0-9a-f]{8})\.\w+$", weights.address)):
        assert weights.sha256.startswith(digest[1])  # as torch names its files
    if "download.pytorch.org" in weights.address:
        assert weights.licence == "unstated (code BSD)"
    assert len(weights.intake.mean) == len(weights.intake.std) == 3
    assert all(isfinite(value) and value >= 0 for value in weights.intake.mean) and min(weights.intake.std) > 0


@pytest.mark.parametrize(("folder", "file", "name"), TABLES)
def test_classes_are_those_of_its_kind(folder, file, name):
    module = find(folder, file)
    weights = module.WEIGHTS[name]
    if folder == "segwright.encoders":
        assert weights.classes == 0  # maps alone
    elif hasattr(module.PRESETS[weights.preset], "num_classes"):
        assert weights.num_classes > 0
        for data, count in (("ADE20K", 150), ("Cityscapes", 19), ("Pascal VOC", 21)):
            if weights.trained_on.startswith(data):
                assert weights.num_classes == count


@pytest.mark.parametrize(("folder", "file", "name"), TABLES)
def test_a_score_says_of_which_data(folder, file, name):
    score = find(folder, file).WEIGHTS[name].score
    assert score is None or re.match(r"[\d.]+ .+ on \S+", score), score


@pytest.mark.parametrize(("folder", "file", "name"), TABLES)
def test_its_layout_is_known(folder, file, name):
    module = find(folder, file)
    is_ours = module.WEIGHTS[name].address.startswith("package://")
    assert is_ours or hasattr(module, "rename"), "published files have names of their authors: rename puts them under ours"
