"""Images in Zarr folders. Axes: C, (D, H, W)."""

import sys

import numpy as np
import pytest

from segwright.codecs.tiff_axes import Axes
from segwright.codecs.zarr_image import (
    ZarrImage,
    chunks_of_zarr,
    is_image_of_zarr,
    is_zarr,
    labels_of_zarr,
    read_numbers_of_zarr,
    told_labels_of_zarr,
    zarr_package,
    zarr_stem,
)
from segwright.core.errors import FormatError, MissingExtraError

SHAPE = (2, 3, 4, 5)  # of the axes c, z, y, x
VALUES = np.arange(120, dtype=np.uint16).reshape(SHAPE)


def ome(path, values=VALUES, names="czyx", *, version=3, scale=None, unit="micrometer", scales=1, **more):
    """An OME-Zarr 0.5, or 0.4 of version 2, whose coarser levels hold nothing of worth."""
    zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    types = {"t": "time", "c": "channel"}
    axes = [{"name": name, "type": types.get(name, "space")} for name in names]
    for axis in axes:
        axis |= {"unit": unit} if unit and axis["type"] == "space" else {}
    change = [{"type": "scale", "scale": list(scale or (1.0,) * len(names))}]
    levels = [{"path": str(level), "coordinateTransformations": change} for level in range(scales)]
    content = {"version": "0.5" if version == 3 else "0.4", "multiscales": [{"axes": axes, "datasets": levels}], **more}
    attributes = {"ome": content} if version == 3 else content
    group = zarr.create_group(store=str(path), zarr_format=version, attributes=attributes)
    chunks = tuple(min(2, side) for side in values.shape)
    for level in range(scales):
        stored = values if level == 0 else np.zeros_like(values[..., ::2])
        group.create_array(str(level), shape=stored.shape, dtype=stored.dtype, chunks=chunks)[:] = stored
    return path


# By hand


@pytest.mark.parametrize("version", [2, 3])
def test_the_finest_level_is_read_with_its_pixel_size(tmp_path, version):
    path = ome(tmp_path / "a.zarr", version=version, scale=(1, 500, 250, 125), scales=2)
    image = ZarrImage.opened(path)
    assert image.shape == SHAPE and image.dtype == np.uint16 and image.grid.spacing_mm == pytest.approx((0.5, 0.25, 0.125))
    np.testing.assert_array_equal(image.read(), VALUES)
    window = (slice(0, 2), slice(1, 3), slice(0, 2), slice(3, 5))
    np.testing.assert_array_equal(image[window], VALUES[window])


def test_both_scales_of_a_multiscale_count(tmp_path):
    zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    path = ome(tmp_path / "a.zarr", scale=(1, 2, 1, 1), unit="millimeter")
    group = zarr.open_group(str(path))
    content = group.attrs["ome"]
    content["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [1, 1, 0.5, 0.5]}]
    group.attrs["ome"] = content
    assert ZarrImage.opened(path).grid.spacing_mm == (2, 0.5, 0.5)


def test_five_axes_of_a_microscope_are_an_image(tmp_path):
    path = ome(tmp_path / "a.ome.zarr", VALUES[None, :, :1], "tczyx")
    image = ZarrImage.opened(path)
    assert image.grid.shape == (4, 5)
    np.testing.assert_array_equal(image.read(), VALUES[:, 0])
    assert is_zarr(path) and zarr_stem(path.name) == "a" and not is_zarr(tmp_path)


def test_axes_come_in_any_order(tmp_path):
    image = ZarrImage.opened(ome(tmp_path / "a.zarr", VALUES.transpose(2, 3, 1, 0), "yxzc"))
    np.testing.assert_array_equal(image.read(), VALUES)
    np.testing.assert_array_equal(image[:, 1:2, :, 2:4], VALUES[:, 1:2, :, 2:4])


def test_units_that_are_not_told_are_micrometres(tmp_path, caplog):
    assert ZarrImage.opened(ome(tmp_path / "a.zarr", unit=None)).grid.spacing_mm is None  # nothing is told
    assert ZarrImage.opened(ome(tmp_path / "b.zarr", unit=None, scale=(1, 3, 1, 1))).grid.spacing_mm == (3e-3, 1e-3, 1e-3)
    assert "images tell no unit of their pixel size; micrometres are taken" in caplog.text
    assert ZarrImage.opened(ome(tmp_path / "c.zarr", unit="parsec")).grid.spacing_mm is None
    assert "is parsec, which is not read" in caplog.text


def test_the_step_of_time_says_nothing_of_pixels(tmp_path, caplog):
    path = ome(tmp_path / "a.zarr", VALUES[:1], "tzyx", scale=(0.5, 1, 1, 1), unit=None)
    assert ZarrImage.opened(path).grid.spacing_mm is None and not caplog.records


@pytest.mark.parametrize("names", [None, ("z", "y", "x")])
def test_arrays_alone(tmp_path, names):
    zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    values = np.arange(210).reshape(5, 6, 7)
    options = {"dimension_names": names} if names else {}
    array = zarr.create_array(store=str(tmp_path / "a.zarr"), shape=values.shape, dtype=values.dtype, **options)
    array[:] = values
    if names is None:
        with pytest.raises(FormatError, match=r'axes have no names.*write axes = "ZYX" .* into dataset.toml'):
            ZarrImage.opened(tmp_path / "a.zarr", Axes(None))
        (tmp_path / "dataset.toml").write_text('axes = "ZYX"\n')
    np.testing.assert_array_equal(ZarrImage.opened(tmp_path / "a.zarr").read(), values[None])


def test_label_images(tmp_path):
    zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    path = ome(tmp_path / "a.zarr")
    assert labels_of_zarr(path) == ()
    zarr.create_group(store=str(path / "labels"), zarr_format=3, attributes={"ome": {"labels": ["cells"]}})
    told = {
        "colors": [{"label-value": 1, "rgba": [9, 8, 7, 255]}, {"label-value": 255, "rgba": [0, 0, 0, 0]}],
        "properties": [{"label-value": 0, "name": "background"}, {"label-value": 1, "name": "cell"}],
    }
    numbers = (VALUES[0] % 2).astype(bool)
    ome(path / "labels" / "cells", numbers, "zyx", **{"image-label": told})
    assert labels_of_zarr(path) == ("cells",)
    for name in ("gone", "../0"):
        attributes = {"ome": {"labels": ["cells", name]}}
        zarr.create_group(store=str(tmp_path / "b.zarr" / "labels"), zarr_format=3, attributes=attributes, overwrite=True)
        (tmp_path / "b.zarr" / "labels" / "cells").mkdir()
        with pytest.raises(FormatError, match="the label image '.*', which is not there; copy it again, or shorten the list"):
            labels_of_zarr(tmp_path / "b.zarr")
    found, grid = read_numbers_of_zarr(path / "labels" / "cells")
    assert found.dtype == np.uint8 and grid.shape == SHAPE[1:]
    np.testing.assert_array_equal(found, numbers)
    said = told_labels_of_zarr(path / "labels" / "cells")
    assert said.names == {0: "background", 1: "cell"} and said.colors[1] == [9, 8, 7] and said.void == 255
    assert not told_labels_of_zarr(path).is_label and is_image_of_zarr(path)


# By its messages


def test_refuses_what_is_no_image(tmp_path):
    pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    wrong = [
        (lambda path: None, "does not exist, or is no folder"),
        (lambda path: path.mkdir(), "is no Zarr: it holds none of zarr.json, .zgroup, .zarray; copy it again"),
        (lambda path: ome(path, VALUES, "tzyx"), "holds 2 time points, one is needed; save each"),
        (lambda path: ome(path, VALUES, "czyq"), "whose axes have no names|holds axes"),
        (lambda path: ome(path, VALUES.astype(complex)), "holds complex128; save it as integers or floats"),
        (lambda path: ome(path, scale=(1, 0, 1, 1)), "correct the scale in its multiscales"),
    ]
    for number, (make, message) in enumerate(wrong):
        path = tmp_path / f"{number}.zarr"
        make(path)
        with pytest.raises(FormatError, match=message):
            ZarrImage.opened(path)


def test_refuses_groups_of_images(tmp_path):
    zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    zarr.create_group(store=str(tmp_path / "a.zarr"), zarr_format=3)
    ome(tmp_path / "a.zarr" / "0")
    with pytest.raises(FormatError, match=r"a group without multiscales, not one image; .* such as a copy of .*0"):
        ZarrImage.opened(tmp_path / "a.zarr")


def test_refuses_damaged_chunks_and_what_no_memory_holds(tmp_path):
    zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    path = ome(tmp_path / "a.zarr")
    chunk = next(file for file in sorted((path / "0" / "c").rglob("*")) if file.is_file())
    chunk.write_bytes(chunk.read_bytes()[:5])
    with pytest.raises(FormatError, match="is damaged or cut short .*; copy it again"):
        ZarrImage.opened(path).read()
    (path / "0" / "zarr.json").write_text("{")
    with pytest.raises(FormatError, match="is damaged or cut short"):
        ZarrImage.opened(path)
    zarr.create_array(store=str(tmp_path / "b.zarr"), shape=(2**24, 2**24), dtype="f8", chunks=(1024, 1024))
    with pytest.raises(FormatError, match="16777216 x 16777216 of float64, more than the memory .* save parts of it"):
        ZarrImage.opened(tmp_path / "b.zarr")


def test_chunks_that_are_not_there_are_counted(tmp_path):
    zarr = pytest.importorskip("zarr", reason="Zarr needs segwright[zarr]")
    for version in (2, 3):
        path = tmp_path / f"{version}.zarr"
        array = zarr.create_array(store=str(path), shape=(4, 6), chunks=(2, 2), dtype="u1", zarr_format=version)
        array[:2, :3] = 7
        assert chunks_of_zarr(path) == (4, 6)
        array[:] = 1
        assert chunks_of_zarr(path) == (0, 6)


def test_masks_are_whole_numbers_of_one_channel(tmp_path):
    with pytest.raises(FormatError, match="2 channels that differ, one number per pixel is needed; save the argmax"):
        read_numbers_of_zarr(ome(tmp_path / "a.zarr"))
    with pytest.raises(FormatError, match="fractions"):
        read_numbers_of_zarr(ome(tmp_path / "b.zarr", VALUES[0] / 2, "zyx"))


def test_says_how_to_install_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'segwright\[zarr\]'"):
        zarr_package()
