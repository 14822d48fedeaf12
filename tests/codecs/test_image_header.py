"""The size of an image from the head of its file."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from segwright.codecs.image_file import read_image
from segwright.codecs.image_header import unread_image, upright_size
from segwright.codecs.image_writer import write_image
from segwright.codecs.stored_image import MAX_PIXELS

PICTURE = np.zeros((3, 5, 7), np.uint8)


def with_exif(path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(PICTURE.transpose(1, 2, 0)).save(path, exif=exif)
    return path


# By a slow twin


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_upright_as_the_image_is_read(tmp_path, suffix, orientation):
    path = with_exif(tmp_path / f"a{suffix}", orientation)
    expected = read_image(path).shape[1:]
    assert upright_size(path) == (expected if suffix == ".jpg" else None)  # EXIF of a PNG may follow the pixels


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".gif"])
def test_nothing_but_the_size_of_the_whole_read(tmp_path, suffix, mode):
    path = tmp_path / f"a{suffix}"
    try:
        Image.new(mode, (7, 5)).save(path)
    except (OSError, ValueError):
        return  # the format has no such pixels
    image = read_image(path)
    assert upright_size(path) in (None, image.shape[1:]) and unread_image(path).shape == (0, *image.shape[1:])
    if suffix in (".png", ".gif") and mode in ("P", "RGB"):
        Image.new(mode, (7, 5), 0).save(path, save_all=True, append_images=[Image.new(mode, (7, 5), 9)])  # an animation
        assert upright_size(path) in (None, read_image(path).shape[1:])


# By hand


def test_a_jpeg_that_is_refused_is_left_to_the_reader(tmp_path):
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg_encode(np.full((8, 8), 3000, np.uint16), bitspersample=12))
    assert upright_size(tmp_path / "a.jpg") is None


def test_a_png_of_ours(tmp_path):
    assert upright_size(write_image(tmp_path / "a", PICTURE)) == (5, 7)


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".webp"])
def test_other_files_are_read_whole(tmp_path, suffix):
    Image.fromarray(PICTURE.transpose(1, 2, 0)).save(tmp_path / f"a{suffix}")
    assert upright_size(tmp_path / f"a{suffix}") is None


def test_what_is_damaged_is_left_to_the_reader(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(PICTURE.transpose(1, 2, 0)).save(whole, "PNG")
    for size in (0, 3, 8, 20, len(whole.getvalue()) - 13):
        (tmp_path / "a.png").write_bytes(whole.getvalue()[:size])
        assert upright_size(tmp_path / "a.png") is None
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    assert upright_size(tmp_path / "a.jpg") is None
    assert upright_size(tmp_path / "none.png") is None


def test_a_claim_of_too_many_pixels_is_left_to_the_reader(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", MAX_PIXELS, 2, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    assert upright_size(tmp_path / "a.png") is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_an_image_that_is_not_read_has_its_size_and_no_channels(tmp_path, suffix):
    Image.fromarray(PICTURE.transpose(1, 2, 0)).save(tmp_path / f"a{suffix}")
    assert unread_image(tmp_path / f"a{suffix}").shape == (0, 5, 7)
    volume = write_image(tmp_path / "v", np.zeros((1, 2, 3, 4), np.uint8))
    assert unread_image(volume).shape == (0, 2, 3, 4)
