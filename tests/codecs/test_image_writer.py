"""Arrays to image files, and back by the readers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from segwright.codecs.image_file import read_image, read_mask
from segwright.codecs.image_writer import write_class_map, write_image, write_picture, write_values
from segwright.core import Classes
from segwright.core.errors import OutputError

EIGHT_BIT = Classes.of([f"c{k}" for k in range(255)])
SIXTEEN_BIT = Classes.of([f"c{k}" for k in range(300)])


# By hand


def test_void_and_classes_in_the_file(tmp_path):
    class_map = np.array([[0, 1, -1]])
    write_class_map(tmp_path / "few.png", class_map, Classes.of(["a", "b"]), palette=False)
    assert np.array(Image.open(tmp_path / "few.png")).tolist() == [[0, 1, 255]]
    write_class_map(tmp_path / "many.png", class_map, SIXTEEN_BIT, palette=False)
    assert np.array(Image.open(tmp_path / "many.png")).tolist() == [[0, 1, 65535]]
    write_class_map(tmp_path / "color.png", class_map, Classes.of(["a", "b"], colors=[(1, 2, 3), (4, 5, 6)]), palette=True)
    shown = Image.open(tmp_path / "color.png")
    assert shown.mode == "P" and np.array(shown.convert("RGB")).tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]
    write_class_map(tmp_path / "color.tif", class_map, Classes.of(["a", "b"], colors=[(1, 2, 3), (4, 5, 6)]), palette=True)
    assert read_image(tmp_path / "color.tif")[:, 0].T.tolist() == [[1, 2, 3], [4, 5, 6], [0, 0, 0]]
    assert read_mask(tmp_path / "color.tif").tolist() == [[0, 1, 255]]


def test_pictures_come_back(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    write_picture(tmp_path / "a.png", rgb)
    assert np.array_equal(read_image(tmp_path / "a.png"), rgb.transpose(2, 0, 1))
    smooth = np.full((16, 16, 3), (200, 30, 90), dtype=np.uint8)
    write_picture(tmp_path / "a.jpg", smooth)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - smooth.transpose(2, 0, 1)).max() <= 3


# By a law


class_maps = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.int32, shape, elements=st.integers(-1, 299))
)


@settings(max_examples=60)
@given(class_map=class_maps, suffix=st.sampled_from([".png", ".tif"]), palette=st.booleans())
def test_class_maps_come_back(tmp_path_factory, class_map, suffix, palette):
    path = tmp_path_factory.mktemp("maps") / f"map{suffix}"
    write_class_map(path, class_map, SIXTEEN_BIT, palette=False)
    assert np.array_equal(read_mask(path), class_map.astype(np.uint16))
    few = np.minimum(class_map, 254)
    write_class_map(path, few, EIGHT_BIT, palette=palette)
    assert read_mask(path).dtype == np.uint8 and np.array_equal(read_mask(path), few.astype(np.uint8))


def test_a_volume_comes_back(tmp_path):
    class_map = np.random.default_rng(0).integers(-1, 3, (4, 5, 6))
    write_class_map(tmp_path / "a.tif", class_map, Classes.of("abc"), palette=True)
    assert np.array_equal(read_mask(tmp_path / "a.tif").astype(np.int8), class_map)


@settings(max_examples=60)
@given(
    channels=st.integers(1, 5),
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=3),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
    seed=st.integers(0, 9),
)
def test_images_come_back(tmp_path_factory, channels, shape, dtype, seed):
    if len(shape) == 3:
        shape[0] += 1  # a volume of depth one is read as a plane
    image = np.random.default_rng(seed).integers(0, 255, (channels, *shape)).astype(dtype)
    path = write_image(tmp_path_factory.mktemp("images") / "a.b", image)
    assert path.name in ("a.b.png", "a.b.tif")
    read = read_image(path)
    assert read.dtype == dtype and np.array_equal(read, image)


# By its messages


def test_what_cannot_be_written(tmp_path):
    two = Classes.of(["a", "b"])
    ones = np.ones((3, 3), dtype=np.uint8)
    with pytest.raises(OutputError, match="holds 0..2, but there are 2 classes"):
        write_class_map(tmp_path / "a.png", np.array([[0, 2]]), two, palette=False)
    with pytest.raises(OutputError, match="there are 300; write without a palette"):
        write_class_map(tmp_path / "a.png", ones, SIXTEEN_BIT, palette=True)
    with pytest.raises(OutputError, match="'.jpg' keeps no exact numbers here; name the file .png or .tif"):
        write_class_map(tmp_path / "a.jpg", ones, two, palette=False)
    with pytest.raises(OutputError, match="name the file .tif"):
        write_values(tmp_path / "a.png", np.ones((2, 3, 3), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written .*choose a writable place"):
        write_class_map(tmp_path / "file" / "a.png", np.zeros((3, 3), int), EIGHT_BIT, palette=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
