import random
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segwright.core import VOID, Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import mask_folder, open_dataset, tiff

CLASSES = Classes.of(["field", "house"], is_thing=[False, True])
SCALE = (33550, 12, 3, (0.5, 0.25, 0.0), True)
TIE = (33922, 12, 6, (10.0, 20.0, 0.0, 440720.0, 3751320.0, 0.0), True)
NODATA = (42113, 2, 6, b"-9999\0", True)
ASCII = (34737, 2, 7, b"WGS 84|", True)


def keys(raster: int) -> tuple:
    return 34735, 3, 8, (1, 1, 0, 1, 1025, 0, 1, raster), True


def put(path: Path, array: np.ndarray, *tags: tuple, **changes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="minisblack", extratags=tags, **changes)
    return path


def sample(key: str, shape=(7, 9), *, affine=None, channels: int = 2, dtype=np.float32) -> Sample:
    generator = np.random.default_rng(len(key))
    truth = Segmentation.panoptic(generator.integers(-1, 4, shape), [0, 1, 1], [0, 9, 4], classes=CLASSES)
    return Sample(key, generator.normal(50, 9, size=(channels, *shape)).astype(dtype), Grid(shape, affine=affine), truth)


# By hand


@pytest.mark.parametrize(("raster", "half"), [(1, 0.5), (2, 0.0), (None, 0.5)])
def test_tie_points_of_corners_and_of_centres(tmp_path, raster, half):
    tags = [SCALE, TIE, *([keys(raster)] if raster else [])]
    grid = tiff.tiff_grid(put(tmp_path / "a.tif", np.zeros((30, 40), np.uint8), *tags))
    assert grid.shape == (30, 40) and grid.spacing_mm is None
    x, y, _ = grid.affine @ [20, 10, 1]  # row 20, column 10 is the tie point
    assert (x, y) == (440720 + half * 0.5, 3751320 - half * 0.25)
    assert np.allclose(grid.affine @ [22, 11, 1], [x + 0.5, y - 2 * 0.25, 1])


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_transformation_of_any_byte_order(tmp_path, order):
    matrix = (2.0, 1.0, 0, 100, -1.0, 3.0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 1)
    path = put(tmp_path / "a.tif", np.zeros((3, 4), np.uint16), (34264, 12, 16, matrix, True), keys(2), byteorder=order)
    affine = tiff.tiff_grid(path).affine  # row, column -> 2 * column + row + 100, 3 * row - column + 200
    assert np.array_equal(affine, [[1, 2, 100], [3, -1, 200], [0, 0, 1]])


def test_no_place(tmp_path):
    assert tiff.tiff_grid(put(tmp_path / "a.tif", np.zeros((3, 4), np.uint16))).affine is None
    assert tiff.geo_tags(tmp_path / "a.tif") is None
    assert tiff.tiff_grid(put(tmp_path / "a.tif", np.zeros((3, 4), np.uint16), TIE)).affine is None  # a point, no scale


def test_which_sets_it_takes(tmp_path):
    put(tmp_path / "images" / "a.tif", np.zeros((3, 4), np.uint8))
    put(tmp_path / "masks" / "a.tif", np.zeros((3, 4), np.uint8))
    assert not tiff.matches(tmp_path) and mask_folder.matches(tmp_path)
    assert tiff.matches(tmp_path / "images" / "a.tif")
    put(tmp_path / "images" / "b.tif", np.zeros((3, 4), np.uint8), SCALE, TIE)
    put(tmp_path / "masks" / "b.tif", np.zeros((3, 4), np.uint8))
    assert tiff.matches(tmp_path)
    assert [place.grid.affine is None for place in open_dataset(tmp_path)] == [True, False]
    (tmp_path / "images" / "c.png").write_bytes(b"")
    assert not tiff.matches(tmp_path)


def test_a_single_file(tmp_path):
    put(tmp_path / "a.tif", np.arange(24, dtype=np.int16).reshape(2, 3, 4), metadata={"axes": "ZYX"}, bigtiff=True)
    [only] = open_dataset(tmp_path / "a.tif")
    assert only.image.shape == (1, 2, 3, 4) and only.truth is None and only.key == "a"


@pytest.mark.parametrize("kind", ["rgb", "separated"])
def test_masks_of_colours_and_of_inks_are_pictures(tmp_path, kind):
    put(tmp_path / "images" / "a.tif", np.zeros((2, 3), np.uint8), SCALE, TIE)
    colors = np.zeros((2, 3, 3), np.uint8)
    colors[0], colors[1] = (255, 0, 0), (0, 0, 255)
    pixels = colors if kind == "rgb" else np.dstack([255 - colors, np.zeros((2, 3), np.uint8)])
    (tmp_path / "masks").mkdir()
    tifffile.imwrite(tmp_path / "masks" / "a.tif", pixels, photometric=kind)
    (tmp_path / "classes.json").write_text('{"classes": ["red", "blue"], "palette": [[255, 0, 0], [0, 0, 255]]}')
    assert tiff.read(tmp_path)[0].truth.class_map().tolist() == [[0, 0, 0], [1, 1, 1]]


def test_pages_of_a_mask_are_layers(tmp_path):
    put(tmp_path / "images" / "a.tif", np.zeros((1, 3), np.uint8), SCALE, TIE)
    put(tmp_path / "masks" / "a.tif", np.array([[[0, 1, 1]], [[0, 0, 2]]], np.uint8), metadata={"axes": "CYX"})
    truth = open_dataset(tmp_path)[0].truth
    assert truth.planes.tolist() == [[[1, 2, 2]], [[0, 0, 3]]] and truth.class_ids.tolist() == [0, 1, 2]


def test_masks_mean_what_they_show(tmp_path):
    """A palette [white, black], smoothed values, and more objects than 16 bits hold, on a map."""
    put(tmp_path / "a" / "images" / "one.tif", np.zeros((3, 4), np.uint8), SCALE, TIE)
    (tmp_path / "a" / "masks").mkdir()
    indices, colors = np.array([[0, 1, 1, 1]] * 3, np.uint8), np.zeros((3, 256), np.uint16)
    colors[:, 0] = 65535
    tifffile.imwrite(tmp_path / "a" / "masks" / "one.tif", indices, photometric="palette", colormap=colors)
    assert tiff.read(tmp_path / "a")[0].truth.class_map()[0].tolist() == [1, 0, 0, 0]
    ramp = np.array([0] * 20 + [60, 128, 200] + [255] * 20, np.uint8) * np.ones((9, 1), np.uint8)
    put(tmp_path / "b" / "images" / "one.tif", ramp, SCALE, TIE)
    put(tmp_path / "b" / "masks" / "one.tif", ramp)
    assert np.array_equal(tiff.read(tmp_path / "b")[0].truth.class_map(), ramp > 127)
    numbers = np.array([[0, 70_000], [65_535, 1]], np.uint32)
    put(tmp_path / "c" / "images" / "one.tif", numbers.astype(np.uint8), SCALE, TIE)
    put(tmp_path / "c" / "masks" / "one.tif", numbers)
    assert tiff.read(tmp_path / "c")[0].truth.instance_ids.tolist() == [0, 1, 65_535, 70_000]


def test_masks_of_regions(tmp_path):
    tiff.write(tmp_path, [sample("a")])
    put(tmp_path / "masks" / "a.tif", np.tile(np.array([0, 1, 2, 255, 1, 1, 1], np.uint8)[:, None], 9))
    table = '{"classes": ["whole", "core"], "values": [[1, 2], [2]], "masks": "regions", "ignore_index": 255}'
    (tmp_path / "classes.json").write_text(table)
    for file in (tmp_path / "instances").iterdir():
        file.unlink()
    [found] = tiff.read(tmp_path)
    assert found.truth.areas().tolist() == [45, 9] and (found.truth.planes[0, 3] == VOID).all()


# By a law


@pytest.mark.parametrize("shape", [(7, 9), (300, 400), (3, 7, 9)])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 4), (np.float32, 2), (np.int32, 5)])
def test_all_comes_back(tmp_path, shape, dtype, channels):
    affine = np.array([[0.3, 2, 1e6 / 3], [-2, 0.3, 5.1], [0, 0, 1]]) if len(shape) == 2 else None
    written = [sample(key, shape, affine=affine, channels=channels, dtype=dtype) for key in ("a", "bb")]
    tiff.write(tmp_path / "set", written)
    data = open_dataset(tmp_path / "set")
    assert data.classes == CLASSES and data.keys == ("a", "bb")
    for before, after in zip(written, data, strict=True):
        assert before.image.dtype == after.image.dtype and np.array_equal(before.image, after.image)
        assert np.array_equal(before.truth.planes == VOID, after.truth.planes == VOID)
        assert np.array_equal(before.truth.masks()[[0, 2, 1]], after.truth.masks())
        assert after.truth.instance_ids.tolist() == [0, 4, 9]
        assert affine is None or np.array_equal(after.grid.affine, affine)


def test_overlaps_come_back(tmp_path):
    masks = np.random.default_rng(0).random((3, 5, 6)) < 0.6
    truth = Segmentation.instances(masks, [0, 1, 1], classes=Classes.of(["a", "b"], is_thing=[True, True]))
    tiff.write(tmp_path / "set", [Sample.of("a", np.zeros((1, 5, 6), np.uint8), truth)])
    after = open_dataset(tmp_path / "set")[0].truth
    assert np.array_equal(after.masks(), masks) and after.instance_ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_tags_are_carried_byte_for_byte(tmp_path, order):
    array = np.random.default_rng(0).integers(0, 9, (30, 40)).astype(np.int16)
    path = put(tmp_path / "in" / "images" / "a.tif", array, SCALE, TIE, keys(1), ASCII, NODATA, byteorder=order)
    put(tmp_path / "in" / "masks" / "a.tif", (array > 4).astype(np.uint8))
    tiff.write(tmp_path / "out", open_dataset(tmp_path / "in"))
    tags = tiff.geo_tags(path)
    assert len(tags.tags) == 4 and tags.byteorder == order
    assert (tmp_path / "out" / "images" / "a.tif").read_bytes() == path.read_bytes()
    assert tiff.geo_tags(tmp_path / "out" / "masks" / "a.tif") == tags
    assert np.array_equal(tiff.tiff_grid(tmp_path / "out" / "masks" / "a.tif").affine, tiff.tiff_grid(path).affine)


@pytest.mark.parametrize("is_placed", [True, False])
def test_masks_say_what_void_is_and_nothing_of_the_values_of_the_image(tmp_path, is_placed):
    place = (SCALE, TIE, keys(1)) if is_placed else ()
    image = put(tmp_path / "a.tif", np.arange(6, dtype=np.uint8).reshape(2, 3), *place, (42113, 2, 2, b"0\0", True))
    source = Dataset("here", CLASSES, ("a",), lambda key: None, {"a": image})
    truth = Segmentation.semantic(np.array([[-1, 0, 1], [0, 0, 1]]), CLASSES)
    for palette in (False, True):
        path = tiff.write_mask(tmp_path / "out", Sample.of("a", np.zeros((1, 2, 3)), truth), source, palette=palette)
        with tifffile.TiffFile(path) as file:
            assert file.pages.first.tags[42113].value == "255"
            assert file.asarray().tolist() == [[255, 0, 1], [0, 0, 1]]
        assert tiff.geo_tags(path) == tiff.geo_tags(image)
    many = Classes.of([f"c{k}" for k in range(300)])
    one = Sample.of("a", np.zeros((1, 2, 3)), Segmentation.semantic(np.array([[-1, 0, 1], [0, 0, 299]]), many))
    with tifffile.TiffFile(tiff.write_mask(tmp_path / "many", one, source)) as file:
        assert file.pages.first.tags[42113].value == "65535" and file.asarray()[0, 0] == 65535


def test_a_mask_may_call_its_zero_nodata(tmp_path):
    for number, (text, said) in enumerate(((b"0\0", True), (b"0.0\0", True), (b"255\0", False), (b"nan\0", False))):
        path = put(tmp_path / f"{number}.tif", np.zeros((2, 3), np.uint8), (42113, 2, len(text), text, True))
        assert tiff.tags_of_mask(path).nodata.startswith("0") == said
    assert tiff.tags_of_mask(put(tmp_path / "none.tif", np.zeros((2, 3), np.uint8))) == tiff.MaskTags("", False, False)


def test_a_file_that_is_turned_has_no_place(tmp_path):
    path = put(tmp_path / "a.tif", np.zeros((2, 3), np.uint8), SCALE, TIE, keys(1), (274, 3, 1, 6, True))
    assert tiff.geo_tags(path) is None and tiff.tiff_grid(path).affine is None  # a mask is upright, and would lie elsewhere


def test_large_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "BIG", 1000)
    tiff.write(tmp_path / "set", [sample("a", (300, 400), dtype=np.uint8, channels=1)])
    with tifffile.TiffFile(tmp_path / "set" / "images" / "a.tif") as file:
        assert file.is_bigtiff and file.pages.first.is_tiled
    assert open_dataset(tmp_path / "set")[0].image.shape == (1, 300, 400)


def test_damaged_files_are_told_or_read(tmp_path):
    array = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    whole = put(tmp_path / "a.tif", array, SCALE, TIE, keys(1), compression="zlib").read_bytes()
    chance = random.Random(1)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 3)):
            spot = chance.randrange(min(len(data), 500))
            data[spot : spot + chance.choice([1, 1, 4])] = chance.randbytes(chance.choice([1, 1, 4, 0]))
        (tmp_path / "b.tif").write_bytes(data[: chance.randrange(len(data))] if chance.random() < 0.2 else data)
        try:
            tiff.read(tmp_path / "b.tif")[0]
        except FormatError as error:
            assert "b.tif" in str(error)


# By its messages


def test_what_is_no_tiff_is_told(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        tiff.tiff_grid(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(b"nothing")
    with pytest.raises(FormatError, match="damaged or no TIFF"):
        tiff.tiff_grid(tmp_path / "a.tif")
    put(tmp_path / "a.tif", np.zeros((3, 4), np.uint8), (33550, 12, 3, (0.0, 0.0, 0.0), True), TIE)
    with pytest.raises(FormatError, match="lead to no place on a map"):
        tiff.tiff_grid(tmp_path / "a.tif")


def test_numbers_that_do_not_fit_are_told(tmp_path):
    tiff.write(tmp_path / "set", [sample("a")])
    put(tmp_path / "set" / "instances" / "a.tif", np.zeros((3, 4), np.uint16))
    with pytest.raises(FormatError, match="export both again at one size"):
        tiff.read(tmp_path / "set")[0]
    put(tmp_path / "set" / "masks" / "a.tif", np.zeros((3, 4), np.uint8))
    with pytest.raises(FormatError, match="export the mask again at the size of the image"):
        tiff.read(tmp_path / "set")[0]
    with pytest.raises(OutputError, match="TIFF holds no bool here; convert it to uint8"):
        tiff.write(tmp_path / "other", [Sample.of("a", np.zeros((1, 7, 9), bool), sample("a").truth)])
