"""A cascade: what a first run finds becomes channels of what the second sees, each sample predicted by who has not learnt it.

Axes: C channels, *S.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import segwright
from segwright.checkpoints.folds_folder import FoldsFolder
from segwright.checkpoints.model_file import write_tensors
from segwright.codecs.volume_file import read_volume
from segwright.core import Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, SettingError, UsageError
from segwright.core.run_files import MODEL_FILE, STATE_FILE
from segwright.data.samplers.foreground_patches import ForegroundPatches
from segwright.data.splits import open_splits
from segwright.formats import volume
from segwright.inference.load import load
from segwright.models import nnunet
from segwright.optimisers import adamw
from segwright.planning.budget import Budget
from segwright.plans.plan import Augmentation, Cascade, Data, Inference, Plan, Training
from segwright.training import first_stage as module
from segwright.training.first_stage import FirstStage, first_stage
from segwright.training.loop import train
from segwright.training.run_dir import read_log
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess
from segwright.workflow import finish, fit

WALLED = Classes.of(["background", "by a wall", "alone"])
SIDE, CROP = 24, (12, 12, 12)


def scene(number: int) -> Sample:
    """A volume with a ball whose class a wall at the other end decides, which no crop holds together with the ball."""
    rng = np.random.default_rng(number)
    image, is_walled = rng.normal(0, 0.2, (1, SIDE, SIDE, SIDE)).astype(np.float32), number % 2 == 0
    middle = np.array([rng.integers(6, 18), rng.integers(6, 18), 18])  # the ball lies in columns 14 to 22
    ball = ((np.indices(image.shape[1:]) - middle.reshape(3, 1, 1, 1)) ** 2).sum(axis=0) <= 16
    image[0][ball] += 1
    image[..., :8] += 3 * is_walled
    classes = np.where(ball, 1 if is_walled else 2, 0)
    return Sample(f"scene-{number:02}", image, Grid(classes.shape, (1.0, 1.0, 1.0)), Segmentation.semantic(classes, WALLED))


def plan_of(data: Path, *, first: Path | None = None, scale: tuple[float, ...] | None = None, steps: int = 60) -> Plan:
    channels = 0 if first is None else 2
    normalise = Normalise(mean=(0.2,), std=(0.7,))
    return Plan(
        data=Data(
            train=str(data),
            preprocess=Preprocess(channels=1, scale=scale, normalise=normalise, class_channels=channels),
        ),
        cascade=Cascade(first=None if first is None else str(first)),
        sampler=ForegroundPatches(share=0.7),
        augmentation=Augmentation(
            geometric=Geometric(scale=(1.0, 1.0), flip_axes=()), intensity=Intensity(saturation=0.0, noise=0.02)
        ),
        model=nnunet.Config(
            in_channels=1 + channels,
            num_classes=3,
            features=(8, 16, 32),
            encoder_depths=(1, 1, 1),
            decoder_depths=(1, 1),
        ),
        optimiser=adamw.Config(learning_rate=0.01),
        training=Training(steps=steps, batch_size=4, crop=CROP, validations=1),
        inference=Inference(tile=CROP),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A first run at half the scale, one at full scale by itself, and one after the first."""
    folder = tmp_path_factory.mktemp("cascade")
    volume.write(folder / "data", [scene(number) for number in range(12)])
    train(plan_of(folder / "data", scale=(0.5, 0.5, 0.5), steps=120), folder / "low")
    train(plan_of(folder / "data"), folder / "alone")
    train(plan_of(folder / "data", first=folder / "low"), folder / "both")
    return folder


def best_score(run: Path) -> float:
    return max(record["score"] for record in read_log(run) if "score" in record)


def test_a_cascade_tells_what_no_crop_holds(runs):
    low, alone, both = (best_score(runs / name) for name in ("low", "alone", "both"))
    scores = f"low {low:.3f}, alone {alone:.3f}, both {both:.3f}"
    assert alone < 0.7, f"a crop by itself should not tell the classes apart: {scores}"
    assert both > 0.8 and both > low, scores  # the second is finer than the first


def test_one_call_asks_both_and_nothing_is_lost_when_the_folder_is_moved(runs, tmp_path):
    moved, unseen = tmp_path / "moved", [scene(number) for number in (20, 21)]
    shutil.copytree(runs / "both", moved)
    predictor = load(moved)
    for sample in unseen:
        found, truth = predictor(replace(sample, truth=None)).class_map(), sample.truth.class_map()
        assert ((found == truth) & (truth > 0)).sum() > 0.8 * (truth > 0).sum()
    volume.write(tmp_path / "unseen", unseen)
    written = segwright.predict(moved, tmp_path / "unseen", tmp_path / "out")
    assert len(written) == 2 and all(0 < read_volume(file)[0].max() <= 2 for file in written)
    gone = plan_of(runs / "data", first=tmp_path / "gone")
    assert train(gone, moved, resume=True) == moved / "model.safetensors"  # which needs the copy alone
    shutil.rmtree(moved / "first")
    with pytest.raises(FormatError, match="copy the whole folder of the run"):
        load(moved)


def test_it_is_scored_as_it_was_trained_and_says_how_far_to_trust_that(runs):
    values = finish(runs / "both").values
    assert values["mIoU"] == pytest.approx(best_score(runs / "both"), abs=0.05)
    splits = open_splits(runs / "data")
    stage = first_stage(plan_of(runs / "data", first=runs / "low"), splits)
    assert "10 of 12 samples were trained with in" in stage.told(splits) and "(segwright fit DATA --folds 5)" in stage.told(
        splits
    )
    sample = stage.added(splits.val)[0]
    assert sample.image.shape == (3, SIDE, SIDE, SIDE) and set(np.unique(sample.image[1:])) <= {0, 1}
    assert stage.added(splits.val).load.without_image(sample.key).image.shape[1:] == sample.grid.shape


def test_fit_plans_and_trains_the_second(runs, tmp_path):
    settings = [f"cascade.first={runs / 'low'}", "training.steps=2"]
    fit(runs / "data", out=tmp_path / "run", budget=Budget(minutes=0.1, device="cpu"), init="scratch", settings=settings)
    made = Plan.read(tmp_path / "run")
    assert made.cascade.first == str(runs / "low") and made.data.preprocess.class_channels == 2
    assert "# 10 of 12 samples were trained with" in (tmp_path / "run" / "plan.toml").read_text()
    assert load(tmp_path / "run")(scene(20)).shape == (SIDE, SIDE, SIDE)


# Which run predicts which sample, by runs whose answers are their own numbers


TWO = Classes.of(["background", "thing"])


class Stub:
    """A predictor that says how often it was asked."""

    def __init__(self, name: str) -> None:
        self.name, self.asked, self.answers, self.network = name, [], TWO, torch.nn.Identity()
        self.tile = (2, 3)

    def __call__(self, sample: Sample) -> Segmentation:
        self.asked.append(sample.key)
        return Segmentation.semantic(np.arange(6).reshape(2, 3) % 2, TWO)


@pytest.fixture
def samples() -> Dataset:
    def read(key: str) -> Sample:
        return Sample.of(key, np.full((1, 2, 3), int(key), np.uint8))

    return Dataset("memory", TWO, ("0", "1", "2", "3"), read)


@pytest.fixture
def stubs(monkeypatch) -> dict[str, Stub]:
    made: dict[str, Stub] = {}

    def opened(path: Path, *, own_modules: bool) -> Stub:
        return made.setdefault(path.name, Stub(path.name))

    monkeypatch.setattr(module, "load", opened)
    monkeypatch.setattr(
        module, "replace", lambda value, **changes: value if isinstance(value, Stub) else replace(value, **changes)
    )
    return made


def saved(run: Path, trained: list[str], held_out: list[str]) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    (run / MODEL_FILE).touch()
    data = {"train": dict.fromkeys(trained), "val": dict.fromkeys(held_out), "classes": TWO.names}
    write_tensors(run / STATE_FILE, {"a": torch.zeros(1)}, {"state": json.dumps({"data": data})})
    return run


def test_each_sample_is_predicted_once_by_the_fold_that_held_it_out(tmp_path, tiny_plan, samples, stubs):
    folds = FoldsFolder(folder=tmp_path / "low", plan=tiny_plan, count=2, minutes=None)
    folds.write()
    saved(folds.runs[0], ["2", "3"], ["0", "1"])
    saved(folds.runs[1], ["0", "1"], ["2"])
    stage = FirstStage.of(str(folds.folder), [samples], device="cpu")
    for sample in (*samples, *samples):
        found = stage(sample)
        assert found.class_map().tolist() == [[0, 1, 0], [1, 0, 1]] and found.classes == TWO
    assert {name: stub.asked for name, stub in stubs.items()} == {"fold-0": ["0", "1"], "fold-1": ["2", "3"]}
    assert stage.told([samples]) == "each of 4 samples is predicted by a run that was not trained with it"
    stage(Sample.of("new", np.zeros((1, 2, 3), np.uint8)))
    assert stubs["low"].asked == ["new"]  # all runs as one
    stage(Sample.of("0", np.zeros((1, 2, 3), np.uint8) + 9))  # another image of the name
    assert stubs["fold-0"].asked == ["0", "1", "0"] and stage.channels == 1


def test_a_run_that_has_learnt_a_sample_predicts_it_where_there_is_no_other(tmp_path, samples, stubs):
    stage = FirstStage.of(str(saved(tmp_path / "low", ["0", "1", "2"], ["3"])), [samples], device="cpu")
    assert stage.told([samples]).startswith(f"3 of 4 samples were trained with in {tmp_path / 'low'}, which finds more")
    assert [len(stage(sample)) for sample in samples] == [2] * 4 and stubs["low"].asked == ["0", "1", "2", "3"]
    (tmp_path / "low" / STATE_FILE).unlink()  # then nobody knows
    assert "4 of 4 samples" in FirstStage.of(str(tmp_path / "low"), [samples], device="cpu").told([samples])


def test_the_file_that_is_named_is_asked_and_not_another_beside_it(tmp_path, samples, stubs):
    (saved(tmp_path / "low", ["0"], ["1", "2", "3"]) / "other.safetensors").touch()
    stage = FirstStage.of(str(tmp_path / "low" / "other.safetensors"), [samples], device="cpu")
    for sample in samples:
        stage(sample)
    assert {name: stub.asked for name, stub in stubs.items()} == {"other.safetensors": ["0", "1", "2", "3"]}
    assert stage.told([samples]).startswith("1 of 4 samples")


def test_a_run_with_other_classes_is_told(tmp_path, samples, stubs):
    stage = FirstStage.of(str(saved(tmp_path / "low", ["0"], ["1", "2", "3"])), [samples], device="cpu")
    others = replace(samples, classes=Classes.of(["background", "tumour"]))
    assert "it finds 'background', 'thing', and the data have 'background', 'tumour': see that" in stage.told([others])
    assert "see that" not in stage.told([samples])


def test_what_cannot_be_first_is_refused(tmp_path, tiny_plan, samples, stubs):
    with pytest.raises(UsageError, match="nowhere', does not exist seen from .*--set cascade.first=RUN"):
        FirstStage.of(str(tmp_path / "nowhere"), [samples], device="cpu")
    with pytest.raises(UsageError, match="'', does not exist seen from .*--set cascade.first=RUN"):
        FirstStage.of("", [samples], device="cpu")
    (tmp_path / "theirs" / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        (tmp_path / "theirs" / name).write_text("{}")
    with pytest.raises(UsageError, match="is a model of nnU-Net, of which no run is known; train the first network"):
        FirstStage.of(str(tmp_path / "theirs"), [samples], device="cpu")
    low = saved(tmp_path / "low", ["0"], ["3"])
    preprocess = replace(tiny_plan.data.preprocess, class_channels=2)
    plan = replace(tiny_plan, data=replace(tiny_plan.data, preprocess=preprocess), cascade=Cascade(first=str(low)))
    with pytest.raises(SettingError, match="low finds 1 classes beside the background, and the plan is made for 2; make a new"):
        first_stage(plan, [samples])
    in_space = replace(plan.training, crop=(4, 4, 4))
    of_volumes = SimpleNamespace(training=in_space, data=plan.data, cascade=plan.cascade)
    with pytest.raises(SettingError, match="low is for images of 2 axes, and these have 3; name a first run that"):
        first_stage(of_volumes, [samples])
    assert first_stage(tiny_plan, [samples]) is None
    with pytest.raises(SettingError, match="class_channels is 0; .*segwright plan .* --set cascade.first=RUN"):
        tiny_plan.with_settings(["cascade.first=RUN"])
