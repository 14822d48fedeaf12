"""DICOM series to arrays: which files belong together, in which order they lie in space, what their values are.

Axes: C channels, *S spatial axes, (D, H, W) with D along the normal of the slices, or (H, W) for images without a position.
Needs `segwright[medical]`.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from segwright.codecs.dicom_values import reason, slice_values
from segwright.codecs.tag_table import refused
from segwright.core import Grid
from segwright.core.errors import FormatError, MissingExtraError, SegwrightError

log = logging.getLogger(__name__)

TAGS = [
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "Rows", "Columns", "PixelSpacing",
    "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "NumberOfFrames", "ImageType",
]  # fmt: skip
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # segmentations and label maps
DEFLATED = b"1.2.840.10008.1.2.1.99"  # the whole file is one zlib stream, which pydicom unpacks unasked: a bomb could be in it
MAGIC_PLACE, MAGIC = 128, b"DICM"
SAME_DIRECTION = 1e-3  # difference of two direction cosines that are taken for one; files round to 6 digits
UNEVEN = 0.02  # of the distance of slices, by which one may lie off its place; scanners round positions to 0.001 mm


@dataclass(frozen=True, eq=False)
class Slice:
    """What the header of one image says; `position` (3,) and `orientation` (2, 3), of row and column, may be None.

    A localizer is a picture across the body in which the scan was planned.
    """

    path: Path
    uid: str
    series_uid: str
    series_number: int | None
    number: int | None
    shape: tuple[int, int]
    spacing: tuple[float, float] | None
    thickness: float | None
    position: np.ndarray | None
    orientation: np.ndarray | None
    is_localizer: bool

    @property
    def has_place(self) -> bool:
        """Whether the header says where in space the image lies."""
        return self.position is not None and self.orientation is not None and self.spacing is not None


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM; False for what cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MAGIC_PLACE + 4)[MAGIC_PLACE:] == MAGIC
    except OSError:
        return False


def files_below(root: Path) -> Iterator[Path]:
    """All files below a folder, or the file itself, but hidden ones; names do not matter."""
    if root.is_file():
        yield root
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))  # os.walk enters what is left here
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def find_series(root: Path) -> tuple[dict[str, list[Slice]], list[Path], list[Path]]:
    """The slices of each series below a folder, by the UID of the series; files of segmentations; and those of structure sets.

    Localizers are passed over beside other series, as a log line says.

    Raises:
        FormatError: the header of a DICOM file is damaged, or it is a kind of image that is not read.
        MissingExtraError: pydicom is not installed.
    """
    series: dict[str, list[Slice]] = {}
    segmentations: list[Path] = []
    structures: list[Path] = []
    for path in files_below(root):
        if path.name == "DICOMDIR" or not is_dicom(path):
            continue
        header = read_header(path, TAGS)
        if str(header.get("SOPClassUID", "")) in SEGMENTATION_CLASSES:
            segmentations.append(path)
        elif str(header.get("SOPClassUID", "")) == STRUCTURE_SET:
            structures.append(path)
        elif "Rows" in header and "Columns" in header:  # not a report, plan or drawing
            one = _slice(path, header)
            series.setdefault(one.series_uid, []).append(one)
    localizers = {uid for uid, slices in series.items() if all(one.is_localizer for one in slices)}
    if len(localizers) < len(series):
        for uid in localizers:
            log.warning("%s: %d localizers beside the scan are passed over", series[uid][0].path, len(series.pop(uid)))
    return series, segmentations, structures


def read_header(path: Path, tags: Sequence[str] | None = None) -> Any:
    """The header of a DICOM file without its pixels, all of it or some tags.

    Raises:
        FormatError: it is damaged.
        MissingExtraError: pydicom is not installed.
    """
    dicom = _pydicom()
    try:
        with path.open("rb") as file:
            if DEFLATED in file.read(1024):
                raise FormatError(
                    f"{path} is deflated as a whole, which is not read; save it uncompressed, as with dcmconv +te"
                )
        header = dicom.dcmread(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))
        return header if tags is None else dicom.Dataset({element.tag: element for element in header})  # parsed by being seen
    except SegwrightError:
        raise
    except Exception as error:  # pydicom parses what it finds, and damaged files make that fail in any way
        raise FormatError(f"{path} is damaged DICOM ({reason(error)}); copy it again or remove it") from error


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """The slices of one series in the order of their positions along the normal.

    Raises:
        FormatError: they have several sizes, directions or pixel spacings, two lie at one place, or the distances differ.
    """
    first = slices[0]
    what = f"series {first.series_number if first.series_number is not None else first.series_uid} in {first.path.parent}"
    if not first.has_place or first.orientation is None:
        raise FormatError(f"{what}: {first.path.name} says nothing of its position; remove it or give it alone")
    for other in slices:
        if other.shape != first.shape:
            raise _mixed(what, first, other, f"are {first.shape} and {other.shape} rows x columns")
        if (
            not other.has_place
            or other.orientation is None
            or np.abs(other.orientation - first.orientation).max() > SAME_DIRECTION
        ):
            raise _mixed(what, first, other, "lie in different directions")
        if not np.allclose(other.spacing or 0, first.spacing or 0, rtol=1e-3):
            raise _mixed(what, first, other, f"have pixels of {first.spacing} and {other.spacing} mm")
    positions = np.array([one.position for one in slices])  # (D, 3)
    normal = np.cross(first.orientation[0], first.orientation[1])
    order = np.argsort(positions @ normal, kind="stable")
    ordered, heights = [slices[index] for index in order], (positions @ normal)[order]
    if len(slices) == 1:
        return ordered
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    same = int(np.argmin(gaps))
    if gaps[same] < 1e-3 * max(usual, 1e-3) + 1e-6:
        raise FormatError(
            f"{what}: {ordered[same].path.name} and {ordered[same + 1].path.name} lie at one place ({_place(ordered[same])}); "
            "give each time point, echo or copy a folder of its own"
        )
    steps = np.linspace(positions[order[0]], positions[order[-1]], len(slices))  # (D, 3), where they should lie
    off = np.linalg.norm(positions[order] - steps, axis=1)
    if off.max() > UNEVEN * usual:
        wide = int(np.argmax(gaps))
        raise FormatError(
            f"{what}: its slices are {usual:.4g} mm apart, but {ordered[wide].path.name} and {ordered[wide + 1].path.name} "
            f"{gaps[wide]:.4g} mm (after {_place(ordered[wide])}); add the missing slices, or split the series there"
        )
    return ordered


def read_series(ordered: Sequence[Slice]) -> tuple[np.ndarray, Grid]:
    """The values (C, D, H, W) as tag_table.py says, and the grid in LPS of slices that are in order.

    One slice without position becomes an image (C, H, W). Values stay integers where slope and intercept are, else float32;
    where some are missing they are NaN.

    Raises:
        FormatError: a file is damaged, has a tag that is not read, or its pixels are packed in a way that is not known.
    """
    slices = [slice_values(one.path, one.shape) for one in ordered]
    kinds = {one.values.shape for one in slices}
    if len(kinds) > 1:
        raise FormatError(f"{ordered[0].path.parent}: its slices have the shapes {sorted(kinds)}; give each kind its folder")
    ends = min(one.low for one in slices), max(one.high for one in slices)
    images = [one.shown(ends) for one in slices]  # (C, H, W) each
    if not ordered[0].has_place:
        return images[0], Grid(ordered[0].shape, ordered[0].spacing)
    return np.stack(images, axis=1), series_grid(ordered)


def series_grid(ordered: Sequence[Slice]) -> Grid:
    """The grid (D, H, W) of slices that are in order and have a place."""
    first, last = ordered[0], ordered[-1]
    if first.position is None or last.position is None or first.orientation is None or first.spacing is None:
        return Grid(first.shape, first.spacing)
    row, column = first.orientation
    step = np.cross(row, column) * (first.thickness or 1.0)
    if len(ordered) > 1:
        step = (last.position - first.position) / (len(ordered) - 1)
    affine = np.eye(4)
    affine[:3] = np.stack([step, column * first.spacing[0], row * first.spacing[1], first.position], axis=1)
    return Grid((len(ordered), *first.shape), (float(np.linalg.norm(step)), *first.spacing), affine)


def _pydicom() -> ModuleType:
    """The package pydicom.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError("DICOM needs pydicom, install it: pip install 'segwright[medical]'") from error
    return pydicom


def _slice(path: Path, header: Any) -> Slice:
    """What a header says, checked."""
    try:
        frames, shape = int(header.get("NumberOfFrames") or 1), (int(header.Rows), int(header.Columns))
        spacing = _floats(header, "PixelSpacing", 2) or _floats(header, "ImagerPixelSpacing", 2)
        position, orientation = _floats(header, "ImagePositionPatient", 3), _floats(header, "ImageOrientationPatient", 6)
        thickness = _floats(header, "SliceThickness", 1)
        numbers = [None if header.get(name) is None else int(header.get(name)) for name in ("SeriesNumber", "InstanceNumber")]
        is_localizer = "LOCALIZER" in map(str, header.get("ImageType") or [])
        uids = [str(header.get(name) or "") for name in ("SOPInstanceUID", "SeriesInstanceUID")]
    except Exception as error:  # a value of another kind than its tag is read when it is asked for
        raise FormatError(f"{path} is damaged DICOM ({reason(error)}); copy it again or remove it") from error
    if frames > 1:
        raise refused(path, "DICOM", "(0028,0008) frames", f"it holds {frames} frames")
    if min(shape) < 1 or spacing is not None and min(spacing) <= 0:
        raise FormatError(f"{path} has {shape} rows and columns of {spacing} mm; copy it again or remove it")
    directions = None if orientation is None else np.array(orientation).reshape(2, 3)
    if directions is not None and np.abs(directions @ directions.T - np.eye(2)).max() > 0.01:  # files round to 3 digits or more
        raise FormatError(f"{path}: its rows and columns run along {directions.tolist()}, which is no direction; correct it")
    return Slice(
        path, uids[0], uids[1], numbers[0], numbers[1], shape,
        (spacing[0], spacing[1]) if spacing else None, thickness[0] if thickness and thickness[0] > 0 else None,
        None if position is None else np.array(position), directions, is_localizer,
    )  # fmt: skip


def _floats(header: Any, name: str, count: int) -> tuple[float, ...] | None:
    value = header.get(name)
    if value is None or value == "":
        return None
    numbers = tuple(float(number) for number in ([value] if count == 1 else value))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{name} is {value}")
    return numbers


def _mixed(what: str, first: Slice, other: Slice, difference: str) -> FormatError:
    return FormatError(
        f"{what} is mixed: {first.path.name} and {other.path.name} {difference}; give each kind a folder of its own"
    )


def _place(one: Slice) -> str:
    return "position " + " ".join(f"{number:g}" for number in (one.position if one.position is not None else ()))
