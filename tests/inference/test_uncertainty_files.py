"""Maps of uncertainty are files of their own on the grid of the image."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segwright.codecs.volume_file import write_volume
from segwright.codecs.zarr_image import read_numbers_of_zarr
from segwright.codecs.zarr_writer import writing_zarr
from segwright.core import Classes, Dataset, Grid, Sample
from segwright.core.errors import SettingError
from segwright.decoding.expected_dice import QualityCalibration
from segwright.decoding.postprocess import Postprocess
from segwright.formats import dicom, mask_folder, volume
from segwright.inference import large_image
from segwright.inference.dense_crf import DenseCRF
from segwright.inference.engine import TorchEngine
from segwright.inference.predict_files import predict
from segwright.inference.predictor import Predictor
from segwright.inference.uncertainty_files import map_paths, write_maps
from segwright.layers.ensemble import Ensemble
from segwright.models import unet
from segwright.tasks.instance import Instance
from segwright.tasks.semantic import Semantic
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

CLASSES = Classes.of(["a", "b", "c"])


def network_of(seed):
    torch.manual_seed(seed)
    network = unet.Config(in_channels=1, num_classes=3, width=4, depth=2).build().eval()
    torch.nn.init.normal_(network.head.weight, std=2.0)
    return network


@pytest.fixture
def predictor():
    network = Ensemble([network_of(seed) for seed in range(3)])
    settings = dict(task=Semantic(), classes=CLASSES, preprocess=Preprocess(channels=1), engine=TorchEngine(network))
    return Predictor(network=network, **settings)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (1, 40, 56), np.uint8)


def test_what_networks_say_apart_is_what_the_maps_say_of_them(predictor, image):
    found, maps, _ = predictor.with_uncertainty(image)
    assert (found.class_map() == predictor(image).class_map()).mean() > 0.999  # ties by rounding
    view = torch.from_numpy(predictor.preprocess(Sample.of("", image)).image)[None]
    with torch.no_grad():
        probs = torch.stack([network(view)[0].double().softmax(dim=0) for network in predictor.network.networks])

    def entropy(probs):
        return -(probs * probs.log()).sum(dim=-3) / np.log(3)

    whole, own = entropy(probs.mean(dim=0)), entropy(probs).mean(dim=0)
    np.testing.assert_allclose(maps["uncertainty"], whole.numpy(), atol=1e-5)
    np.testing.assert_allclose(maps["disagreement"], (whole - own).numpy(), atol=1e-5)
    assert maps["disagreement"].max() > 0.05
    probs_of_all = predictor.task.probabilities(predictor.run(2), predictor.preprocess(Sample.of("", image)))
    np.testing.assert_allclose(probs_of_all, probs.mean(dim=0).numpy(), atol=1e-5)


def test_tiles_and_mirrors_blend_them_too(predictor, image):
    tiled = replace(predictor, tile=(32, 32), flips=(-1,))
    found, maps, quality = tiled.with_uncertainty(image)
    assert (found.class_map() == tiled(image).class_map()).mean() > 0.999
    assert maps["uncertainty"].shape == (40, 56) and maps["disagreement"].min() >= 0
    _, other, same = tiled.with_uncertainty(image[..., ::-1].copy())
    np.testing.assert_allclose(other["uncertainty"][:, ::-1], maps["uncertainty"], atol=1e-4)
    np.testing.assert_allclose(same.expected, quality.expected, atol=1e-3)
    expected = expected_dice(tiled.probabilities(image), found.class_map())
    np.testing.assert_allclose(quality.expected[:3], expected, atol=1e-3)


def expected_dice(probs, labels):
    """What is expected of each class by its definition, NaN of those that are not there."""
    inside = [probs[k][labels == k].sum() if (labels == k).any() else np.nan for k in range(len(probs))]
    return [2 * part / ((labels == k).sum() + probs[k].sum()) for k, part in enumerate(inside)]


def test_the_quality_to_expect_is_at_the_temperature_and_after_what_the_run_has_learned(image):
    one = Predictor(network=network_of(0), task=Semantic(), classes=CLASSES, preprocess=Preprocess(channels=1))
    found, _, plain = one.with_uncertainty(image)
    probs, is_known = one.probabilities(image), ~np.isnan(plain.expected)
    np.testing.assert_allclose(plain.expected[:3], expected_dice(probs, found.class_map()), atol=1e-3)
    assert is_known.tolist() == [True, True, False, True] and np.isnan(plain.low).all()
    assert plain.expected[3] == pytest.approx(plain.expected[:2].sum() / (2 + probs[2].max()), abs=1e-3)
    softer = replace(one, temperature=3.0)
    _, _, soft = softer.with_uncertainty(image)
    np.testing.assert_allclose(soft.expected[:3], expected_dice(softer.probabilities(image), found.class_map()), atol=1e-3)
    assert (soft.expected < plain.expected)[is_known].all()
    learned = replace(one, quality=QualityCalibration(low=(-1.0,) * 4, middle=(-0.5,) * 4, high=(0.5,) * 4))
    _, _, (expected, low, high) = learned.with_uncertainty(image)
    assert ((low < expected) & (expected < plain.expected) & (plain.expected < high))[is_known].all()
    assert np.isnan([low[2], expected[2], high[2]]).all()
    gone = replace(learned, postprocess=Postprocess(min_pixels=(0, 10**6, 0)), classes=Classes.of(["background", "b", "c"]))
    assert np.isnan(gone.with_uncertainty(image)[2].expected).tolist() == [False, True, True, False]


def test_one_network_does_not_disagree_with_itself(image):
    alone = Predictor(network=network_of(0), task=Semantic(), classes=CLASSES, preprocess=Preprocess(channels=1))
    assert [*alone.with_uncertainty(image)[1]] == ["uncertainty"]


def test_what_lacks_values_is_not_known(predictor, image):
    gaps = image.astype(np.float32)
    gaps[0, :5] = np.nan
    found, maps, quality = predictor.with_uncertainty(gaps)
    expected = expected_dice(predictor.probabilities(gaps)[:, 5:], found.class_map()[5:])
    np.testing.assert_allclose(quality.expected[:3], expected, atol=1e-3)
    assert (found.class_map()[:5] == -1).all()
    for values in maps.values():
        assert np.isnan(values[:5]).all() and not np.isnan(values[5:]).any()


def test_files_lie_beside_the_masks(predictor, image, tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(image[0]).save(tmp_path / "in" / "x.png")
    written = predict(predictor, tmp_path / "in", tmp_path / "out", uncertainty=True)
    assert [path.name for path in written] == ["x.png", "x_uncertainty.tif", "x_disagreement.tif", "quality.csv"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in written}
    expected = predictor.with_uncertainty(image)[1]
    for name in expected:
        stored = tifffile.imread(tmp_path / "out" / f"x_{name}.tif")
        assert stored.dtype == np.float32 and (stored == expected[name]).all()


@pytest.mark.parametrize("kind", ["tiff", "volume", "zarr"])
def test_of_large_images_in_parts_they_are_those_of_the_whole(kind, tmp_path, monkeypatch):
    pytest.importorskip("zarr" if kind == "zarr" else "SimpleITK", reason="needs segwright[medical]")
    axes, side = (2, 90) if kind == "tiff" else (3, 24)
    values = np.random.default_rng(0).normal(100, 50, (side,) * axes).astype(np.float32)
    values[3:5, 10:20] = np.nan
    place = tmp_path / {"tiff": "a.tif", "volume": "a.nii.gz", "zarr": "a.zarr"}[kind]
    if kind == "tiff":
        tifffile.imwrite(place, values, photometric="minisblack", metadata=None, tile=(32, 32))
    elif kind == "volume":
        write_volume(place, values[None], Grid(values.shape, (2.0, 1.0, 1.0)))
    else:
        with writing_zarr(place, Grid(values.shape), values.dtype) as array:
            array[:] = values
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d)[axes - 2]
    network = Ensemble([kinds(1, 3, 3, padding=1).eval().requires_grad_(requires_grad=False) for _ in range(2)])
    settings = dict(task=Semantic(), classes=CLASSES, tile=(32 if axes == 2 else 16,) * axes, engine=TorchEngine(network))
    preprocess = Preprocess(channels=1, normalise=Normalise(mean=(100.0,), std=(50.0,)))
    one = Predictor(network=network, preprocess=preprocess, **settings)
    whole = predict(one, place, tmp_path / "whole", uncertainty=True)
    monkeypatch.setattr(large_image, "LARGE", 0)
    monkeypatch.setattr(Predictor, "with_uncertainty", lambda *_: pytest.fail("the whole image was predicted"))
    parts = predict(one, place, tmp_path / "parts", uncertainty=True)
    names = [path.name for path in parts]
    assert names == [path.name for path in whole] and {*names} == {path.name for path in (tmp_path / "parts").iterdir()}
    assert {"a_uncertainty", "a_disagreement"} <= {name.partition(".")[0] for name in names}
    for here, there in zip(parts, whole, strict=True):
        if here.is_dir():
            assert np.array_equal(read_numbers_of_zarr(here)[0], read_numbers_of_zarr(there)[0])
        else:
            assert here.read_bytes() == there.read_bytes()


def test_what_cannot_be_is_told_before_anything_is_written(predictor, image, tmp_path):
    Image.fromarray(image[0]).save(tmp_path / "x.png")
    wrong = [
        (predictor, {"format": "coco"}, "coco holds no maps of it; leave out one of the two"),
        (predictor, {"crf": DenseCRF()}, "the CRF redraws .* ask for --uncertainty without --crf"),
        (replace(predictor, task=Instance()), {}, "and the task of this one is Instance; leave out --uncertainty"),
    ]
    for model, settings, message in wrong:
        with pytest.raises(SettingError, match=message):
            predict(model, tmp_path / "x.png", tmp_path / "out", uncertainty=True, **settings)
    assert not (tmp_path / "out").exists()


def test_volumes_keep_their_kind_and_grid(tmp_path):
    pytest.importorskip("SimpleITK", reason="writing volumes needs segwright[medical]")
    grid = Grid((3, 4, 5), (3.0, 1.0, 1.0))
    source = Dataset("there", CLASSES, ("a/scan",), lambda key: None, {"a/scan": tmp_path / "scan.nii.gz"})
    assert map_paths(tmp_path, "a/scan", volume, source)["uncertainty"] == tmp_path / "a" / "scan_uncertainty.nii.gz"
    assert map_paths(tmp_path, "s", dicom, source)["disagreement"].name == "s_disagreement.nrrd"
    assert map_paths(tmp_path, "s", mask_folder, source)["uncertainty"].name == "s_uncertainty.tif"
    values = np.random.default_rng(0).random((3, 4, 5), np.float32)
    (path,) = write_maps(tmp_path, "a/scan", grid, {"uncertainty": values}, volume, source)
    again = volume.read_volume(path)
    assert path == tmp_path / "a" / "scan_uncertainty.nii.gz"
    assert (again[0][0] == values).all() and again[1].spacing_mm == grid.spacing_mm
