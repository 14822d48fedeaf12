"""The table of models."""

import json

import pytest

from segwright import models
from segwright.core.errors import UnknownNameError
from segwright.core.lookup import find, names
from segwright.models import unet

FILES = {file: find("segwright.models", file).PRESETS for file in names("segwright.models")}
SIZES = json.loads(models.SIZES.read_text(encoding="utf-8"))
REMEDY = "write sizes.json anew: python docs/make_models.py"


@pytest.fixture(scope="module")
def rows():
    return models.list_models()


def test_by_hand(rows):
    assert models.preset("unet_small") == unet.Config(width=32, max_width=512)
    row = next(row for row in rows if row.name == "unet")
    assert row.file == "unet"
    assert row.parameters_m == 31.04
    assert row.paper == (
        "U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger, Fischer, Brox 2015, arXiv 1505.04597)"
    )


@pytest.mark.parametrize(("name", "config"), [pair for presets in FILES.values() for pair in presets.items()])
def test_sizes_are_what_is_counted(name, config):
    assert SIZES.get(name) == models.network_size(config), REMEDY


def test_sizes_are_of_networks_that_there_are_and_rows_have_them(rows):
    assert list(SIZES) == [row.name for row in rows], REMEDY
    for row in rows:
        assert {"parameters_m": row.parameters_m, "gflops": row.gflops, "sides": list(row.sides)} == SIZES[row.name]


def test_a_network_that_nobody_counted_yet_is_counted(monkeypatch):
    config = unet.Config(width=4, depth=3)
    monkeypatch.setitem(unet.PRESETS, "unet_new", config)
    row = next(row for row in models.list_models() if row.name == "unet_new")
    assert (row.parameters_m, row.gflops, row.sides) == tuple(models.network_size(config).values())[:2] + ((512, 512),)
    assert row.gflops > 0


def test_every_preset_has_one_name_one_row_and_its_own_config(rows):
    every = [name for presets in FILES.values() for name in presets]
    assert sorted(every) == sorted(set(every)) == sorted(row.name for row in rows)
    for presets in FILES.values():
        for name, config in presets.items():
            assert models.preset(name) is config


def test_misspelt_names_are_answered_with_the_nearest_and_all():
    with pytest.raises(
        UnknownNameError, match=r"no model 'segformer-b0', did you mean 'segformer_b0'\?; segwright models lists all"
    ):
        models.preset("segformer-b0")
    with pytest.raises(UnknownNameError, match=r"lists all \d+; a module of your own is chosen by --set model.kind=qq.net"):
        models.preset("qq.net")
    with pytest.raises(UnknownNameError, match=r"no model 'qqq'; segwright models lists all \d+$"):
        models.preset("qqq")
