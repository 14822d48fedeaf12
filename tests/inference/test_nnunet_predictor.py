"""Models of nnU-Net as predictors. Axes: C, K, *S."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import segwright
from segwright.checkpoints.nnunet_folder import ChannelScheme
from segwright.codecs.volume_file import read_volume, write_volume
from segwright.core import Grid, Sample
from segwright.core.errors import FormatError, SettingError, ShapeError
from segwright.inference.engine import TorchEngine
from segwright.inference.nnunet_predictor import bring_to_scale, nnunet_predictor

MODELS = Path(__file__).parent.parent / "golden" / "nnunet_models"  # made by nnunetv2 itself: make_nnunet_model.py
NAMES = ["even_2d", "even_3d_fullres"]
AGREE = 0.9999  # of the voxels; nnU-Net sums its windows in half precision


def opened(folder: Path):
    """The predictor of a folder, on plain PyTorch, as nnU-Net's."""
    predictor = segwright.load(folder)
    return replace(predictor, engine=TorchEngine(predictor.network))


def copied(name: str, place: Path) -> Path:
    """A copy of a model to change."""
    return Path(shutil.copytree(MODELS / name, place / name))


def case(name: str) -> tuple[Sample, np.ndarray]:
    """An image that nnU-Net has predicted, and its labels."""
    stored = np.load(MODELS / f"{name.split('_')[0]}.npz")
    image = stored["image"]
    return Sample("case", image, Grid(image.shape[1:], tuple(map(float, stored["spacing_mm"])))), stored[name]


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_those_of_nnunet(name):
    sample, wanted = case(name)
    assert len(np.unique(wanted)) == 3 and (wanted > 0).mean() > 0.02
    found = opened(MODELS / name)(sample).class_map()
    assert found.shape == wanted.shape
    assert (found == wanted).mean() >= AGREE


def test_the_models_tell_the_ways_apart():
    """Images are cropped, resampled, tiled and mirrored, and folds are averaged, in one of these at least."""
    predictors = {name: opened(MODELS / name) for name in NAMES}
    views = {name: predictor.preprocess(case(name)[0]) for name, predictor in predictors.items()}
    assert all(np.prod(view.cropped) < np.prod(view.source.shape) for view in views.values())
    assert views["even_3d_fullres"].cropped != views["even_3d_fullres"].image.shape[1:]
    assert len(predictors["even_3d_fullres"].network.networks) == 2
    assert all(predictor.flips for predictor in predictors.values())
    tiles = [view.image.shape[-1] > predictors[name].task.model.patch[-1] for name, view in views.items()]
    assert all(tiles)


def test_labels_outside_of_the_content_are_background():
    sample, _ = case("even_3d_fullres")
    empty = replace(sample, image=np.zeros_like(sample.image))
    view = opened(MODELS / "even_3d_fullres").preprocess(empty)
    assert view.corner == (0, 0, 0) and view.cropped == sample.grid.shape  # nothing to crop to
    content = np.zeros_like(sample.image)
    content[:, 5:9, 6:20, 7:30] = 100
    predictor = opened(MODELS / "even_3d_fullres")
    view = predictor.preprocess(replace(sample, image=content))
    assert view.corner == (5, 6, 7) and view.cropped == (4, 14, 23)
    found = predictor(replace(sample, image=content)).class_map()
    found[5:9, 6:20, 7:30] = 0
    assert not found.any()


def test_missing_values_count_as_nothing_and_become_void():
    sample, _ = case("even_3d_fullres")
    image = sample.image.astype(np.float32)
    image[:, 10, 10, 10] = np.nan
    found = opened(MODELS / "even_3d_fullres")(replace(sample, image=image)).class_map()
    assert found[10, 10, 10] == -1 and (found == -1).sum() == 1


@pytest.mark.parametrize(
    ("scheme", "wanted"),
    [
        ("CTNormalization", [-1.0, -1.0, 0.0, 1.0]),
        ("ZScoreNormalization", [-1.0, 0.0, 1.0, 0.0]),
        ("NoNormalization", [0.0, 2.0, 4.0, 9.0]),
        ("RescaleTo01Normalization", [0.0, 2 / 9, 4 / 9, 1.0]),
        ("RGBTo01Normalization", [0.0, 2 / 255, 4 / 255, 9 / 255]),
    ],
)
def test_values_are_brought_to_scale_by_hand(scheme, wanted):
    facts = {"percentile_00_5": 2, "percentile_99_5": 6, "mean": 4, "std": 2}
    channel, mask = np.array([0, 2, 4, 9], np.float32), np.array([True, True, True, False])
    if scheme == "ZScoreNormalization":
        channel[:] = [1, 2, 3, 0]
        spread = np.sqrt(2 / 3)
        wanted = [-1 / spread, 0, 1 / spread, 0]  # what is outside of the mask stays
    bring_to_scale(channel, ChannelScheme(name=scheme, in_mask=True, statistics=facts), mask)
    assert channel == pytest.approx(wanted)


def test_regions_write_their_numbers_in_order_and_become_planes_that_overlap(tmp_path):
    sample, _ = case("even_3d_fullres")
    folder = copied("even_3d_fullres", tmp_path)
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["labels"] = {"background": 0, "all": [1, 2, 3], "some": [2, 3], "core": [3]}
    (folder / "dataset.json").write_text(json.dumps(dataset | {"regions_class_order": [1, 2, 3]}))
    predictor = opened(folder)
    found = predictor(sample)
    assert found.classes.names == ("all", "some", "core") and found.classes.regions == ((1, 2, 3), (2, 3), (3,))
    model = predictor.task.model
    assert model.region_numbers == (1, 2, 3)
    numbers = np.zeros(sample.grid.shape, int)
    for mask in found.masks():
        numbers[mask] += 1  # nested: one more for each region
    assert set(np.unique(numbers)) <= {0, 1, 2, 3} and numbers.any()
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "case.nii.gz", sample.image, sample.grid)
    (written,) = segwright.predict(predictor, tmp_path / "in", tmp_path / "out")
    labels, _ = read_volume(written)
    assert np.array_equal(labels[0], numbers)  # a file of nnU-Net's numbers, and no data set


def test_files_are_predicted_onto_their_own_grid(tmp_path):
    sample, wanted = case("even_2d")
    affine = np.diag([*sample.grid.spacing_mm[::-1], 1.0])[:, [2, 1, 0, 3]]
    volume = replace(sample, grid=replace(sample.grid, affine=affine))
    (tmp_path / "in").mkdir()
    write_volume(tmp_path / "in" / "case.nii.gz", volume.image, volume.grid)
    (written,) = segwright.predict(opened(MODELS / "even_2d"), tmp_path / "in", tmp_path / "out")
    labels, grid = read_volume(written)
    assert (labels[0] == wanted).mean() >= AGREE
    assert grid.affine == pytest.approx(affine)


def test_images_of_two_axes_are_one_slice(tmp_path):
    folder = copied("even_2d", tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    (folder / "plans.json").write_text(json.dumps(plans | {"image_reader_writer": "NaturalImage2DIO"}))
    sample, _ = case("even_2d")
    image = sample.image[:, 12]
    found = opened(folder)(image).class_map()
    volume = Sample("one", image[:, None], Grid((1, *image.shape[1:]), (999.0, 1.0, 1.0)))
    assert np.array_equal(found, opened(folder)(volume).class_map()[0])


def test_refuses_what_it_cannot_prepare():
    predictor, (sample, _) = opened(MODELS / "even_3d_fullres"), case("even_3d_fullres")
    with pytest.raises(SettingError, match=r"'case' does not know the size of its voxels.*; give files that hold it"):
        predictor(replace(sample, grid=Grid(sample.grid.shape)))
    with pytest.raises(ShapeError, match="'case' has 2 channels, and the model was trained on 1; give all of them"):
        predictor(replace(sample, image=np.repeat(sample.image, 2, axis=0)))
    with pytest.raises(ShapeError, match="is an image of two axes, and the model is for volumes; give volumes"):
        predictor(sample.image[:, 3])


def test_refuses_weights_that_do_not_fit_the_plan(tmp_path):
    folder = copied("even_2d", tmp_path)
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"][0] = 5
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(FormatError, match="(?s)the weights do not fit the network of plans.json .*; copy both again"):
        nnunet_predictor(folder)


def test_engines_that_say_the_same_agree():
    predictor = opened(MODELS / "even_2d")
    logits = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    assert predictor.task.agreement((logits,), (logits,), (4, 4)) == 1
    other = logits.copy()
    other[0, logits[0, :, 0, 0].argmin(), 0, 0] = 100
    assert predictor.task.agreement((other,), (logits,), (4, 4)) == 15 / 16


def test_a_task_that_the_model_is_not_for_is_refused():
    with pytest.raises(SettingError, match="is for semantic segmentation, and the task is panoptic; leave --task out"):
        segwright.load(MODELS / "even_2d", task="panoptic")
    predictor = segwright.load(MODELS / "even_2d", task="semantic")
    assert predictor.task.score == "mIoU" and predictor.task.metrics
