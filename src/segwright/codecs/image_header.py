"""The size of an image from the head of its file, where that tells it for sure. Axes: (H, W), *S spatial axes."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from segwright.codecs.image_file import JPEG_MAGIC, read_image
from segwright.codecs.stored_image import EXIF_ORIENTATION, MAX_PIXELS
from segwright.codecs.tiff_axes import FLAT, Axes

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
SILENT = (  # chunks of a PNG that cannot tell of an orientation
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"bKGD", b"hIST", b"pHYs"),
    *(b"sPLT", b"tIME", b"cICP"),
)
ON_ITS_SIDE = range(5, 9)  # EXIF orientations that swap height and width


def upright_size(path: Path) -> tuple[int, int] | None:
    """The size (H, W) of the image as `read_image` gives it, upright; None where only reading the whole file can tell.

    That is so of anything but PNG without EXIF and JPEG, and of files that are damaged or too large to be read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(len(PNG_MAGIC))
            size = _png_size(path) if start == PNG_MAGIC else _jpeg_size(path) if start.startswith(JPEG_MAGIC) else None
    except Exception:  # damaged files fail in any way; the reader of whole files says how, with a remedy
        return None
    return size if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS else None


def unread_image(path: Path, axes: Axes = FLAT) -> np.ndarray:
    """An image of no channels (0, *S) of the size that `read_image` gives; no pixel is read where the head tells it.

    Raises:
        FormatError: as `read_image`; damage beyond the head of a JPEG or PNG goes unnoticed.
    """
    size = upright_size(path)
    return np.zeros((0, *(read_image(path, axes).shape[1:] if size is None else size)), np.uint8)


def _png_size(path: Path) -> tuple[int, int] | None:
    """The size, from chunks: their heads are read, the pixels are skipped."""
    size, end = None, path.stat().st_size
    with path.open("rb") as file:
        place = file.seek(len(PNG_MAGIC))
        while place < end:
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind not in SILENT:
                return None
            if kind == b"IHDR":
                width, height = struct.unpack(">II", file.read(8))
                size = height, width
            if kind == b"IEND":
                return size
            place = file.seek(place + 12 + length)  # length, kind and checksum are four bytes each
    return None  # cut short


def _jpeg_size(path: Path) -> tuple[int, int] | None:
    """The size, from what stands before the pixels."""
    with Image.open(path, formats=("JPEG",)) as picture:
        is_on_side = picture.getexif().get(EXIF_ORIENTATION, 1) in ON_ITS_SIDE
        return (picture.width, picture.height) if is_on_side else (picture.height, picture.width)
