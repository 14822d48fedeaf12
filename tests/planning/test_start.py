"""What a run starts from where nobody says: trained weights that lie here, and images as these weights know them."""

from dataclasses import replace

import numpy as np
import pytest

from segwright.checkpoints.model_file import ModelFile
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError, UsageError
from segwright.core.weights import Intake
from segwright.data.fingerprint import fingerprint
from segwright.encoders import mit, resnet, timm
from segwright.models import fcn, segformer
from segwright.planning.start import Wish, found_start, named_start, with_start
from segwright.plans.plan import Cascade, Init
from segwright.transforms.normalise import Normalise

LITE = "tf_efficientnet_lite0"


@pytest.fixture
def scene():
    """The fingerprint of an 8-bit image in colour."""
    truth = Segmentation.semantic(np.arange(40)[:, None] // 20 + np.zeros((1, 60), int), Classes.of(["a", "b"]))
    sample = Sample.of("a", np.zeros((3, 40, 60), np.uint8), truth)
    return fingerprint(Dataset("data", truth.classes, ("a",), lambda key: sample))


def drafted(plan, encoder, channels):
    preprocess = replace(
        plan.data.preprocess, channels=channels, normalise=Normalise(mean=(1.0,) * channels, std=(2.0,) * channels)
    )
    return replace(plan, model=segformer.Config(encoder=encoder), data=replace(plan.data, preprocess=preprocess))


@pytest.fixture
def found(monkeypatch):
    """Weights of the encoder lie here, of an odd intake."""
    monkeypatch.setattr(timm, "source", lambda name: "the package of a test" if name == LITE else None)
    monkeypatch.setattr(timm, "licence", lambda name: "mit")
    monkeypatch.setattr(timm, "intake", lambda name: Intake(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 3.0)))


@pytest.mark.parametrize(
    ("channels", "mean", "std"), [(3, (10.0, 20.0, 30.0), (1.0, 2.0, 3.0)), (1, (20.0,), (2.0,)), (4, (1.0,) * 4, (2.0,) * 4)]
)
def test_weights_that_lie_here_are_taken_with_their_intake(tiny_plan, scene, found, channels, mean, std):
    draft = drafted(tiny_plan, timm.Config(name=LITE), channels)
    plan = with_start(draft, scene, found_start(draft.model))
    named = with_start(draft, scene, named_start(Wish(weights="timm")))
    assert (named.init, named.data) == (plan.init, plan.data) and named.reasons["init.weights"].startswith("set by hand")
    assert plan.init == Init(weights="timm")
    assert plan.data.preprocess.normalise == Normalise(mean=mean, std=std)  # four channels have no intake of the encoder's
    assert "the package of a test" in plan.reasons["init.weights"]
    assert ("takes" in plan.reasons["init.weights"]) == (channels != 3)
    assert ("data.preprocess.normalise" in plan.reasons) == (channels != 4)


def test_weights_under_other_licences_are_left_to_who_names_them(tiny_plan, scene, found, monkeypatch):
    for licence in (None, "cc-by-nc-4.0"):
        monkeypatch.setattr(timm, "licence", lambda name, licence=licence: licence)
        assert found_start(segformer.Config(encoder=timm.Config(name=LITE))) is None


def test_other_depths_keep_the_statistics_of_the_data(tiny_plan, scene, found):
    draft = drafted(tiny_plan, timm.Config(name=LITE), 3)
    assert with_start(draft, replace(scene, dtypes={"uint16": 1}), found_start(draft.model)).data == draft.data


def test_without_weights_the_plan_stays_as_it_is(tiny_plan, scene, found):
    for model in (
        tiny_plan.model,
        segformer.Config(encoder=timm.Config(name="resnet18")),
        segformer.Config(encoder=mit.Config()),
    ):
        draft = replace(tiny_plan, model=model)
        assert found_start(draft.model) is None and with_start(draft, scene, None) is draft
        for nothing in (None, "scratch"):
            assert named_start(Wish(weights=nothing)) is None
    assert Wish(weights="scratch").is_scratch and not Wish().is_scratch


def test_a_run_that_is_named_brings_its_network_and_its_normalisation(tiny_plan, scene, tmp_path):
    normalise = Normalise(mean=(7.0,), std=(3.0,))
    plan = replace(tiny_plan, data=replace(tiny_plan.data, preprocess=replace(tiny_plan.data.preprocess, normalise=normalise)))
    ModelFile(plan.model.build().state_dict(), plan, Classes.of(["a", "b"])).write(tmp_path / "model.safetensors")
    start = named_start(Wish(weights=str(tmp_path)))
    assert start.network == plan.model and start.init == Init(weights=str(tmp_path)) and start.scale == 1
    started = with_start(tiny_plan, scene, start)
    assert started.data.preprocess.normalise == normalise
    other = replace(plan.model, num_classes=5)
    with pytest.raises(SettingError, match=r"for other classes than this network: head.*(2 -> 5 classes).*--new-head"):
        start.check(other, Wish(weights=str(tmp_path)), 0)
    anew = named_start(Wish(weights=str(tmp_path), new_head=True))
    anew.check(other, Wish(weights=str(tmp_path), new_head=True), 0)
    with pytest.raises(UsageError, match="none are given; name them with init"):
        named_start(Wish(new_head=True))
    colour = replace(tiny_plan, data=replace(tiny_plan.data, preprocess=replace(tiny_plan.data.preprocess, channels=3)))
    assert with_start(colour, scene, start).data == colour.data  # one mean says nothing of three channels


def test_the_second_run_of_a_cascade_starts_nothing_without_the_first(tiny_plan, tmp_path):
    preprocess = replace(tiny_plan.data.preprocess, class_channels=2)
    model = replace(tiny_plan.model, in_channels=preprocess.all_channels)
    data, cascade = replace(tiny_plan.data, preprocess=preprocess), Cascade(first="gone")
    plan = replace(tiny_plan, data=data, cascade=cascade, model=model)
    ModelFile(plan.model.build().state_dict(), plan, Classes.of(["a", "b"])).write(tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        wish = Wish(weights=str(place))
        start = named_start(wish)
        with pytest.raises(UsageError, match=f"would see 0; give that run too: --set cascade.first={tmp_path}/first$"):
            start.check(tiny_plan.model, wish, 0)
        start.check(plan.model, wish, 2)


def test_published_weights_that_lie_here_are_found_for_networks_and_encoders(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "segwright" / "weights"
    folder.mkdir(parents=True)
    dilated = fcn.PRESETS["fcn_resnet50"]
    assert found_start(dilated) is None
    name, weights = next((name, each) for name, each in resnet.WEIGHTS.items() if each.preset == "resnet50")
    monkeypatch.setitem(resnet.WEIGHTS, name, replace(weights, sha256=None))
    (folder / weights.file).write_bytes(b"weights")
    with caplog.at_level("INFO"):
        assert found_start(dilated) is None  # the licence is not stated: that is for a person to decide
    assert f"--init {name} starts from them" in caplog.text
    monkeypatch.setitem(resnet.WEIGHTS, name, replace(weights, sha256=None, licence="MIT"))
    start = found_start(dilated)  # whatever the output stride: the tensors are the same
    assert start.init == Init(weights=name) and start.normalise == weights.intake and "its encoder was trained on" in start.why
    name, weights = next((name, each) for name, each in fcn.WEIGHTS.items() if each.preset == "fcn_resnet50")
    monkeypatch.setitem(fcn.WEIGHTS, name, replace(weights, sha256=None, licence="MIT"))
    (folder / weights.file).write_bytes(b"weights")
    assert found_start(replace(dilated, num_classes=3)).init == Init(weights=name, new_head=True)


def test_a_damaged_file_is_told_and_does_not_count(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "segwright" / "weights").mkdir(parents=True)
    weights = next(each for each in resnet.WEIGHTS.values() if each.preset == "resnet50" and each.sha256)
    (tmp_path / "segwright" / "weights" / weights.file).write_bytes(b"half of it")
    assert found_start(fcn.PRESETS["fcn_resnet50"]) is None
    assert "are not taken" in caplog.text
