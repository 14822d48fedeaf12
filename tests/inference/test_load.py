"""A run opens as a predictor that answers as the network does that was saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from segwright.checkpoints.folds_folder import FoldsFolder
from segwright.checkpoints.model_file import ModelFile
from segwright.checkpoints.named_weights import NamedWeights
from segwright.core import Classes, Sample
from segwright.core.errors import FormatError, SettingError, UnknownNameError, UsageError
from segwright.core.weights import Weights
from segwright.decoding.expected_dice import QualityCalibration
from segwright.decoding.postprocess import Postprocess
from segwright.decoding.score_calibration import ScoreCalibration
from segwright.encoders import resnet
from segwright.formats import ade20k, cityscapes
from segwright.inference import load as load_module
from segwright.inference.engine import TorchEngine
from segwright.inference.load import load, training_predictor
from segwright.models import cellpose, mask2former, panoptic_fpn, segformer, unet
from segwright.tasks.instance import Instance
from segwright.tasks.panoptic import Panoptic


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


# Folds


def folds_of(tmp_path, plan, networks):
    folds = FoldsFolder(folder=tmp_path / "folds", plan=plan, count=len(networks), minutes=1.0)
    folds.write()
    for run, network in zip(folds.runs, networks, strict=True):
        run.mkdir()
        ModelFile(network.state_dict(), plan, Classes.of(["a", "b"])).write(run / "model.safetensors")
    return folds.folder


def test_folds_open_as_one_model_at_the_temperature_of_their_plan(saved, tiny_plan, tmp_path):
    torch.manual_seed(1)
    other = tiny_plan.model.build().eval()
    plan = replace(tiny_plan, inference=replace(tiny_plan.inference, temperature=2.0))
    predictor = load(folds_of(tmp_path, plan, [saved, other]))
    image = np.random.default_rng(0).integers(0, 255, (1, 48, 64), np.uint8)
    with torch.no_grad():
        view = torch.from_numpy(predictor.preprocess(Sample.of("", image)).image)[None]
        expected = torch.stack([(network(view) / 2).softmax(dim=1)[0] for network in (saved, other)]).mean(dim=0)
    exact = replace(predictor, engine=TorchEngine(predictor.network))
    np.testing.assert_allclose(exact.probabilities(image), expected.numpy(), atol=1e-5)
    assert (exact(image).class_map() == expected.argmax(dim=0).numpy()).mean() > 0.999


def test_one_run_too_has_its_temperature(saved, tiny_plan, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (1, 48, 64), np.uint8)
    found = {}
    for temperature in (1.0, 3.0):
        plan = replace(tiny_plan, inference=replace(tiny_plan.inference, temperature=temperature))
        ModelFile(saved.state_dict(), plan, Classes.of(["a", "b"])).write(tmp_path / "t.safetensors")
        predictor = replace(load(tmp_path / "t.safetensors"), engine=TorchEngine(saved))
        found[temperature] = predictor.probabilities(image), predictor(image).class_map()
    softer = found[1.0][0] ** (1 / 3)
    np.testing.assert_allclose(found[3.0][0], softer / softer.sum(axis=0), atol=1e-5)
    assert (found[1.0][1] == found[3.0][1]).all()


def test_rules_about_pieces_are_done_with_what_a_run_predicts(saved, tiny_plan, tmp_path):
    torch.manual_seed(0)
    torch.nn.init.normal_(saved.head.weight, std=2.0)  # so that noise becomes specks
    image = np.random.default_rng(0).integers(0, 255, (1, 48, 64), np.uint8)
    found = {}
    for rule in (Postprocess(), Postprocess(min_pixels=(0, 40), largest=(1,))):
        plan = replace(tiny_plan, inference=replace(tiny_plan.inference, postprocess=rule))
        ModelFile(saved.state_dict(), plan, Classes.of(["background", "b"])).write(tmp_path / "p.safetensors")
        found[rule] = replace(load(tmp_path / "p.safetensors"), engine=TorchEngine(saved))
    plain, ruled = (predictor(image) for predictor in found.values())
    assert (ruled.class_map() == rule(plain).class_map()).all() and (ruled.class_map() != plain.class_map()).any()
    assert (found[rule].with_uncertainty(image)[0].class_map() == ruled.class_map()).all()


def test_scores_of_objects_are_probabilities_in_what_a_run_predicts_and_in_no_other_task(tiny_plan, tmp_path):
    torch.manual_seed(0)
    network = cellpose.Config(in_channels=1, trunk=tiny_plan.model).build()
    torch.nn.init.normal_(network.trunk.head.weight, std=2.0)  # flows to and fro, and objects everywhere
    image = np.random.default_rng(0).integers(0, 255, (1, 48, 64), np.uint8)
    found, classes = [], Classes.of(["cell"], is_thing=[True])
    for calibration in (ScoreCalibration(), ScoreCalibration(slope=0.5, shift=-1.0)):
        inference = replace(tiny_plan.inference, calibration=calibration)
        plan = replace(tiny_plan, task=Instance(), model=network.config, inference=inference)
        ModelFile(network.state_dict(), plan, classes).write(tmp_path / "o.safetensors")
        predictor = replace(load(tmp_path / "o.safetensors"), engine=TorchEngine(network.eval()))
        assert predictor.calibration == calibration
        found.append(predictor(image))
    plain, mapped = found
    assert len(plain) > 3 and (plain.planes == mapped.planes).all()
    np.testing.assert_allclose(mapped.scores, calibration.probabilities(plain.scores), rtol=1e-6)


def test_a_network_that_does_another_task_takes_nothing_along_that_this_one_has_learned(tiny_plan, tmp_path):
    small = {"width": 16, "num_heads": 2, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 4}
    encoder = resnet.Config(block="basic", depths=(1, 1, 1, 1))
    network = mask2former.Config(in_channels=1, num_classes=1, encoder=encoder, **small).build()
    quality = QualityCalibration(low=(-1.0, -1.0), middle=(0.0, 0.0), high=(1.0, 1.0))
    inference = replace(tiny_plan.inference, calibration=ScoreCalibration(shift=1.0), quality=quality)
    plan = replace(tiny_plan, task=Instance(), model=network.config, inference=inference)
    ModelFile(network.state_dict(), plan, Classes.of(["cell"], is_thing=[True])).write(tmp_path / "q.safetensors")
    same, other = (load(tmp_path / "q.safetensors", task=task) for task in ("instance", "panoptic"))
    assert same.calibration.is_needed and same.quality == quality
    assert not other.calibration.is_needed and other.quality == QualityCalibration()


def test_folds_whose_answers_have_no_mean_are_told(saved, tiny_plan, tmp_path):
    folder = folds_of(tmp_path, replace(tiny_plan, task=Panoptic()), [saved, saved])
    with pytest.raises(SettingError, match="of 2 folds for panoptic segmentation have no mean; open one of them, .*fold-0"):
        load(folder)


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
    with pytest.raises(UsageError, match="'unet_tiny' is no run but the name of a network; train it, .*--model unet_tiny$"):
        load("unet_tiny")
    with pytest.raises(FormatError, match="cannot read nowhere"):
        load("nowhere")
    with pytest.raises(UsageError, match="segformer_b0_ade20k are not on this machine"):
        load("segformer_b0", weights="segformer_b0_ade20k")
    with pytest.raises(UnknownNameError, match="there is no model 'segformer_b9'"):
        torch.save(trained(150).state_dict(), cache / "segformer_b0_ade20k.bin")
        load("segformer_b9", weights="segformer_b0_ade20k")


@pytest.mark.parametrize(
    ("trained_on", "count", "task", "first", "things"),
    [
        ("MS COCO train2017, panoptic", 133, "panoptic", "person", 80),
        ("MS COCO train2017", 80, "instance", "person", 80),
        ("ADE20K with its panoptic truth", 150, "panoptic", "wall", 100),
        ("ADE20K, semantic", 150, "semantic", "wall", 0),
        ("Cityscapes, fine annotations", 19, "semantic", "road", 8),
        ("Mapillary Vistas", 65, "semantic", "class 0", 0),
    ],
)
def test_what_weights_were_trained_on_tells_their_task_and_classes(trained_on, count, task, first, things, monkeypatch):
    monkeypatch.setattr(load_module, "tasks_of", lambda config: ("panoptic", "instance", "semantic"))
    facts = Weights(preset="a", address="a", licence="MIT", trained_on=trained_on, classes=count)
    given, config = NamedWeights({}, "a", facts), segformer.Config(num_classes=count)
    classes = load_module.classes_of_weights(given, config)
    assert classes.names[0] == first and sum(classes.is_thing) == things
    assert load_module.task_of_weights(given, config, classes) == task
    assert load_module.task_of_weights(NamedWeights({}, "a", None, classes), config, classes) in (task, "panoptic")


def test_a_published_network_knows_its_things_and_does_none_but_its_tasks(tmp_path):
    network = panoptic_fpn.PRESETS["panoptic_fpn_small"]
    torch.save(network.build().state_dict(), tmp_path / "a.pth")
    predictor = load("panoptic_fpn_small", weights=tmp_path / "a.pth")
    assert type(predictor.task).__name__ == "Panoptic" and sum(predictor.classes.is_thing) == len(network.things)
    with pytest.raises(SettingError, match="is a panoptic_fpn, trained for panoptic segmentation, and cannot do semantic"):
        load("panoptic_fpn_small", weights=tmp_path / "a.pth", task="semantic")


def test_a_run_of_other_things_is_weights_too(tiny_plan, tmp_path):
    """A network that treats things and stuff apart is built for those that the run was trained with."""
    encoder = resnet.Config(block="basic", depths=(1, 1, 1, 1))
    config = replace(panoptic_fpn.PRESETS["panoptic_fpn_small"], encoder=encoder, num_classes=3, things=(0, 2))
    classes = Classes.of(["car", "street", "dog"], is_thing=[True, False, True])
    ModelFile(config.build().state_dict(), replace(tiny_plan, model=config), classes).write(tmp_path / "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(panoptic_fpn.PRESETS, "panoptic_fpn_small", replace(config, num_classes=133, things=tuple(range(80))))
        found = load("panoptic_fpn_small", weights=tmp_path)
    assert found.classes == classes and found.network.config == config
    image = np.random.default_rng(0).integers(0, 255, (3, 64, 96), np.uint8)
    assert replace(found, engine=TorchEngine(found.network))(image).classes == classes
