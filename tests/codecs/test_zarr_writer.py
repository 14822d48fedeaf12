"""OME-Zarr written part by part. Axes: C, (D, H, W)."""

import json
import tracemalloc

import numpy as np
import pytest

from segwright.codecs.zarr_image import ZarrImage, is_image_of_zarr, labels_of_zarr, told_labels_of_zarr
from segwright.codecs.zarr_writer import (
    list_labels,
    notes_of_channels,
    notes_of_labels,
    notes_of_objects,
    write_empty_group,
    writing_zarr,
)
from segwright.core import Classes, Grid
from segwright.core.errors import OutputError

zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
AFFINE = np.array([[0, 0, -0.5, 7], [0, 0.7, 0, -8], [2.5, 0, 0, 9], [0, 0, 0, 1.0]])
CLASSES = Classes.of(["background", "liver"], colors=[(0, 0, 0), (255, 0, 16)])


@pytest.mark.parametrize("grid", [Grid((20, 30)), Grid((9, 12, 7), (2.5, 0.7, 0.5)), Grid((9, 12, 7), (2.5, 0.7, 0.5), AFFINE)])
@pytest.mark.parametrize("channels", [None, 3])
def test_what_is_written_in_parts_comes_back(tmp_path, grid, channels):
    values = np.random.default_rng(0).random((channels or 1, *grid.shape), np.float32)
    with writing_zarr(tmp_path / "a.zarr", grid, np.float32, channels=channels) as array:
        for first in range(0, grid.shape[0], 5):
            rows = values[:, first : first + 5]
            array[(slice(None),) * (channels is not None) + (slice(first, first + 5),)] = rows if channels else rows[0]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    image = ZarrImage.opened(tmp_path / "a.zarr")
    np.testing.assert_array_equal(image.read(), values)
    assert image.grid.spacing_mm == grid.spacing_mm
    assert (image.grid.affine is None) == (grid.affine is None)
    if grid.affine is not None:
        np.testing.assert_array_equal(image.grid.affine, grid.affine)


def test_the_attributes_are_those_of_ome_zarr(tmp_path):
    grid = Grid((9, 12, 7), (2.5, 0.7, 0.5))
    with writing_zarr(tmp_path / "a.zarr", grid, np.float32, channels=2, notes=notes_of_channels(CLASSES)):
        pass
    content = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    ome = content["attributes"]["ome"]
    [scales] = ome["multiscales"]
    assert content["zarr_format"] == 3 and ome["version"] == "0.5"
    assert [axis["name"] for axis in scales["axes"]] == [*"czyx"] and scales["axes"][1]["unit"] == "millimeter"
    assert scales["datasets"] == [
        {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 2.5, 0.7, 0.5]}]}
    ]
    assert [(each["label"], each["color"]) for each in ome["omero"]["channels"]] == [
        ("background", "000000"),
        ("liver", "FF0010"),
    ]
    assert json.loads((tmp_path / "a.zarr" / "0" / "zarr.json").read_text())["dimension_names"] == [*"czyx"]


def test_label_images_name_their_numbers(tmp_path):
    with writing_zarr(tmp_path / "a.zarr", Grid((4, 5)), np.uint8, notes=notes_of_labels(CLASSES, 255)):
        pass
    told = told_labels_of_zarr(tmp_path / "a.zarr")
    assert told.is_label and told.names == {0: "background", 1: "liver"} and told.colors[1] == [255, 0, 16]
    assert told.void == 255 and told.nothing is None


def test_label_images_tell_where_numbers_begin_and_what_is_nothing(tmp_path):
    notes = notes_of_labels(CLASSES, 255, first=1, nothing=9, scores={1: 0.5})
    with writing_zarr(tmp_path / "a.zarr", Grid((4, 5)), np.uint8, notes=notes):
        pass
    told = told_labels_of_zarr(tmp_path / "a.zarr")
    assert told.names == {1: "background", 2: "liver"} and told.nothing == 9 and told.void == 255
    assert told.properties[1] == {"label-value": 2, "name": "liver", "score": 0.5}


def test_objects_and_lists_of_label_images(tmp_path):
    notes = notes_of_objects([(7, "car", 0.5), (9, "car", 1)])
    assert notes["image-label"]["properties"][0] == {"label-value": 7, "class": "car", "score": 0.5}
    write_empty_group(tmp_path / "a.zarr")
    assert not is_image_of_zarr(tmp_path / "a.zarr") and labels_of_zarr(tmp_path / "a.zarr") == ()
    with writing_zarr(tmp_path / "a.zarr" / "labels" / "masks", Grid((4, 5)), np.uint8, notes=notes) as array:
        array[:] = 0
    list_labels(tmp_path / "a.zarr", ["masks"])
    assert labels_of_zarr(tmp_path / "a.zarr") == ("masks",)


def test_empty_chunks_are_written_too(tmp_path):
    with writing_zarr(tmp_path / "a.zarr", Grid((200, 5)), np.uint8) as array:
        array[:] = 0
    files = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "a.zarr" / "0" / "c").rglob("*/*"))
    assert files == [f"a.zarr/0/c/{row}/0" for row in range(4)] and (ZarrImage.opened(tmp_path / "a.zarr").read() == 0).all()


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.zarr"
    with writing_zarr(path, Grid((4, 5)), np.uint8) as array:
        array[:] = 7
    with pytest.raises(KeyError), writing_zarr(path, Grid((4, 5)), np.uint8) as array:
        array[:] = 8
        raise KeyError
    assert [each.name for each in tmp_path.iterdir()] == ["a.zarr"] and (ZarrImage.opened(path).read() == 7).all()
    with writing_zarr(path, Grid((2, 2)), np.uint8) as array:
        array[:] = 9
    assert ZarrImage.opened(path).read().tolist() == [[[9, 9], [9, 9]]]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match="cannot be written .* choose a writable place"),
        writing_zarr(tmp_path / "file" / "a.zarr", Grid((4, 5)), np.uint8),
    ):
        pass


def test_memory_holds_the_part_and_not_the_image(tmp_path):
    """Of 32 MB in parts of 1 MB, a few parts are held."""
    part = np.random.default_rng(0).random((4, 8, 256, 32), np.float32)
    with writing_zarr(tmp_path / "a.zarr", Grid((256, 256, 32)), np.float32, channels=4) as array:
        array[:, :8] = part  # what is imported and kept for all
        tracemalloc.start()
        for first in range(8, 256, 8):
            array[:, first : first + 8] = part
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 8 * part.nbytes


def test_coarser_levels_are_made_part_by_part(tmp_path):
    """Of 16 MB, two rows of chunks are held, 256 KB of bytes, and what their means take as float32."""
    part = np.random.default_rng(0).integers(0, 255, (64, 2048), np.uint8)
    with writing_zarr(tmp_path / "a.zarr", Grid((8192, 2048)), np.uint8) as array:
        for first in range(0, 8192, 64):
            array[first : first + 64] = part
        tracemalloc.start()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4_000_000
    levels = sorted(path.name for path in (tmp_path / "a.zarr").iterdir() if path.is_dir())
    assert levels == [*"012345"] and ZarrImage.opened(tmp_path / "a.zarr").shape == (1, 8192, 2048)
