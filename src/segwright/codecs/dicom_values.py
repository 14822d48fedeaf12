"""What the numbers of a DICOM slice mean: rescaled, bright ones high, colours as RGB, missing ones known, as tag_table.py says.

Axes: C channels, (H, W) rows and columns. Needs `segwright[medical]`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from segwright.codecs.stored_image import MAX_PIXELS
from segwright.codecs.stored_values import rescaled, with_nan, ycbcr_to_rgb
from segwright.codecs.tag_table import refused
from segwright.core.errors import FormatError, SegwrightError

KINDS = ("MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
DECODERS = {  # of imagecodecs, by transfer syntax
    **{f"1.2.840.10008.1.2.4.{number}": "jpeg" for number in (50, 51)},
    **{f"1.2.840.10008.1.2.4.{number}": "ljpeg" for number in (57, 70)},
    **{f"1.2.840.10008.1.2.4.{number}": "jpegls" for number in (80, 81)},
    **{f"1.2.840.10008.1.2.4.{number}": "jpeg2k" for number in (90, 91, 201, 202, 203)},
}


@dataclass(frozen=True, eq=False)
class SliceValues:
    """The rescaled values of a slice (C, H, W), the range of whatever may be stored, and whether low values are bright."""

    values: np.ndarray
    low: float
    high: float
    is_turned: bool
    missing: np.ndarray | None = None

    def shown(self, ends: tuple[float, float]) -> np.ndarray:
        """The values (C, H, W), bright ones high, NaN where missing; `ends` are the lowest and the highest of the series."""
        values = self.values
        if self.is_turned:
            turned = sum(ends) - values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
            is_alike = ends == (self.low, self.high) or values.dtype.kind == "f"
            values = turned.astype(values.dtype if is_alike else np.int32)
        return values if self.missing is None else with_nan(values, self.missing)


def slice_values(path: Path, shape: tuple[int, int]) -> SliceValues:
    """What the file of a slice holds; its header says that it has this shape (H, W).

    Raises:
        FormatError: it is damaged, has a tag that is not read, or its pixels are packed in a way that is not known.
    """
    import pydicom

    try:
        data = pydicom.dcmread(path)
        kind = str(data.get("PhotometricInterpretation", ""))
        is_packed = data.file_meta.TransferSyntaxUID.is_compressed
        count = shape[0] * shape[1]
        if (int(data.Rows), int(data.Columns)) != shape or is_packed and count > MAX_PIXELS:
            raise ValueError(f"{data.Rows} x {data.Columns} pixels are announced")
        if kind not in KINDS:
            found = f"its PhotometricInterpretation (0028,0004) is {kind!r}"
            raise refused(path, "DICOM", "(0028,0004), others", found)
        is_turned = kind == "MONOCHROME1" or kind == "MONOCHROME2" and data.get("PresentationLUTShape") == "INVERSE"
        stored = _stored(data, shape, is_packed=is_packed)
        if kind == "PALETTE COLOR":
            colors = pydicom.pixels.apply_color_lut(stored[0], data)  # (H, W, 3), of 8 or 16 bits
            is_wide = colors.dtype.itemsize > 1
            return SliceValues(
                np.moveaxis((colors >> 8 if is_wide else colors).astype(np.uint8), -1, 0), 0, 255, is_turned=False
            )
        if stored.dtype.kind == "f" and is_turned:
            raise refused(path, "DICOM", "MONOCHROME1 of floats", f"it is {kind} and its values are {stored.dtype}")
        missing = _padding(data, stored)
        if data.get("ModalityLUTSequence"):
            first, table = _modality_table(data, stored.dtype)
            values = table[np.clip(stored.astype(np.int64) - first, 0, len(table) - 1)]
            return SliceValues(values, int(table.min()), int(table.max()), is_turned, missing)
        slope, intercept = _line(data, path)
        bits = int(data.get("BitsStored") or 16)
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0, 2**bits - 1)
        low, high = sorted(end * slope + intercept for end in ends)
        return SliceValues(rescaled(stored, slope, intercept, ends), low, high, is_turned, missing)
    except SegwrightError:
        raise
    except Exception as error:  # damaged files make the decoders fail in any way
        raise FormatError(f"{path} is damaged DICOM ({reason(error)}); copy it again or remove it") from error


def _stored(data: Any, shape: tuple[int, int], *, is_packed: bool) -> np.ndarray:
    """The stored values of a slice (C, H, W), RGB where they are brightness and differences of colours."""
    below = int(data.get("HighBit", data.get("BitsStored", 0))) + 1 - int(data.get("BitsStored") or 0)  # bits of something else
    if "PixelData" in data and below > 0:
        data.BitsStored = int(data.BitsStored) + below
    try:
        stored = data.pixel_array
    except (RuntimeError, NotImplementedError, ImportError):
        if not is_packed:
            raise
        stored = unpacked(data)
    if "PixelData" in data and below > 0:
        data.BitsStored = int(data.BitsStored) - below
        stored = stored >> below
    if stored.shape[:2] != shape:
        raise ValueError(f"{stored.shape[:2]} pixels are packed, {shape} announced")
    return stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0)


def _padding(data: Any, stored: np.ndarray) -> np.ndarray | None:
    """Where pixels (C, H, W) fill up the rectangle and are no values, bool; None where none are."""
    first, last = data.get("PixelPaddingValue"), data.get("PixelPaddingRangeLimit")
    if first in (None, "") or stored.dtype.kind not in "iu":
        return None
    low, high = sorted(_wrapped(first if end in (None, "") else end, stored.dtype) for end in (first, last))
    missing = (stored >= low) & (stored <= high)
    return missing if missing.any() else None


def _wrapped(number: Any, dtype: np.dtype) -> int:
    """A number of a header as stored values have it: some programs write -2000 as 63536."""
    return int(np.int64(int(number)).astype(dtype))


def _modality_table(data: Any, dtype: np.dtype) -> tuple[int, np.ndarray]:
    """The stored number that leads to the first entry of the table of values, and the table."""
    item = data.ModalityLUTSequence[0]
    count, first, _ = item.LUTDescriptor
    count, entries = int(count) % 2**16 or 2**16, item.LUTData
    if isinstance(entries, bytes):  # words, or bytes side by side
        order = "<" if data.original_encoding[1] else ">"
        entries = np.frombuffer(entries, order + "u2" if len(entries) >= 2 * count else "u1")
    table = np.array(entries, np.uint16)[:count]
    if len(table) < count:
        raise ValueError(f"its modality LUT has {len(table)} of {count} entries")
    return _wrapped(first, dtype), table


def _line(data: Any, path: Path) -> tuple[float, float]:
    """Slope and intercept from stored numbers to values."""
    slope, intercept = data.get("RescaleSlope"), data.get("RescaleIntercept")
    mappings = data.get("RealWorldValueMappingSequence") or []
    if slope is None and intercept is None and mappings:
        if len(mappings) > 1 or "RealWorldValueSlope" not in mappings[0]:
            found = f"it has {len(mappings)} real world value mappings (0040,9096), or one by a table"
            raise refused(path, "DICOM", "(0040,9096) real world values, others", found)
        slope, intercept = mappings[0].RealWorldValueSlope, mappings[0].RealWorldValueIntercept
    line = float(slope or 1), float(intercept or 0)
    if not np.isfinite(line).all():
        raise FormatError(f"{path}: its values are rescaled by {line[0]} and {line[1]}; correct the header")
    return line


def unpacked(data: Any) -> np.ndarray:
    """The stored values (H, W) or (H, W, C) of an image whose packing pydicom has no plugin for."""
    from pydicom.encaps import get_frame

    frame = get_frame(data.PixelData, 0, number_of_frames=1)
    decode = DECODERS[str(data.file_meta.TransferSyntaxUID)]
    if decode == "jpeg" and str(data.PhotometricInterpretation).startswith("YBR"):
        return imagecodecs.jpeg_decode(frame, colorspace="YCBCR", outcolorspace="RGB")
    values = getattr(imagecodecs, f"{decode}_decode")(frame)
    if str(data.PhotometricInterpretation).startswith("YBR_FULL") and values.dtype == np.uint8:
        return np.moveaxis(ycbcr_to_rgb(np.moveaxis(values, -1, 0)), 0, -1)
    bits = int(data.BitsStored)
    if int(data.PixelRepresentation) == 1 and values.dtype.kind == "u":
        signed = np.dtype(f"i{values.dtype.itemsize}")
        free = 8 * values.dtype.itemsize - bits  # bits above the sign, which the packing leaves empty
        values = (values << free).view(signed) >> free
    return values


def reason(error: Exception) -> str:
    """What went wrong, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200] or type(error).__name__
