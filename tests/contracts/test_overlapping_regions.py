"""Regions as nnU-Net declares them, from its folder through training, files and scores, in images and in volumes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import segwright
from segwright.codecs.image_file import read_mask
from segwright.codecs.image_writer import write_values
from segwright.codecs.volume_file import read_volume, write_volume
from segwright.core import Grid, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.evaluation.evaluate import measure
from segwright.formats import mask_folder, nnunet, open_dataset
from segwright.formats.label_maps import NOTHING, mask_values, to_segmentation
from segwright.inference.dense_crf import DenseCRF
from segwright.inference.load import load
from segwright.models import nnunet as nnunet_model
from segwright.models import unet
from segwright.optimisers import adamw
from segwright.planning import trial
from segwright.planning.budget import Budget
from segwright.planning.planner import planned
from segwright.planning.start import Wish
from segwright.planning.trial import Cost
from segwright.plans.plan import Augmentation, Data, Inference, Plan, Training
from segwright.tasks import task_for
from segwright.tasks.regions import Regions
from segwright.tasks.semantic import Semantic
from segwright.training.loop import train
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.prepare import Preprocess
from segwright.workflow.score_run import finish

LABELS = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": [2], "ignore": 4}  # of KiTS
NETWORKS = {
    2: unet.Config(in_channels=1, num_classes=3, width=4, depth=2, axes=2),
    3: nnunet_model.Config(in_channels=1, num_classes=3, features=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2),
}


def made(root: Path, shape: tuple[int, ...], count: int = 4) -> Path:
    """A folder of nnU-Net with a ball in a ball in a ball in each case, and a corner that is ignored."""
    suffix = ".png" if len(shape) == 2 else ".nii.gz"
    for number in range(count):
        generator = np.random.default_rng(number)
        places = np.meshgrid(*(np.arange(side) - side / 2 + generator.uniform(-1, 1) for side in shape), indexing="ij")
        radius = np.sqrt(sum(place**2 for place in places)) / min(shape)
        numbers = np.array([0, 1, 3, 2])[(radius < 0.45).astype(int) + (radius < 0.33) + (radius < 0.2)]
        numbers[(slice(2),) * len(shape)] = 4
        values = (60 * (radius < 0.45) + 60 * (radius < 0.33) + 60 * (radius < 0.2) + generator.normal(30, 5, shape)).clip(0)
        image, label = root / "imagesTr" / f"c{number}_0000{suffix}", root / "labelsTr" / f"c{number}{suffix}"
        if len(shape) == 2:
            write_values(image, values.astype(np.uint8))
            write_values(label, numbers.astype(np.uint8))
        else:
            grid = Grid(shape, (2.0, 1.0, 1.0), np.array([[0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]]))
            write_volume(image, values[None].astype(np.float32), grid)
            write_volume(label, numbers[None].astype(np.uint8), grid)
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "regions_class_order": [1, 3, 2], "file_ending": suffix}
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def plan_of(data: Path, axes: int, steps: int = 60) -> Plan:
    sides = (16, 24, 24)[-axes:]
    return Plan(
        task=Regions(),
        data=Data(train=str(data), preprocess=Preprocess(channels=1)),
        augmentation=Augmentation(geometric=Geometric(scale=(0.9, 1.1), rotate_deg=10.0), intensity=Intensity(saturation=0.0)),
        model=NETWORKS[axes],
        optimiser=adamw.Config(learning_rate=0.02),
        training=Training(steps=steps, batch_size=2, crop=sides, validations=1),
        inference=Inference(tile=sides, flip_axes=(-1,)),
    )


@pytest.mark.parametrize("axes", [2, 3])
def test_from_a_folder_of_nnunet_to_its_numbers(tmp_path, axes):
    if axes == 3:
        pytest.importorskip("SimpleITK", reason="volumes need segwright[medical]")
    data = made(tmp_path / "data", (20, 32, 32)[-axes:])
    seen = open_dataset(data)
    assert task_for(seen) == "regions" and seen.classes.names == ("kidney", "masses", "tumor")
    train(plan_of(data, axes), tmp_path / "run")
    scores = finish(tmp_path / "run")
    assert {f"{score}/{name}" for score in ("IoU", "Dice") for name in seen.classes.names} <= scores.values.keys()
    assert scores.values["IoU/kidney"] > 0.6 and "kidney" in (tmp_path / "run" / "report.html").read_text()

    predictor = load(tmp_path / "run")
    assert predictor.answers == seen.classes and isinstance(predictor.task, Regions) and predictor.temperature != 1
    found = predictor(seen[0])
    numbers = np.zeros(found.shape, int)
    for number, k in ((1, 0), (3, 1), (2, 2)):  # regions_class_order, over those before
        for index in np.flatnonzero(found.class_ids == k):
            numbers[found.mask(int(index))] = number
    written = segwright.predict(predictor, data / "imagesTr", tmp_path / "out")
    assert len(written) == 4 and written[0].name == ("c0.png" if axes == 2 else "c0.nii.gz")
    values = read_mask(written[0]) if axes == 2 else read_volume(written[0])[0][0]
    assert np.array_equal(values, numbers) and set(np.unique(values)) <= {0, 1, 2, 3}

    files = measure(tmp_path / "out", data, metrics=["confusion"], resamples=0).values

    def as_written(sample: Sample) -> Segmentation:
        """What a number says: that a pixel is in the last region, and in all that this lies in."""
        values = mask_values(replace(sample, truth=predictor(sample))).astype(int)
        return to_segmentation(np.where(values == 0, NOTHING, values), None, seen.classes)

    direct = segwright.evaluate(as_written, seen, resamples=0).values
    assert files == pytest.approx(direct, abs=1e-3, nan_ok=True)  # another engine may round otherwise
    _, maps, quality = predictor.with_uncertainty(seen[0])
    assert len(quality.expected) == len(seen.classes) + 1 and 0 <= quality.expected[-1] <= 1
    assert maps["uncertainty"].shape == found.shape and 0 <= maps["uncertainty"].min() <= maps["uncertainty"].max() <= 1


def test_folds_are_averaged(tmp_path):
    data = made(tmp_path / "data", (32, 32))
    for number in (1, 2):
        train(plan_of(data, 2, steps=4), tmp_path / f"run-{number}")
    first, second = (load(tmp_path / f"run-{number}") for number in (1, 2))
    seen = open_dataset(data)
    network = Regions().averaged([first.network, second.network])
    both = replace(first, network=network, engine=None)
    probs = (first.probabilities(seen[0]) + second.probabilities(seen[0])) / 2
    assert np.allclose(both.probabilities(seen[0]), probs, atol=0.02)  # mirrors and tiles are blended as logits


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(trial, "within", lambda plan, memory: plan)
    monkeypatch.setattr(trial, "step_cost", lambda plan, parts: Cost(seconds=0.1, memory_bytes=1000))


@pytest.mark.parametrize(
    ("task", "model", "wanted"), [(None, None, Regions), (None, "unet", Regions), ("semantic", None, Semantic)]
)
def test_a_plan_learns_declared_regions_and_says_why(tmp_path, quick, caplog, task, model, wanted):
    data = made(tmp_path, (32, 32))
    settings = {"budget": Budget(minutes=0.05, device="cpu"), "val": None, "fold": None, "wish": Wish(weights="scratch")}
    plan = planned(str(data), task=task, model=model, settings=[], **settings).plan
    assert isinstance(plan.task, wanted)
    assert ("--task regions" in caplog.text) == (wanted is Semantic)
    assert plan.model.num_classes == (3 if wanted is Regions else 4)  # the background is no region
    text = plan.to_toml()
    assert Plan.from_toml(text) == plan
    assert ('kind = "regions" # classes overlap (kidney, masses, tumor)' in text) == (wanted is Regions)


def test_own_folders_hold_regions_too(tmp_path):
    seen = open_dataset(made(tmp_path / "data", (32, 32)))
    mask_folder.write(tmp_path / "own", seen)
    content = json.loads((tmp_path / "own" / "classes.json").read_text())
    assert content["masks"] == "regions" and content["values"] == [[1, 2, 3], [3, 2], [2]]
    own = open_dataset(tmp_path / "own")
    assert own.classes == seen.classes
    nnunet.write(tmp_path / "again", own)
    again = json.loads((tmp_path / "again" / "dataset.json").read_text())
    assert again["labels"] == LABELS and again["regions_class_order"] == [1, 3, 2]
    for key in seen.keys:
        first, second = (read_mask(tmp_path / name / "labelsTr" / f"{key}.png") for name in ("data", "again"))
        assert np.array_equal(first, second)


def test_a_crf_is_refused_and_the_remedy_works(tmp_path):
    data = made(tmp_path / "data", (32, 32))
    train(plan_of(data, 2, steps=2), tmp_path / "run")
    with pytest.raises(SettingError, match="this is a task 'Regions'; predict without it .leave out --crf"):
        segwright.predict(tmp_path / "run", data / "imagesTr", tmp_path / "out", crf=DenseCRF())
    assert segwright.predict(tmp_path / "run", data / "imagesTr", tmp_path / "out")
