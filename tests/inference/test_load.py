"""A run opens as a predictor that answers as the network does that was saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import FormatError, SettingError
from segwright.inference.load import load, training_predictor


@pytest.fixture
def saved(tiny_plan, tmp_path):
    torch.manual_seed(0)
    network = tiny_plan.model.build().eval()
    ModelFile(network.state_dict(), tiny_plan, Classes.of(["a", "b"])).write(tmp_path / "model.safetensors")
    return network


def test_a_folder_and_its_file_open_alike(saved, tiny_plan, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1, 50, 70), np.uint8)
    expected = training_predictor(saved, tiny_plan, Classes.of(["a", "b"]))(image)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        prediction = load(place)(image)
        assert np.array_equal(prediction.class_map(), expected.class_map())
        assert prediction.classes.names == ("a", "b") and prediction.shape == (50, 70)


def test_the_predictor_of_training_uses_its_precision(saved, tiny_plan):
    training = replace(tiny_plan.training, precision="bf16-mixed", channels_last=True)
    engine = training_predictor(saved, replace(tiny_plan, training=training), Classes.of(["a", "b"])).engine
    assert engine.bfloat16 and engine.channels_last


def test_what_is_no_run_is_named(saved, tiny_plan, tmp_path):
    with pytest.raises(FormatError, match="cannot read .*nowhere"):
        load(tmp_path / "nowhere")
    weights = {name: value for name, value in saved.state_dict().items() if "head" not in name}
    ModelFile(weights, tiny_plan, Classes.of(["a", "b"])).write(tmp_path / "short.safetensors")
    with pytest.raises(FormatError, match="does not fit its own plan"):
        load(tmp_path / "short.safetensors")


def test_a_file_may_name_a_module_of_ones_own_only_where_that_is_allowed(saved, tiny_plan, tmp_path, monkeypatch):
    text = tiny_plan.to_toml().replace('kind = "unet"', 'kind = "segwright.models.unet"')
    monkeypatch.setattr(type(tiny_plan), "to_toml", lambda plan: text)
    ModelFile(saved.state_dict(), tiny_plan, Classes.of(["a", "b"])).write(tmp_path / "model.safetensors")
    with pytest.raises(SettingError, match="which a file alone may not have imported; .*own_modules=True"):
        load(tmp_path)
    assert load(tmp_path, own_modules=True).network.state_dict().keys() == saved.state_dict().keys()
