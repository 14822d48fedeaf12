"""A run opens as a predictor that answers as the network does that was saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes, Sample
from segwright.core.errors import FormatError, SettingError, UnknownNameError, UsageError
from segwright.formats import ade20k, cityscapes
from segwright.inference.load import load, training_predictor
from segwright.models import segformer, unet


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


# Published networks


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder where weights are looked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "segwright" / "weights"
    folder.mkdir(parents=True)
    return folder


def trained(num_classes):
    torch.manual_seed(0)
    network = replace(segformer.PRESETS["segformer_b0"], num_classes=num_classes).build().eval()
    torch.nn.init.normal_(network.decoder.classify.weight)
    return network


def test_a_published_network_predicts_without_training(cache):
    network = trained(19)
    torch.save(network.state_dict(), cache / "segformer_b0_cityscapes.bin")
    predictor = load("segformer_b0", weights="segformer_b0_cityscapes")
    assert predictor.classes == cityscapes.CLASSES and predictor.tile == (1024, 1024)
    image = np.random.default_rng(0).integers(0, 255, (3, 64, 96), np.uint8)
    mean, std = np.array([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]], np.float32)[:, :, None, None]
    seen = (image - mean) / std
    view = predictor.preprocess(Sample.of("", image)).image
    np.testing.assert_allclose(view, seen, rtol=0, atol=1e-5)
    with torch.no_grad():
        logits = network(torch.from_numpy(seen)[None]).numpy()
    np.testing.assert_allclose(predictor.engine(view[None])[0], logits, rtol=0, atol=1e-2)
    wide = image.astype(np.uint16) * 257
    assert np.array_equal(predictor(wide).class_map(), predictor(image).class_map())


def test_classes_have_the_names_of_their_data_set_or_numbers(cache, tmp_path):
    torch.save(trained(150).state_dict(), cache / "segformer_b0_ade20k.bin")
    assert load("segformer_b0", weights="segformer_b0_ade20k").classes == ade20k.CLASSES
    torch.save({"state_dict": trained(3).state_dict()}, tmp_path / "a.pth")
    assert load("segformer_b0", weights=tmp_path / "a.pth").classes.names == ("class 0", "class 1", "class 2")


def test_a_run_of_the_network_is_weights_too(saved, tiny_plan, tmp_path):
    plan = replace(tiny_plan, model=segformer.PRESETS["segformer_b0"])
    ModelFile(trained(2).state_dict(), plan, Classes.of(["a", "b"])).write(tmp_path / "model.safetensors")
    assert load("segformer_b0", weights=tmp_path).classes.names == ("a", "b")


def test_a_network_that_is_not_all_filled_is_refused(cache, tmp_path):
    encoder = {name.removeprefix("encoder."): tensor for name, tensor in trained(3).state_dict().items() if "encoder." in name}
    torch.save(encoder, tmp_path / "a.pth")
    with pytest.raises(
        UsageError, match="a.pth alone does not make segformer_b0 a trained network: the encoder alone is in .*"
    ):
        load("segformer_b0", weights=tmp_path / "a.pth")
    four = replace(segformer.PRESETS["segformer_b0"], in_channels=4).build()
    torch.save(four.state_dict(), tmp_path / "b.pth")
    with pytest.raises(UsageError, match=r"b.pth alone .*adapted: encoder.stages.0.embed.weight \(4 -> 3 channels\)"):
        load("segformer_b0", weights=tmp_path / "b.pth")


def test_a_volume_is_told(tmp_path):
    torch.save(unet.PRESETS["unet_3d"].build().state_dict(), tmp_path / "a.pth")
    with pytest.raises(SettingError, match="unet_3d takes 1 channels and 3 axes, .*train it: segwright fit DATA"):
        load("unet_3d", weights=tmp_path / "a.pth")


def test_names_that_are_no_run_are_told(cache):
    for name in ("segformer_b0", "segformer_b0_ade20k"):
        with pytest.raises(
            UsageError, match="is no run but the name of .*'segformer_b0' with weights .* 'segformer_b0_ade20k'"
        ):
            load(name)
    with pytest.raises(UsageError, match="segformer_b0_ade20k are not on this machine"):
        load("segformer_b0", weights="segformer_b0_ade20k")
    with pytest.raises(UnknownNameError, match="there is no model 'segformer_b9'"):
        torch.save(trained(150).state_dict(), cache / "segformer_b0_ade20k.bin")
        load("segformer_b9", weights="segformer_b0_ade20k")
