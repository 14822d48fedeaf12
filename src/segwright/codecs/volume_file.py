"""Volume files to arrays and back: NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd).

Axes: C channels, *S spatial axes, (D, H, W) = z, y, x of the file, or (H, W) = y, x.

Components of a pixel and a fourth axis become channels, an alpha channel is left out. A file of two axes stays an image, a
volume of one slice a volume. The affine of the grid leads to millimetres in LPS (core/grid.py); NIfTI's RAS is converted.
Writing needs `segwright[medical]`.
"""

import gzip
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import BinaryIO
from uuid import uuid4

import numpy as np

from segwright.codecs.nifti_header import nifti
from segwright.codecs.volume_header import (
    META_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    SHEAR,
    SUFFIXES,
    Layout,
    meta,
    nrrd,
    suffix_of,
)
from segwright.codecs.whole_numbers import whole_numbers
from segwright.core import Grid
from segwright.core.atomic_files import check_utf8
from segwright.core.errors import FormatError, MissingExtraError, OutputError

WRITTEN_TYPES = tuple(np.dtype(f"{kind}{size}") for kind in "ui" for size in (1, 2, 4, 8)) + (np.dtype("f4"), np.dtype("f8"))
CHUNK = 2**22  # bytes unpacked at a time: no second copy of the whole


def read_volume(path: Path | str) -> tuple[np.ndarray, Grid]:
    """The values (C, *S) of a volume file in the dtype of the file, and its grid with spacing and affine.

    Values that the header says to scale (NIfTI's slope and intercept) are scaled, float32, or float64 if they are stored so.

    Raises:
        FormatError: the file is missing, damaged, cut short, of another kind, or claims more than is safe to unpack.
    """
    layout = layout_of(Path(path))
    values, grid = _channels_first(layout)
    return _scaled(values, layout, np.float64 if values.dtype.itemsize == 8 else np.float32), grid


def read_numbers_of_volume(path: Path | str) -> tuple[np.ndarray, Grid]:
    """The whole numbers (C, *S) of a mask file, -1 where it says NaN, and its grid. What a slope has rounded is whole again.

    Raises:
        FormatError: as `read_volume`; or there are fractions.
    """
    path = Path(path)
    layout = layout_of(path)
    values, grid = _channels_first(layout)
    return whole_numbers(_scaled(values, layout, np.float64), path, slope=layout.slope if layout.is_scaled else 0.0), grid


def layout_of(path: Path) -> Layout:
    """How the pixels of a volume file lie and where in the world, by its header alone.

    Raises:
        FormatError: the file is missing, of another kind, or its header is damaged or says what is not read.
    """
    suffix = suffix_of(path)
    if suffix in NIFTI_SUFFIXES:
        return nifti(path)
    if suffix in NRRD_SUFFIXES:
        return nrrd(path)
    if suffix in META_SUFFIXES:
        return meta(path)
    raise FormatError(f"{path} does not end like a volume file; {', '.join(SUFFIXES)} can be read")


def write_volume(path: Path | str, array: np.ndarray, grid: Grid, notes: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write values (C, *S) in the format that the name ends like, whole or not at all. `read_volume` gives them back.

    `notes` are kept by NRRD alone, as name:=value.

    Values and dtype are kept. So are spacing and affine: by MetaImage and NRRD to 1e-15, by NIfTI to float32 (1e-7 of the
    spacing, the direction and the distance to the world's origin). Where the grid has no spacing it becomes 1 mm; where
    it has no affine, the axes become those of the world. The channels of a volume become a fourth axis in NIfTI, where most
    programs look for them, and components of each pixel otherwise.

    Raises:
        OutputError: the place is not writable, or the file cannot hold the dtype or the grid.
        MissingExtraError: SimpleITK is not installed.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if not suffix:
        raise OutputError(f"{path} does not end like a volume file; name it {', '.join(SUFFIXES)}")
    if array.dtype.newbyteorder("=") not in WRITTEN_TYPES:
        remedy = "uint8" if array.dtype == bool else "float32" if array.dtype.kind == "f" else "two channels of float32"
        raise OutputError(f"{path}: volume files hold no {array.dtype}; convert it to {remedy} first")
    if not array.size:
        raise OutputError(f"{path}: the image has the shape {array.shape}, which is empty; leave it out")
    check_utf8(path)  # SimpleITK would end the process
    itk = _simple_itk()
    image = _image(itk, path, np.ascontiguousarray(array, array.dtype.newbyteorder("=")), grid, suffix in NIFTI_SUFFIXES)
    if suffix in NRRD_SUFFIXES:
        for name, value in notes.items():
            image.SetMetaData(name, value)
    folder = path.parent / f".{path.name[:50]}.{uuid4().hex}"  # 50: names longer than 255 bytes are refused
    try:
        folder.mkdir(parents=True)
        itk.WriteImage(image, str(folder / path.name), useCompression=suffix != ".nii")
        read_volume(folder / path.name)  # NIfTI's writer is content where the disk is full, and leaves the end out
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):  # a header after its pixels
            os.replace(file, path.with_name(file.name))  # noqa: PTH105  (one step on every system)
    except (OSError, RuntimeError, FormatError) as error:
        reason = error.strerror if isinstance(error, OSError) else _last_line(error)
        reason = "only a part of it arrived" if isinstance(error, FormatError) else reason
        raise OutputError(f"{path} cannot be written ({reason}); choose a writable place with free space") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _simple_itk() -> ModuleType:
    """The package SimpleITK.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingExtraError(
            "volume files need SimpleITK, which is not installed: pip install 'segwright[medical]'"
        ) from error
    return SimpleITK


def _channels_first(layout: Layout) -> tuple[np.ndarray, Grid]:
    """The values (C, *S) as they are stored, without alpha, and their grid."""
    stored = _unpacked(layout)
    steps, origin = layout.place
    values = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if layout.channel_axis is not None:
        values = np.moveaxis(values, layout.channel_axis, 0)
        values = values[:-1] if layout.has_alpha else values
    shape = values.shape[-len(origin) :]
    return np.ascontiguousarray(values).reshape(-1, *shape), _grid(
        shape, steps, origin
    )  # NIfTI: a fourth axis, or the fifth of vectors


def _scaled(values: np.ndarray, layout: Layout, dtype: type) -> np.ndarray:
    """Stored values as the header says to scale them, as they are where it says nothing."""
    if not layout.is_scaled:
        return values
    values = values.astype(dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):  # a slope may be any number
        values *= values.dtype.type(layout.slope)
        values += values.dtype.type(layout.inter)
    return values


def _unpacked(layout: Layout) -> np.ndarray:
    """The pixels as they are stored. Decoders fill those of a cut NIfTI with zeros and trust its check sum unseen; not here.

    Raises:
        FormatError: the file is damaged or cut short.
    """
    stored = np.empty(layout.stored, layout.dtype)
    count, room = 0, memoryview(stored.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    try:
        if layout.coding == "text":
            numbers = np.array(layout.file.read_bytes()[layout.start :].split(), dtype=layout.dtype)
            return numbers.reshape(layout.stored)
        for piece in _pieces(layout):
            room[count : count + len(piece)] = piece[: len(room) - count]
            count = min(count + len(piece), len(room))
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise FormatError(f"{layout.file} is damaged or cut short ({error}); copy it again or remove it") from error
    if count < len(room):
        raise FormatError(f"{layout.file} is cut short: {count:,} of {len(room):,} bytes of pixels are there; copy it again")
    return stored


def _pieces(layout: Layout) -> Iterator[bytes]:
    """The unpacked bytes of a file, to its end, where packed files keep a check sum."""
    with layout.file.open("rb") as file:
        is_nifti = suffix_of(layout.file) in NIFTI_SUFFIXES  # there the header is packed, too
        unpacked: gzip.GzipFile | BinaryIO = file
        if layout.coding == "zlib":
            file.seek(layout.start)
            unpack = zlib.decompressobj()
            while data := unpack.unconsumed_tail or file.read(CHUNK):
                yield unpack.decompress(data, CHUNK)
            if not unpack.eof:
                raise EOFError("its packed pixels have no end")
            return
        if layout.coding == "gzip" and not is_nifti:
            file.seek(layout.start)
        if layout.coding == "gzip":
            unpacked = gzip.GzipFile(fileobj=file)
        if layout.coding == "raw" or is_nifti:
            unpacked.seek(layout.start)
        while piece := unpacked.read(CHUNK):
            yield piece


def _grid(shape: tuple[int, ...], steps: np.ndarray, origin: np.ndarray) -> Grid:
    """The grid of steps and origin, turned from the order x, y, z of files to that of arrays."""
    axes = len(shape)
    affine = np.eye(axes + 1)
    affine[:axes, :axes], affine[:axes, axes] = steps[:, ::-1], origin
    spacing = np.linalg.norm(steps, axis=0)
    is_flat = abs(np.linalg.det(steps)) <= SHEAR * spacing.prod()  # a slice of two axes that is not in the plane of x and y
    return Grid(shape) if is_flat else Grid(shape, tuple(spacing[::-1].tolist()), affine)


def _image(itk: ModuleType, path: Path, array: np.ndarray, grid: Grid, is_nifti: bool):
    """The SimpleITK image of values (C, *S) on a grid."""
    axes = array.ndim - 1
    if grid.shape != array.shape[1:]:
        raise OutputError(f"{path}: the image is {array.shape[1:]} and its grid {grid.shape}; make them equal")
    direction, spacing, origin = _geometry(grid)
    if min(spacing) <= 0 or not np.isfinite([*spacing, *origin, *direction.ravel()]).all():
        raise OutputError(f"{path}: spacing {spacing} and origin {origin} are no place in the world; correct the grid")
    lean = np.abs(direction.T @ direction - np.eye(axes)).max()
    if lean > SHEAR and is_nifti or abs(np.linalg.det(direction)) < SHEAR:
        raise OutputError(f"{path}: the axes of the grid are not orthogonal (cosine {lean:.2g}); name it .nrrd, or resample it")
    is_fourth_axis = is_nifti and axes == 3 and len(array) > 1
    if len(array) == 1:
        image = itk.GetImageFromArray(array[0], isVector=False)
    elif is_fourth_axis:
        image = itk.GetImageFromArray(array, isVector=False)
        spacing, origin = [*spacing, 1.0], [*origin, 0.0]
        direction = np.block([[direction, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
    else:
        image = itk.GetImageFromArray(np.moveaxis(array, 0, -1), isVector=True)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction.ravel().tolist())
    return image


def _geometry(grid: Grid) -> tuple[np.ndarray, list[float], list[float]]:
    """Direction (n, n), spacing and origin of a grid in the order x, y, z of files."""
    axes = len(grid.shape)
    if grid.affine is None:
        return np.eye(axes), list(map(float, (grid.spacing_mm or (1.0,) * axes)[::-1])), [0.0] * axes
    steps = grid.affine[:axes, :axes][:, ::-1]  # millimetres per pixel along x, y, z
    spacing = np.linalg.norm(steps, axis=0)
    if grid.spacing_mm is not None and np.allclose(spacing, grid.spacing_mm[::-1], rtol=1e-5):
        spacing = np.array(grid.spacing_mm[::-1], dtype=np.float64)  # without the last digit that the root has cost
    return steps / np.where(spacing > 0, spacing, 1.0), spacing.tolist(), grid.affine[:axes, axes].tolist()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
