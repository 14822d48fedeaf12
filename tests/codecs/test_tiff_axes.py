"""Which axis of a stack is which: by its file, by a person, by what belongs to it."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segwright.codecs.image_file import read_image, read_mask_channels
from segwright.codecs.tiff_axes import FLAT, MASK, Axes, channels_first, check_names, named_by_a_person, told_letters
from segwright.codecs.tiff_image import told_axes
from segwright.core.errors import FormatError

STACK = Path("images/a.tif")


def put(path, shape, **how):
    """A stack of distinct numbers, its axes without names unless `how` has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **how})
    return array


# By hand


@pytest.mark.parametrize(
    ("sides", "letters", "known", "shape"),
    [
        ((6, 40, 50), "QYX", FLAT, (6, 40, 50)),  # most annotations are flat, so that these are channels
        ((40, 50, 3), "QYX", FLAT, (3, 40, 50)),
        ((6, 40, 50), "QYX", Axes((40, 50)), (6, 40, 50)),
        ((40, 50, 6), "QYX", Axes((40, 50)), (6, 40, 50)),
        ((6, 40, 50), "QYX", Axes((6, 40, 50)), (1, 6, 40, 50)),
        ((3, 40, 50), "IYX", Axes((3, 40, 50)), (1, 3, 40, 50)),
        ((6, 40, 50), "QYX", Axes((None, None, None)), (1, 6, 40, 50)),  # a model of volumes
        ((6, 40, 50), "QYX", Axes((None, None)), (6, 40, 50)),  # one of images
        ((6, 2, 40, 50), "QQYX", Axes((6, 40, 50)), (2, 6, 40, 50)),
        ((2, 6, 40, 50), "QQYX", Axes((6, 40, 50)), (2, 6, 40, 50)),
        ((6, 40, 50, 2), "QQYX", Axes((6, 40, 50)), (2, 6, 40, 50)),
        ((6, 40, 50, 3), "QYXS", Axes((6, 40, 50)), (3, 6, 40, 50)),
        ((6, 40, 50), "CYX", Axes((6, 40, 50)), (1, 6, 40, 50)),  # as ImageJ's writer says it where nobody names them
        ((6, 40, 50), "CYX", Axes((40, 50)), (6, 40, 50)),
        ((6, 2, 40, 50), "ZCYX", FLAT, (2, 6, 40, 50)),
        ((1, 6, 1, 40, 50), "TZCYX", FLAT, (1, 6, 40, 50)),
        ((6, 40, 50), "QYX", MASK, (1, 6, 40, 50)),
        ((6, 40, 50), "TYX", MASK, (1, 6, 40, 50)),
        ((6, 40, 50), "CYX", MASK, (1, 6, 40, 50)),  # six channels are no colours
        ((3, 40, 50), "CYX", MASK, (3, 40, 50)),
        ((3, 40, 50), "SYX", MASK, (3, 40, 50)),
        ((2, 4), "YX", Axes(None), (1, 2, 4)),
        ((3, 40, 50), "QYX", Axes(None), (3, 40, 50)),  # up to four are channels, where nothing else is known
        ((40, 50, 4), "QYX", Axes(None), (4, 40, 50)),
    ],
)
def test_what_is_known_tells(sides, letters, known, shape):
    array = np.zeros(sides, np.uint8)
    assert channels_first(array, letters, STACK, known).shape == shape


def test_a_person_is_heeded_first(tmp_path):
    images, (toml, above) = tmp_path / "set/images", (tmp_path / "set/dataset.toml", tmp_path / "dataset.toml")
    array = put(images / "a.tif", (6, 7, 8))
    named = put(images / "b.tif", (6, 7, 8), metadata={"axes": "TYX"})
    put(images / "one.tif", (1, 7, 8))
    four = put(images / "four.tif", (2, 2, 7, 8))
    assert np.array_equal(read_image(images / "a.tif"), array) and named_by_a_person(images / "a.tif") == ""
    above.write_text('axes = "YXC"\n')
    toml.write_text("drop = []\n")
    assert named_by_a_person(images / "a.tif") == "YXC"
    toml.write_text('axes = "ZYX"\n')
    for name, expected in (("a", array), ("b", named)):
        assert np.array_equal(read_image(images / f"{name}.tif"), expected[None])
        assert np.array_equal(read_mask_channels(images / f"{name}.tif"), expected[None])
    assert read_image(images / "one.tif").shape == (1, 1, 7, 8)  # a thin volume is one
    toml.write_text('axes = "CZYX"\n')
    assert np.array_equal(read_image(images / "four.tif"), four)
    assert np.array_equal(read_mask_channels(images / "a.tif"), array[None])  # masks have no channels
    toml.write_text('axes = "ZCYX"\n')
    assert np.array_equal(read_image(images / "four.tif"), four.swapaxes(0, 1))
    toml.write_text('axes = "CYX"\n')
    assert np.array_equal(read_image(images / "b.tif"), named)


def test_the_names_that_a_mask_tells(tmp_path):
    for name, shape, how in (("a", (6, 7, 8), {}), ("b", (6, 7, 8), {"metadata": {"axes": "ZYX"}}), ("c", (4, 5), {})):
        put(tmp_path / f"{name}.tif", shape, **how)
    assert told_axes(tmp_path / "a.tif", (6, 7, 8)) == "ZYX" and told_axes(tmp_path / "a.tif", (7, 8)) == "CYX"
    assert told_axes(tmp_path / "b.tif", (6, 7, 8)) is None and told_axes(tmp_path / "c.tif", (4, 5)) is None
    (tmp_path / "d.tif").write_bytes(b"II*\0damaged")
    assert told_axes(tmp_path / "d.tif", (4, 5)) is None
    (tmp_path / "dataset.toml").write_text('axes = "ZYX"')
    assert told_axes(tmp_path / "a.tif", (6, 7, 8)) is None


def test_it_is_said_once(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        for name in "ab":
            put(tmp_path / f"{name}.tif", (6, 7, 8))
            read_image(tmp_path / f"{name}.tif", Axes((6, 7, 8)))
            read_image(tmp_path / f"{name}.tif")
    assert caplog.text.count("are read as ZYX, as masks or the model have them") == 1


# By its messages, each of which is followed


def test_what_cannot_be_told_is_asked(tmp_path):
    array = put(tmp_path / "images/a.tif", (6, 40, 50))
    with pytest.raises(FormatError, match='6 x 40 x 50 .*write axes = "ZYX" .* or axes = "CYX" .* into dataset.toml'):
        read_image(tmp_path / "images/a.tif", Axes(None))
    for names, shape in (("ZYX", (1, 6, 40, 50)), ("CYX", (6, 40, 50))):
        (tmp_path / "dataset.toml").write_text(f'axes = "{names}"')
        assert read_image(tmp_path / "images/a.tif", Axes(None)).shape == shape
    (tmp_path / "dataset.toml").unlink()
    tifffile.imwrite(tmp_path / "images/a.tif", array, metadata={"axes": "ZYX"})
    assert read_image(tmp_path / "images/a.tif", Axes(None)).shape == (1, 6, 40, 50)
    put(tmp_path / "images/a.tif", (6, 6, 40, 50))
    with pytest.raises(FormatError, match='write axes = "ZCYX" or axes = "CZYX" into dataset.toml'):
        read_image(tmp_path / "images/a.tif", Axes((6, 40, 50)))
    put(tmp_path / "images/a.tif", (6, 40, 50), metadata={"axes": "TYX"})
    with pytest.raises(FormatError, match='holds axes TYX .*write them as axes = "ZYX" into dataset.toml'):
        read_image(tmp_path / "images/a.tif", Axes((6, 40, 50)))
    (tmp_path / "dataset.toml").write_text('axes = "ZYX"')
    assert read_image(tmp_path / "images/a.tif").shape == (1, 6, 40, 50)
    with pytest.raises(FormatError, match="holds axes QQQYX"):
        channels_first(np.zeros((2, 2, 2, 3, 3)), "QQQYX", STACK)
    assert told_letters((2, 3, 3), "ZYX", STACK, FLAT) == "ZYX"


@pytest.mark.parametrize("names", ["XYZ", "ZZYX", "TYX", "Z", "", 3, "ZYCX"])
def test_names_that_are_none_are_told(tmp_path, names):
    with pytest.raises(FormatError, match="axes is .*; Y and X and perhaps Z and C are needed, once each"):
        check_names(names, tmp_path / "dataset.toml")
    (tmp_path / "dataset.toml").write_text('axes = "ZYXX"')
    put(tmp_path / "a.tif", (6, 7, 8))
    with pytest.raises(FormatError, match="axes is 'ZYXX'"):
        read_image(tmp_path / "a.tif")
    (tmp_path / "dataset.toml").write_text("axes = [")
    with pytest.raises(FormatError, match="cannot be read as TOML"):
        read_image(tmp_path / "a.tif")
