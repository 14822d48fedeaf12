"""The table of models."""

import pytest

from segwright import models
from segwright.core.errors import UnknownNameError
from segwright.core.lookup import find, names
from segwright.models import unet


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


def test_every_preset_has_one_name_one_row_and_its_own_config(rows):
    files = {file: find("segwright.models", file).PRESETS for file in names("segwright.models")}
    every = [name for presets in files.values() for name in presets]
    assert sorted(every) == sorted(set(every)) == sorted(row.name for row in rows)
    for presets in files.values():
        for name, config in presets.items():
            assert models.preset(name) is config


def test_misspelt_names_are_answered_with_the_nearest_and_all():
    with pytest.raises(UnknownNameError, match=r"no model 'segformer-b0', did you mean 'segformer_b0'\?; known are .*unet"):
        models.preset("segformer-b0")
    with pytest.raises(UnknownNameError, match="no model 'qqq'; known are"):
        models.preset("qqq")
