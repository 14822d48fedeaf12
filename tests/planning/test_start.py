"""What a run starts from where nobody says: trained weights that lie here, and images as these weights know them."""

from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.weights import Intake
from segwright.data.fingerprint import fingerprint
from segwright.encoders import mit, timm
from segwright.models import segformer
from segwright.planning.start import with_start
from segwright.plans.plan import Init
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
    monkeypatch.setattr(timm, "intake", lambda name: Intake(mean=(10.0, 20.0, 30.0), std=(1.0, 2.0, 3.0)))


@pytest.mark.parametrize(
    ("channels", "mean", "std"), [(3, (10.0, 20.0, 30.0), (1.0, 2.0, 3.0)), (1, (20.0,), (2.0,)), (4, (1.0,) * 4, (2.0,) * 4)]
)
def test_weights_that_lie_here_are_taken_with_their_intake(tiny_plan, scene, found, channels, mean, std):
    plan = with_start(drafted(tiny_plan, timm.Config(name=LITE), channels), scene)
    assert plan.init == Init(weights="timm")
    assert plan.data.preprocess.normalise == Normalise(mean=mean, std=std)  # four channels have no intake of the encoder's
    assert "the package of a test" in plan.reasons["init.weights"]
    assert ("takes" in plan.reasons["init.weights"]) == (channels != 3)
    assert ("data.preprocess.normalise" in plan.reasons) == (channels != 4)


def test_other_depths_keep_the_statistics_of_the_data(tiny_plan, scene, found):
    draft = drafted(tiny_plan, timm.Config(name=LITE), 3)
    assert with_start(draft, replace(scene, dtypes={"uint16": 1})).data == draft.data


def test_without_weights_the_plan_stays_as_it_is(tiny_plan, scene, found):
    for model in (
        tiny_plan.model,
        segformer.Config(encoder=timm.Config(name="resnet18")),
        segformer.Config(encoder=mit.Config()),
    ):
        draft = replace(tiny_plan, model=model)
        assert with_start(draft, scene) is draft
