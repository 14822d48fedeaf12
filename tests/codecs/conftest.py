"""TIFF files tag by tag, for what no writer at hand makes."""

import struct
from collections.abc import Callable

import numpy as np
import pytest

RATIONALS = (529, 532)


def entry(code: int, value) -> tuple[int, int, bytes]:
    """Type, count and bytes of a tag: text, floats, or integers, of which some tags want pairs."""
    if isinstance(value, str):
        return 2, len(value) + 1, value.encode() + b"\0"
    numbers = np.atleast_1d(value)
    if code in RATIONALS:
        pairs = np.stack([np.rint(numbers * 1000), np.full(len(numbers), 1000)], axis=1)
        return 5, len(numbers), pairs.astype("<u4").tobytes()
    if numbers.dtype.kind == "f":
        return 12, len(numbers), numbers.astype("<f8").tobytes()
    return 4, len(numbers), numbers.astype("<u4").tobytes()


def tiff(*pages: tuple[np.ndarray, dict]) -> bytes:
    """A little-endian TIFF of pages (H, W) or (H, W, C), each in one piece as it is; `tags` add, change or, if None, drop one.

    The pixels are those of the array, unless the tags have `data`, the bytes.
    """
    content = bytearray(b"II*\0")
    place_of_next = len(content)
    content += bytes(4)
    for values, changes in pages:
        height, width, channels = np.atleast_3d(values).shape
        data = changes.pop("data", None) or values.tobytes()
        tags = {
            256: width, 257: height, 258: [8 * values.dtype.itemsize] * channels, 259: 1, 262: 2 if channels == 3 else 1,
            277: channels, 278: height, 279: len(data), 284: 1, 339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * channels,
        } | changes  # fmt: skip
        tags[273] = len(content)
        content += data + bytes(-len(data) % 4)
        entries = b""
        for code, (kind, count, raw) in sorted((code, entry(code, value)) for code, value in tags.items() if value is not None):
            if len(raw) > 4:
                place = len(content)
                content += raw + bytes(-len(raw) % 4)
                raw = struct.pack("<I", place)
            entries += struct.pack("<HHI", code, kind, count) + raw.ljust(4, b"\0")
        content[place_of_next : place_of_next + 4] = struct.pack("<I", len(content))
        content += struct.pack("<H", len(entries) // 12) + entries
        place_of_next = len(content)
        content += bytes(4)
    return bytes(content)


@pytest.fixture
def write_tiff(tmp_path) -> Callable[..., object]:
    """Write pages as a.tif, as `tiff` makes them, and return its path; a page without tags is given as an array."""

    def write(*pages, **tags):
        pages = [
            page if isinstance(page, tuple) else (page, {int(code[1:]): value for code, value in tags.items()})
            for page in pages
        ]
        (tmp_path / "a.tif").write_bytes(tiff(*pages))
        return tmp_path / "a.tif"

    return write
