"""Large images in parts. Axes: C, (H, W)."""

import tracemalloc
from collections import deque
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
import torch
from torch import nn

from segwright.codecs.image_file import read_image
from segwright.codecs.tiff_parts import TiffParts
from segwright.codecs.volume_file import read_volume, write_volume
from segwright.core import Classes, Grid
from segwright.core.errors import UsageError
from segwright.data.fingerprint import IntensityStatistics
from segwright.data.value_range import ValueRange
from segwright.formats import dataset_file, tiff
from segwright.inference import large_image
from segwright.inference.dense_crf import DenseCRF
from segwright.inference.engine import TorchEngine
from segwright.inference.large_image import expected_bytes, glanced, write_in_parts
from segwright.inference.predict_files import predict
from segwright.inference.predictor import Predictor
from segwright.tasks.semantic import Semantic
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess

GEO = [(33550, "d", 3, (2.0, 2.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 500.0, 900.0, 0.0), True)]


def predictor_of(**changes) -> Predictor:
    """Three classes of what a pixel and its neighbours hold, by weights of no meaning, in tiles of 64 pixels."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1).eval()
    settings = {"preprocess": Preprocess(normalise=Normalise(mean=(100.0,) * 3, std=(50.0,) * 3)), "tile": (64, 64)}
    classes = Classes.of(["a", "b", "c"])
    settings |= {"network": network, "engine": TorchEngine(network, "cpu"), "task": Semantic(), "classes": classes}
    return Predictor(**(settings | changes))


def noise(height: int, width: int, dtype: str = "uint8") -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    return coarse[:height, :width].astype(dtype)


@pytest.fixture
def all_large(monkeypatch):
    """Every TIFF counts as large, and what would read all of one fails."""
    monkeypatch.setattr(large_image, "LARGE", 0)


def both(predictor: Predictor, folder: Path, monkeypatch, *, name: str = "a.tif", **options) -> tuple[Path, Path]:
    """The masks of an image of folder/images, predicted in parts and as a whole."""
    with monkeypatch.context() as patched:
        patched.setattr(large_image, "LARGE", 0)
        patched.setattr(Predictor, "__call__", lambda *_: pytest.fail("the whole image was predicted"))
        predict(predictor, folder / "images", folder / "parts", **options)
    predict(predictor, folder / "images", folder / "whole", **options)
    return folder / "parts" / name, folder / "whole" / name


def stored(folder, values: np.ndarray, **more) -> None:
    (folder / "images").mkdir(exist_ok=True)
    tifffile.imwrite(folder / "images" / "a.tif", values, photometric="rgb", metadata=None, **({"tile": (32, 48)} | more))


MEASURED = Preprocess(normalise=Normalise())
SCALED = Preprocess(normalise=Normalise(mean=(100.0,) * 3, std=(50.0,) * 3), scale=(0.6, 0.7))
GREY = Preprocess(normalise=Normalise(mean=(100.0,) * 3, std=(50.0,) * 3))


@pytest.mark.parametrize("size", [(150, 610), (301, 290), (40, 200)])
@pytest.mark.parametrize("preprocess", [GREY, MEASURED, SCALED])
def test_masks_are_those_of_the_whole_image(size, preprocess, tmp_path, monkeypatch):
    stored(tmp_path, noise(*size), extratags=GEO)
    in_parts, whole = both(predictor_of(preprocess=preprocess), tmp_path, monkeypatch)
    assert in_parts.read_bytes() == whole.read_bytes()
    assert len(np.unique(read_image(tmp_path / "parts" / "a.tif"))) == 3


def test_flips_colours_and_byte_order_are_those_of_the_whole_image(tmp_path, monkeypatch):
    stored(tmp_path, noise(120, 300), extratags=GEO, byteorder=">")
    in_parts, whole = both(predictor_of(), tmp_path, monkeypatch, palette=True, flips=(-1,))
    assert in_parts.read_bytes() == whole.read_bytes()
    assert in_parts.read_bytes()[:2] == b"MM"


def test_missing_values_are_void(tmp_path, monkeypatch):
    values = noise(130, 200)
    values[30:90, 50:120] = 9
    stored(tmp_path, values, extratags=[*GEO, (42113, "s", 2, "9", True)])
    in_parts, whole = both(predictor_of(), tmp_path, monkeypatch)
    assert in_parts.read_bytes() == whole.read_bytes()
    found = tifffile.imread(tmp_path / "parts" / "a.tif")
    assert (found[30:90, 50:120] == 255).all() and (found == 255).sum() == 60 * 70


def test_values_are_brought_to_the_scale_of_training(tmp_path, monkeypatch):
    stored(tmp_path, noise(130, 200, "uint16") * 257)
    trained = ValueRange(dtypes=("uint8",), channels=(IntensityStatistics(**_intensity()),) * 3)
    in_parts, whole = both(predictor_of(trained_on=trained), tmp_path, monkeypatch)
    assert in_parts.read_bytes() == whole.read_bytes()
    other = tmp_path / "eight"
    other.mkdir()
    stored(other, noise(130, 200))
    eight_bit, _ = both(predictor_of(trained_on=trained), other, monkeypatch)
    np.testing.assert_array_equal(read_image(eight_bit), read_image(in_parts))


def _intensity() -> dict[str, float]:
    from dataclasses import fields

    return {field.name: 255.0 if "high" in field.name else 0.0 for field in fields(IntensityStatistics)}


def written(predictor: Predictor, folder) -> bool:
    """Whether the image a.tif of a folder is done in parts."""
    source = tiff.read(folder / "images" / "a.tif")
    return write_in_parts(predictor, tiff, "a", source, folder / "out", lambda _: None)


def test_small_images_overlays_and_models_without_tiles_go_the_usual_way(tmp_path, monkeypatch):
    stored(tmp_path, noise(70, 90))
    assert not written(predictor_of(), tmp_path)
    monkeypatch.setattr(large_image, "LARGE", 0)
    assert written(predictor_of(), tmp_path)
    assert not written(predictor_of(tile=None), tmp_path)
    assert not written(predictor_of(crf=DenseCRF()), tmp_path)  # which needs all of an image
    monkeypatch.setattr("segwright.inference.predict_files.write_in_parts", lambda *_, **__: pytest.fail("in parts"))
    assert len(predict(predictor_of(), tmp_path / "images", tmp_path / "masks", overlay=True)) == 2


def test_numbers_that_a_person_calls_missing_are_taken_out_the_usual_way(tmp_path, monkeypatch):
    stored(tmp_path, noise(70, 90))
    (tmp_path / "dataset.toml").write_text("nodata = [7]\n")
    monkeypatch.setattr(large_image, "LARGE", 0)
    source = dataset_file.with_nodata(tiff.read(tmp_path / "images" / "a.tif"), tmp_path)
    assert not write_in_parts(predictor_of(), tiff, "a", source, tmp_path / "out", lambda _: None)


@pytest.mark.parametrize("kind", ["int16", "float32"])
def test_volumes_are_those_of_the_usual_way(kind, tmp_path, monkeypatch):
    values = (noise(40, 50)[None, ..., 0] * np.linspace(0.5, 1, 30)[:, None, None]).astype(kind)
    if kind == "float32":
        values[3:5, 10:20] = np.nan
    (tmp_path / "images").mkdir()
    write_volume(tmp_path / "images" / "a.nii.gz", values[None], Grid(values.shape, (2.0, 1.0, 1.0)))
    torch.manual_seed(0)
    network = nn.Conv3d(1, 3, 3, padding=1).eval()
    preprocess = Preprocess(channels=1, normalise=Normalise(mean=(100.0,), std=(50.0,)))
    predictor = predictor_of(network=network, engine=TorchEngine(network, "cpu"), preprocess=preprocess, tile=(16, 16, 16))
    in_parts, whole = (read_volume(path) for path in both(predictor, tmp_path, monkeypatch, name="a.nii.gz"))
    np.testing.assert_array_equal(in_parts[0], whole[0])
    np.testing.assert_array_equal(in_parts[1].affine, whole[1].affine)
    assert (in_parts[0] == 255).sum() == (kind == "float32") * 2 * 10 * 50


@pytest.mark.usefixtures("all_large")
def test_files_are_returned_in_order_and_failures_told(tmp_path):
    stored(tmp_path, noise(70, 90))
    tifffile.imwrite(tmp_path / "images" / "b.tif", noise(70, 90)[..., :2], photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(tmp_path / "images" / "c.tif", noise(70, 90), photometric="rgb")
    with pytest.raises(UsageError, match=r"1 of 3 images could not be predicted(.|\n)*b.tif(.|\n)*2 channels, 3 are needed"):
        predict(predictor_of(), tmp_path / "images", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]
    found = predict(predictor_of(), [tmp_path / "images" / f"{name}.tif" for name in "ca"], tmp_path / "out")
    assert [path.name for path in found] == ["c.tif", "a.tif"]


def test_rows_are_glanced_at_all_over_the_image(tmp_path, monkeypatch):
    monkeypatch.setattr(large_image, "GLANCED_AT", 32 * 90)
    values = np.zeros((320, 90, 3), np.uint8) + np.arange(320, dtype=np.uint16).astype(np.uint8)[:, None, None]
    stored(tmp_path, values)
    found = glanced(TiffParts.opened(tmp_path / "images" / "a.tif"))
    assert found.shape == (3, 32, 90) and found[0, 0, 0] == 0 and found[0, -1, 0] == 319 - 256


@pytest.mark.parametrize(("shape", "tile"), [((192, 1024), (64, 64)), ((48, 96, 96), (32, 32, 32))])
def test_memory_is_told_before_it_is_taken(shape, tile):
    """Within a fifth of what arrays take; the logits of each class are the image times a number, without a network."""
    factors = np.linspace(-1, 1, 40, dtype=np.float32).reshape(-1, *[1] * len(shape))
    classes, image = Classes.of([f"c{k}" for k in range(40)]), np.zeros((1, *shape), np.uint8)
    preprocess = Preprocess(channels=1, normalise=Normalise(mean=(0.0,), std=(1.0,)))
    network = nn.Identity()
    network.divisors = (1,) * len(shape)
    predictor = predictor_of(
        network=network, classes=classes, preprocess=preprocess, tile=tile, engine=lambda images: (factors * images,)
    )
    run, view = predictor.run(len(shape)), predictor.view_in_parts(image, Grid(shape), "a", None)
    deque(predictor.task.label_rows(run, view), maxlen=0)  # kernels are loaded
    tracemalloc.start()
    told = expected_bytes(run, view, network) - psutil.Process().memory_info().rss
    kept = deque(predictor.task.label_rows(run, view), maxlen=0 if len(shape) == 2 else None)  # a volume's are kept
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert bool(kept) == (len(shape) == 3) and most == pytest.approx(told, rel=0.2)
