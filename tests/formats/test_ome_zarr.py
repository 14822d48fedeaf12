"""Data sets of Zarr folders. Axes: C, (D, H, W)."""

import json

import numpy as np
import pytest

from segwright.codecs.zarr_writer import writing_zarr
from segwright.core import VOID, Classes, Grid, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats import ome_zarr, open_dataset

zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")

CLASSES = Classes.of(["background", "liver", "lesion"])
GRID = Grid((3, 4, 5), (2.5, 0.7, 0.5))
IMAGE = np.arange(120, dtype=np.uint16).reshape(2, 3, 4, 5)
NUMBERS = (np.arange(60) % 3).reshape(3, 4, 5).astype(np.uint8)


def put(path, values, grid=GRID, **notes):
    channels = None if values.ndim == len(grid.shape) else len(values)
    with writing_zarr(path, grid, values.dtype, channels=channels, notes=notes) as array:
        array[:] = values
    return path


def with_labels(path, **labels):
    put(path, IMAGE)
    zarr.create_group(store=str(path / "labels"), zarr_format=3, attributes={"ome": {"labels": [*labels]}})
    for name, numbers in labels.items():
        put(path / "labels" / name, numbers)
    return path


# By hand


def test_one_folder_is_an_image(tmp_path):
    path = put(tmp_path / "head.ome.zarr", IMAGE)
    assert ome_zarr.matches(path) and ome_zarr.matches(tmp_path) and not ome_zarr.matches(path / "0")
    [only] = open_dataset(path)
    assert only.key == "head" and only.truth is None and only.grid.spacing_mm == GRID.spacing_mm
    np.testing.assert_array_equal(only.image, IMAGE)


def test_truth_lies_in_the_folder_of_the_image(tmp_path):
    with_labels(tmp_path / "b10.zarr", tissue=NUMBERS)
    with_labels(tmp_path / "b9.zarr", other=NUMBERS, masks=NUMBERS[::-1].copy())
    (tmp_path / "classes.json").write_text(json.dumps([*CLASSES.names]))
    data = open_dataset(tmp_path)
    assert data.keys == ("b9", "b10") and data.classes.names == CLASSES.names and set(data.image_files) == {"b9", "b10"}
    np.testing.assert_array_equal(data[0].truth.class_map(), NUMBERS[::-1])
    np.testing.assert_array_equal(data[1].truth.class_map(), NUMBERS)
    bare = data.without_images()[1]
    assert bare.image.shape == (0, 3, 4, 5) and np.array_equal(bare.truth.class_map(), NUMBERS)


def test_images_and_masks_lie_side_by_side(tmp_path):
    put(tmp_path / "images" / "sub" / "a.zarr", IMAGE)
    put(tmp_path / "masks" / "sub" / "a_seg.zarr", NUMBERS)
    data = open_dataset(tmp_path)
    assert data.keys == ("sub__a",) and data.classes.names == ("class_0", "class_1", "class_2")
    np.testing.assert_array_equal(data[0].truth.class_map(), NUMBERS)


def test_numbers_mean_what_label_images_say(tmp_path):
    told = {
        "colors": [{"label-value": 2, "rgba": [9, 8, 7, 255]}, {"label-value": 1, "rgba": [0, 0, 0, 0]}],
        "properties": [{"label-value": 2, "name": "cell"}],
    }
    put(tmp_path / "images" / "a.zarr", IMAGE)
    put(tmp_path / "masks" / "a.zarr", NUMBERS, **{"image-label": told})
    [only] = open_dataset(tmp_path)
    assert only.truth.classes.names == ("cell",)
    assert np.array_equal(only.truth.mask(0), NUMBERS == 2) and np.array_equal(only.truth.planes[0] == VOID, NUMBERS == 1)
    put(tmp_path / "images" / "b.zarr", IMAGE)
    put(tmp_path / "masks" / "b.zarr", NUMBERS)
    with pytest.raises(FormatError, match="give other names to their numbers; write classes.json"):
        open_dataset(tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps([*CLASSES.names]))
    assert open_dataset(tmp_path).classes.names == CLASSES.names


# By a law


@pytest.mark.parametrize("grid", [GRID, Grid((4, 5))])
def test_masks_that_are_written_come_back(tmp_path, grid):
    truth = Segmentation.semantic(np.random.default_rng(0).integers(VOID, 3, grid.shape), CLASSES)
    image = put(tmp_path / "images" / "a.zarr", np.zeros((1, *grid.shape), np.uint8), grid)
    source = open_dataset(image)
    path = ome_zarr.write_mask(tmp_path / "masks", Sample("a", source[0].image, grid, truth), source)
    assert path == ome_zarr.mask_path(tmp_path / "masks", "a", source)
    [read] = open_dataset(tmp_path)
    assert read.truth.classes == CLASSES and np.array_equal(read.truth.class_map(), truth.class_map())


# By its messages


def test_refuses_what_has_no_partner(tmp_path):
    put(tmp_path / "images" / "a.zarr", IMAGE)
    put(tmp_path / "masks" / "b.zarr", NUMBERS)
    with pytest.raises(FormatError, match=r"a.zarr has no mask of its name \(1 images and 1 masks have none\); add it"):
        ome_zarr.read(tmp_path)
    (tmp_path / "images" / "a.zarr").rename(tmp_path / "images" / "b.zarr")
    assert ome_zarr.read(tmp_path).keys == ("b",)
    (tmp_path / "images").rename(tmp_path / "others")
    with pytest.raises(FormatError, match="in 0 folders of images and 1 of masks; put them into images/ and masks/"):
        ome_zarr.read(tmp_path)


def test_refuses_several_label_images_and_images_without(tmp_path):
    with_labels(tmp_path / "a.zarr", cells=NUMBERS, nuclei=NUMBERS)
    with pytest.raises(FormatError, match="label images cells, nuclei, and one is needed; call that 'masks'"):
        ome_zarr.read(tmp_path)
    with_labels(tmp_path / "a.zarr", cells=NUMBERS)
    put(tmp_path / "b.zarr", IMAGE)
    with pytest.raises(FormatError, match="b.zarr has no label image, 1 of 2 have none; add them, or move these"):
        ome_zarr.read(tmp_path)


def test_refuses_another_shape_and_two_of_one_name(tmp_path):
    put(tmp_path / "images" / "a.zarr", IMAGE)
    put(tmp_path / "masks" / "a.zarr", NUMBERS[:2].copy(), Grid((2, 4, 5)))
    with pytest.raises(FormatError, match="3 x 4 x 5, .* is 2 x 4 x 5"):
        open_dataset(tmp_path)[0]
    put(tmp_path / "images" / "a.ome.zarr", IMAGE)
    with pytest.raises(FormatError, match="have one name, so that their partner is not clear"):
        ome_zarr.read(tmp_path)


def test_a_mask_holds_no_objects(tmp_path):
    truth = Segmentation.panoptic(np.ones((4, 5), int), [1], [3], classes=CLASSES)
    with pytest.raises(OutputError, match="has 1 objects"):
        ome_zarr.write_mask(tmp_path, Sample("a", np.zeros((1, 4, 5), np.uint8), Grid((4, 5)), truth), None)
