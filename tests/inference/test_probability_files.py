"""Probabilities are files of their own that are written as they come. Axes: K classes, (D, H, W)."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from segwright.codecs.image_file import read_mask
from segwright.codecs.volume_file import read_volume, write_volume
from segwright.codecs.zarr_image import ZarrImage, read_numbers_of_zarr
from segwright.codecs.zarr_writer import writing_zarr
from segwright.core import Classes, Grid
from segwright.core.errors import MissingExtraError, SettingError
from segwright.inference import large_image
from segwright.inference.dense_crf import DenseCRF
from segwright.inference.engine import TorchEngine
from segwright.inference.predict_files import predict
from segwright.inference.predictor import Predictor
from segwright.inference.probability_files import labels_beside_probabilities, probability_path
from segwright.tasks.instance import Instance
from segwright.tasks.regions import Regions
from segwright.tasks.semantic import Semantic
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

CLASSES = Classes.of(["a", "b", "c"])


def predictor_of(axes, channels=1, **changes):
    torch.manual_seed(0)
    network = (nn.Conv2d if axes == 2 else nn.Conv3d)(channels, 3, 3, padding=1).eval()
    nn.init.normal_(network.weight, std=1.0)
    preprocess = Preprocess(channels=channels, normalise=Normalise(mean=(100.0,) * channels, std=(50.0,) * channels))
    settings = {"network": network, "engine": TorchEngine(network, "cpu"), "task": Semantic(), "classes": CLASSES}
    return Predictor(**(settings | {"preprocess": preprocess, "tile": (16,) * axes} | changes))


def values(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, np.uint8)


def zarr_or_skip():
    return pytest.importorskip("zarr", reason="probabilities need segwright[zarr]")


def test_a_photograph(tmp_path):
    zarr_or_skip()
    image = values(40, 56)
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "x.png")
    predictor = predictor_of(2)
    written = predict(predictor, tmp_path / "in", tmp_path / "out", probabilities=True)
    assert [path.name for path in written] == ["x.png", "x_probabilities.zarr"]
    assert written[1] == probability_path(tmp_path / "out", "x")
    stored = ZarrImage.opened(written[1])
    np.testing.assert_allclose(stored.read(), predictor.probabilities(image[None]), atol=1e-6)
    np.testing.assert_array_equal(read_mask(written[0]), stored.read().argmax(axis=0))
    names = [each["label"] for each in zarr_or_skip().open_group(str(written[1])).attrs["ome"]["omero"]["channels"]]
    assert names == ["a", "b", "c"]
    again = predict(predictor, tmp_path / "in", tmp_path / "out", probabilities=True)  # replaces its own
    assert again == written


@pytest.mark.parametrize("kind", ["volume", "zarr", "flat zarr", "tiff"])
def test_large_images_in_parts_are_what_the_whole_would_be(tmp_path, kind, monkeypatch):
    zarr_or_skip()
    image = values(40, 50) if kind in ("tiff", "flat zarr") else values(20, 24, 30)
    axes, grid = image.ndim, Grid(image.shape, None if image.ndim == 2 else (2.0, 1.0, 1.0))
    place = tmp_path / {"volume": "a.nii.gz", "tiff": "a.tif"}.get(kind, "a.zarr")
    if kind == "volume":
        write_volume(place, image[None], grid)
    elif kind == "tiff":
        tifffile.imwrite(place, image, photometric="minisblack", metadata=None, tile=(16, 16))
    else:
        with writing_zarr(place, grid, image.dtype) as array:
            array[:] = image
    predictor = predictor_of(axes)
    whole = predict(predictor, place, tmp_path / "whole", probabilities=True)
    monkeypatch.setattr(large_image, "LARGE", 0)
    monkeypatch.setattr(Predictor, "with_probabilities", lambda *_: pytest.fail("the whole image was predicted"))
    parts = predict(predictor, place, tmp_path / "parts", probabilities=True)
    assert [path.name for path in parts] == [path.name for path in whole] == [place.name, "a_probabilities.zarr"]
    first, second = (ZarrImage.opened(paths[1]) for paths in (parts, whole))
    np.testing.assert_array_equal(first.read(), second.read())
    assert first.shape == (3, *image.shape) and first.grid.spacing_mm == grid.spacing_mm
    if "zarr" in kind:
        assert np.array_equal(read_numbers_of_zarr(parts[0])[0], first.read().argmax(axis=0))
        alone = predict(predictor, place, tmp_path / "alone")  # labels without probabilities
        agree = read_numbers_of_zarr(alone[0])[0] == read_numbers_of_zarr(parts[0])[0]
        assert agree.mean() > 0.999  # ties by rounding
    elif kind == "tiff":
        assert parts[0].read_bytes() == whole[0].read_bytes()
    else:
        assert np.array_equal(read_volume(parts[0])[0][0], first.read().argmax(axis=0))


def test_regions_have_a_probability_each(tmp_path):
    zarr_or_skip()
    image, regions = values(20, 24, 30), Classes.of(["whole", "core", "rim"], regions=[[1, 2, 3], [2, 3], [3]])
    with writing_zarr(tmp_path / "a.zarr", Grid(image.shape), image.dtype) as array:
        array[:] = image
    predictor = predictor_of(3, task=Regions(), classes=regions)
    written = predict(predictor, tmp_path / "a.zarr", tmp_path / "out", probabilities=True)
    stored = ZarrImage.opened(written[1]).read()
    np.testing.assert_allclose(stored, predictor.probabilities(image[None]), atol=1e-6)
    assert (stored.sum(axis=0) > 1).any() and [path.name for path in written] == ["a.zarr", "a_probabilities.zarr"]
    found = predictor.with_probabilities(image[None], tmp_path / "again.zarr")
    for k, mask in zip(found.class_ids, found.masks(), strict=True):
        np.testing.assert_array_equal(mask, stored[k] > 0.5)
    assert np.array_equal(found.planes, predictor(image[None]).planes)


def test_what_lacks_values_has_no_probability(tmp_path):
    zarr_or_skip()
    pixels = np.zeros((1, 6, 4), np.float32)
    pixels[0, 4, 1] = np.nan
    probs = np.full((2, 6, 4), 0.5, np.float32)
    probs[1] += 0.1
    rows = iter([(0, probs[:, :3].copy()), (3, probs[:, 3:].copy())])
    found = [*labels_beside_probabilities(rows, pixels, Grid((6, 4)), Classes.of(["a", "b"]), tmp_path / "a.zarr")]
    assert [(first, labels.tolist()) for first, labels in found] == [(0, [[1] * 4] * 3), (3, [[1] * 4] * 3)]
    stored = ZarrImage.opened(tmp_path / "a.zarr").read()
    assert np.isnan(stored[:, 4, 1]).all() and np.isnan(stored).sum() == 2


def test_what_is_stopped_leaves_nothing(tmp_path):
    zarr_or_skip()
    rows = iter([(0, np.zeros((2, 3, 4), np.float32)), (3, np.zeros((2, 3, 4), np.float32))])
    coming = labels_beside_probabilities(rows, np.zeros((1, 6, 4)), Grid((6, 4)), CLASSES, tmp_path / "a.zarr")
    next(coming)
    coming.close()
    assert not [*tmp_path.iterdir()]


def test_what_cannot_be_is_told_before_anything_is_written(tmp_path, monkeypatch):
    Image.fromarray(values(40, 56)).save(tmp_path / "x.png")
    predictor = predictor_of(2)
    wrong = [
        (predictor, {"format": "coco"}, "coco holds none; leave out one of the two"),
        (predictor, {"uncertainty": True}, "uncertainty follows from them, as their entropy; leave out"),
        (predictor, {"crf": DenseCRF()}, "ask for --probabilities without --crf"),
        (
            replace(predictor, task=Instance()),
            {},
            "Instance gives no probabilities .* leave out --probabilities: objects have scores",
        ),
    ]
    for model, settings, message in wrong:
        with pytest.raises(SettingError, match=message):
            predict(model, tmp_path / "x.png", tmp_path / "out", probabilities=True, **settings)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'segwright\[zarr\]'"):
        predict(predictor, tmp_path / "x.png", tmp_path / "out", probabilities=True)
    assert not (tmp_path / "out").exists()
