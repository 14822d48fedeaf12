"""Parts of a TIFF that is larger than memory: only the tiles or strips that a part touches are read and unpacked.

This is for plain images: one page of grey values, colours or channels, without palette, mask, alpha, scale or orientation. All
others are read by tiff_image.py as a whole. Axes: C channels, H, W sides of the image.
"""

from collections import OrderedDict
from itertools import product
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage

from segwright.codecs.stored_image import EXIF_ORIENTATION
from segwright.codecs.stored_values import with_nan
from segwright.codecs.tiff_image import (
    COLORS,
    GDAL_METADATA,
    JPEG,
    check_chain,
    check_pages,
    equals_nodata,
    image_and_mask,
    nodata_of,
)
from segwright.core.errors import FormatError

# Of unpacked tiles: those of a window of the network are needed again by its neighbour. Strips are as wide as the image, and a
# band of 512 rows of 100 000 RGB pixels takes 150 MB.
KEPT_BYTES = 2**28
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")


class TiffParts:
    """An image (C, H, W) in a file; `parts[:, rows, columns]` are its values, float32 with NaN where the file lacks some.

    `opened` gives one.
    """

    def __init__(self, file: TiffFile, page: TiffPage, path: Path) -> None:
        self.file, self.page, self.path = file, page, path
        self.nodata = nodata_of(page, path)
        self.is_separate = page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        self.shape = (int(page.samplesperpixel), int(page.imagelength), int(page.imagewidth))
        self.sides = (
            (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip or page.imagelength, self.shape[2])
        )
        self.dtype = np.dtype(page.dtype).newbyteorder("=")
        self.kept: OrderedDict[int, np.ndarray] = OrderedDict()  # unpacked tiles (C or 1, h, w), used last at the end
        self.kept_bytes = 0

    @classmethod
    def opened(cls, path: Path, least: int = 0) -> "TiffParts | None":
        """The image of a file, if it is plain and has at least so many pixels.

        None otherwise, and where the file is damaged: tiff_image.py says what is wrong with it.
        """
        try:
            file = TiffFile(path)
        except Exception:  # damaged files make the decoder fail in any way
            return None
        try:
            page = _plain_page(file, path, least)
        except Exception:
            page = None
        if page is None:
            file.close()
            return None
        return cls(file, page, path)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __getitem__(self, part: tuple[slice, slice, slice]) -> np.ndarray:
        """The values (C, h, w) of some rows and columns, given by slices without steps, of all channels.

        Raises:
            FormatError: what is stored there is damaged.
        """
        (top, bottom), (left, right) = (each.indices(side)[:2] for each, side in zip(part[1:], self.shape[1:], strict=True))
        values = np.empty((self.shape[0], bottom - top, right - left), self.dtype)
        (high, wide), planes = self.sides, range(self.shape[0] if self.is_separate else 1)
        rows, columns = range(top // high, -(-bottom // high)), range(left // wide, -(-right // wide))
        for plane, row, column in product(planes, rows, columns):
            stored = self._tile(plane, row, column)
            y, x = row * high, column * wide
            here = slice(max(top, y), min(bottom, y + high)), slice(max(left, x), min(right, x + wide))
            channels = slice(plane, plane + 1) if self.is_separate else slice(None)
            values[channels, here[0].start - top : here[0].stop - top, here[1].start - left : here[1].stop - left] = stored[
                :, here[0].start - y : here[0].stop - y, here[1].start - x : here[1].stop - x
            ]
        return values[part[0]] if self.nodata is None else self._with_gaps(values, self.nodata)[part[0]]

    def _with_gaps(self, values: np.ndarray, nodata: float) -> np.ndarray:
        """Values with NaN where the file lacks some, as tiff_image.py finds them; as they are where it lacks none."""
        is_missing = equals_nodata(values, nodata)
        if self.page.photometric in COLORS and self.dtype.kind == "u":
            is_missing = np.asarray(is_missing.all(axis=0, keepdims=True))
        return with_nan(values, is_missing) if is_missing.any() else values

    def _tile(self, plane: int, row: int, column: int) -> np.ndarray:
        """The values (C or 1, h, w) of one tile or strip, which at the border of the image may reach beyond it.

        Raises:
            FormatError: it is damaged.
        """
        height, width = (-(-side // step) for side, step in zip(self.shape[1:], self.sides, strict=True))
        index = (plane * height + row) * width + column
        if index not in self.kept:
            found = self._unpacked(index)
            self.kept[index], self.kept_bytes = found, self.kept_bytes + found.nbytes
            while self.kept_bytes > KEPT_BYTES and len(self.kept) > 1:
                self.kept_bytes -= self.kept.popitem(last=False)[1].nbytes
        self.kept.move_to_end(index)
        return self.kept[index]

    def _unpacked(self, index: int) -> np.ndarray:
        """The values (C or 1, h, w) of the tile or strip of this number.

        Raises:
            FormatError: it is damaged.
        """
        try:
            handle, count = self.file.filehandle, self.page.databytecounts[index]
            handle.seek(self.page.dataoffsets[index])
            stored: bytes | None = handle.read(count) if count else None
            if count and len(stored or b"") < count:
                raise ValueError(f"{count} bytes are announced and {len(stored or b'')} are there")
            tables: dict[str, Any] = {} if self.page.jpegtables is None else {"jpegtables": self.page.jpegtables}
            values, _, shape = self.page.decode(stored, index, **tables)
        except Exception as error:  # damaged files make decoders fail in any way
            raise FormatError(f"{self.path} is damaged: piece {index} of its pixels ({error}); copy it again") from error
        if values is None:  # left out of the file: nothing but nodata, or 0
            values = np.full(shape, self.page.nodata, self.dtype)
        return np.ascontiguousarray(np.moveaxis(values[0], -1, 0)).astype(self.dtype, copy=False)


def _plain_page(file: TiffFile, path: Path, least: int) -> TiffPage | None:
    """The page of a plain image with at least so many pixels; None where it is none."""
    with mmap(file.filehandle.fileno(), 0, access=ACCESS_READ) as data:
        check_chain(file, data)
    first = file.pages.first
    if first.imagelength * first.imagewidth < least:
        return None
    series, mask = image_and_mask(file, path)
    page = series.keyframe
    check_pages(series, path)
    scale = page.tags.get(GDAL_METADATA)
    is_meant = page.tags.get(262) is not None and page.photometric in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
    is_jpeg = page.compression in JPEG and page.planarconfig == PLANARCONFIG.CONTIG and page.samplesperpixel == 3
    is_plain = (
        mask is None
        and not file.is_imagej  # which may calibrate values
        and len(series.pages) == 1
        and page.imagedepth == 1
        and (is_meant or (is_jpeg and page.photometric == PHOTOMETRIC.YCBCR))
        and str(page.dtype) in TYPES
        and page.bitspersample == 8 * np.dtype(page.dtype).itemsize
        and not any(page.extrasamples)
        and page.tags.valueof(EXIF_ORIENTATION, 1) == 1
        and (scale is None or "role=" not in str(scale.value))
        and not any(page.tags.get(code) is not None for code in (346, 433))  # Indexed, Decode
    )
    return page if is_plain else None
