"""A run opens as a predictor that answers as the network does that was saved."""

import numpy as np
import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes
from segwright.core.errors import FormatError, SettingError
from segwright.encoders import timm
from segwright.inference.load import load, predictor_of, training_predictor, without_fetching
from segwright.models import segformer, unet


@pytest.fixture
def saved(tiny_plan, tmp_path):
    torch.manual_seed(0)
    network = tiny_plan.model.build().eval()
    ModelFile(network.state_dict(), tiny_plan, Classes.of(["a", "b"])).write(tmp_path / "model.safetensors")
    return network


def test_a_folder_and_its_file_open_alike(saved, tiny_plan, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1, 50, 70), np.uint8)
    expected = predictor_of(saved, tiny_plan, Classes.of(["a", "b"]))(image)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        prediction = load(place)(image)
        assert np.array_equal(prediction.class_map(), expected.class_map())
        assert prediction.classes.names == ("a", "b") and prediction.shape == (50, 70)


def test_the_predictor_of_training_uses_its_precision(saved, tiny_plan):
    image = np.random.default_rng(0).integers(0, 255, (1, 50, 70), np.uint8)
    classes = Classes.of(["a", "b"])
    assert np.array_equal(
        training_predictor(saved, tiny_plan, classes)(image).class_map(),
        predictor_of(saved, tiny_plan, classes)(image).class_map(),
    )


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
    with pytest.raises(SettingError, match="a file may not name one"):
        load(tmp_path)
    assert load(tmp_path, own_modules=True).network.state_dict().keys() == saved.state_dict().keys()


def test_opening_a_run_fetches_nothing():
    model = segformer.Config(encoder=timm.Config(name="resnet10t", pretrained=True))
    assert without_fetching(model) == segformer.Config(encoder=timm.Config(name="resnet10t"))
    assert without_fetching(unet.Config()) == unet.Config()
