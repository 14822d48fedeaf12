"""The header of a NIfTI-1 file, checked: how its pixels lie in the file, and where in the world.

A header decides how much memory is taken, so that each number in it is compared with what the file can hold.
"""

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from segwright.codecs.tag_table import refused
from segwright.codecs.volume_header import FAR, SHEAR, STEP, Layout, check_spacing, open_binary, times
from segwright.core.errors import FormatError

NIFTI_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 128: "u1", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
    2304: "u1",
}  # fmt: skip
NIFTI_COLORS = {128: 3, 2304: 4}  # RGB and RGBA: bytes side by side in each voxel
NIFTI_COMPLEX = (32, 1792, 2048)
NIFTI_UNITS = {1: 1000.0, 2: 1.0, 3: 0.001}  # mm of the lower three bits of xyzt_units: metres, millimetres, micrometres
NIFTI_VECTOR = 1007  # intent code: the fifth axis holds the components of each pixel


def nifti(path: Path) -> Layout:
    """How the pixels of a .nii or .nii.gz lie.

    Raises:
        FormatError: the header is damaged, of another kind, or announces more than the file can hold.
    """
    is_packed = path.name.lower().endswith(".gz")
    data = _start(path, 348, is_packed=is_packed)
    if len(data) < 348:
        raise FormatError(f"{path} has {len(data)} bytes, the header of a NIfTI file has 348; copy it again or remove it")
    order = "<" if data[:4] == b"\x5c\x01\0\0" else ">"
    if struct.unpack(f"{order}i", data[:4])[0] != 348 or data[344:347] != b"n+1":
        kind = ", but NIfTI-2" if data[4:7] == b"n+2" else ", but half of a .hdr/.img pair" if data[344:347] == b"ni1" else ""
        raise FormatError(
            f"{path} is no NIfTI-1 file{kind}; save it again as such, for example with "
            "nibabel.Nifti1Image.from_image(nibabel.load(old)).to_filename(new)"
        )
    axes, *sides = struct.unpack(f"{order}8h", data[40:56])
    code, bits = struct.unpack(f"{order}2h", data[70:74])
    pixdim = struct.unpack(f"{order}8f", data[76:108])
    start, slope, inter = struct.unpack(f"{order}3f", data[108:120])
    if not 2 <= axes <= 7 or min(sides[:axes]) < 1:
        raise FormatError(f"{path}: its header names {axes} axes of {sides}; 2 to 7 axes of 1 pixel or more are needed")
    sides = sides[:axes]
    if sum(side > 1 for side in sides[3:]) > 1:
        raise FormatError(f"{path} has {axes} axes of {sides}; one axis after x, y, z is read, as channels: split the file")
    if code in NIFTI_COMPLEX:
        raise refused(path, "NIfTI", "datatype 32, 1792, 2048, complex", f"its datatype is {code}, complex numbers")
    if code not in NIFTI_TYPES or bits != (np.dtype(NIFTI_TYPES[code]).itemsize * 8 * NIFTI_COLORS.get(code, 1)):
        raise refused(path, "NIfTI", "datatype, others", f"its datatype is {code} with {bits} bits")
    check_spacing(path, pixdim[1 : min(axes, 3) + 1])
    if not math.isfinite(start) or start < 348 or start != int(start):
        raise FormatError(f"{path}: its pixels start at byte {start} (vox_offset); copy it again")
    if not slope or not math.isfinite(slope) or code in NIFTI_COLORS:  # the standard: then nothing is scaled
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        raise refused(path, "NIfTI", "scl_inter NaN or infinite", f"its scl_slope is {slope:g} and its scl_inter {inter}")
    dtype, colors = np.dtype(order + NIFTI_TYPES[code]), NIFTI_COLORS.get(code)
    stored = (*sides[::-1], *((colors,) if colors else ()))
    axis = len(stored) - 1 if colors else None
    is_vector = struct.unpack(f"{order}h", data[68:70])[0] == NIFTI_VECTOR
    is_flat = axes == 2 or is_vector and sides[2:4] == [1, 1]  # a vector image of two axes has five
    unit_mm = NIFTI_UNITS.get(data[123] & 7, 1.0)
    steps, origin = _nifti_place(path, data, order, pixdim[1 : 3 if is_flat else 4])
    coding, place = "gzip" if is_packed else "raw", (steps * unit_mm, origin * unit_mm)
    has_alpha = colors == 4
    return Layout(path, int(start), coding, stored, dtype, place, axis, slope, inter, has_alpha, unit_mm).check()


def _nifti_place(path: Path, data: bytes, order: str, pixdim: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Steps and origin in LPS, in the unit of the header, of a NIfTI, chosen as SimpleITK does.

    The sform counts if its axes are orthogonal, its steps are those of pixdim, and it says where the scanner saw the image
    (code 1) or there is no qform; else the qform; with neither, the axes are those of the world.
    """
    codes = struct.unpack(f"{order}2h", data[252:256])
    qform, sform = (np.frombuffer(data[start:end], f"{order}f4").astype(float) for start, end in ((256, 280), (280, 328)))
    for name, code, numbers in zip(("qform", "sform"), codes, (qform, sform), strict=True):
        if code > 0 and not (np.abs(numbers) < FAR).all():  # not so for NaN either
            raise FormatError(f"{path}: its {name} holds {numbers.tolist()}, which is no place; correct the header")
    flip = np.array([-1.0, -1.0, 1.0])  # from RAS to LPS
    sizes = np.array(pixdim)
    n = len(sizes)
    steps, origin = sform.reshape(3, 4)[:, :3], sform.reshape(3, 4)[:, 3]
    lengths = np.linalg.norm(steps, axis=0)[:n]
    is_sized = bool((np.abs(lengths - sizes) <= STEP * sizes).all())
    unit_steps = steps[:, :n] / np.where(lengths > 0, lengths, 1.0)
    is_straight = bool((np.abs(unit_steps.T @ unit_steps - np.eye(n)) < SHEAR).all())
    if codes[1] > 0 and is_straight and is_sized and (codes[1] == 1 or codes[0] <= 0):
        return (unit_steps * sizes * flip[:, None])[:n], origin[:n] * flip[:n]
    if codes[0] > 0:
        side = -1.0 if struct.unpack(f"{order}f", data[76:80])[0] < 0 else 1.0
        turn = _turn(qform[0], qform[1], qform[2], side)
        return (turn[:, :n] * sizes * flip[:, None])[:n], qform[3:][:n] * flip[:n]
    if codes[1] > 0 and not is_straight:
        raise FormatError(
            f"{path}: its axes are not orthogonal (a sheared or empty affine), so that it has no spacing and direction; "
            "resample it onto a straight grid, for example with nibabel.processing.resample_to_output"
        )
    if codes[1] > 0:
        raise FormatError(
            f"{path}: its pixels are {times(pixdim)} mm by pixdim and {times(lengths.tolist())} mm by its sform; correct the "
            "wrong one, for example with nibabel: image.header.set_zooms, image.set_sform"
        )
    return np.diag(sizes), np.zeros(n)


def _turn(b: float, c: float, d: float, side: float) -> np.ndarray:
    """The rotation (3, 3) of a quaternion whose real part is what is missing to length 1; `side` -1 mirrors the third axis."""
    length = math.sqrt(b * b + c * c + d * d)
    if length > 1:
        b, c, d = b / length, c / length, d / length
    a = math.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c) * side],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b) * side],
            [2 * (b * d - a * c), 2 * (c * d + a * b), (a * a + d * d - b * b - c * c) * side],
        ]
    )


def _start(path: Path, count: int, *, is_packed: bool) -> bytes:
    with open_binary(path) as file:
        data = file.read(2**14 if is_packed else count)  # 2**14: any gzip header with 348 bytes of zlib
    if not is_packed:
        return data
    try:
        return zlib.decompressobj(31).decompress(data, count)  # 31: the gzip container
    except zlib.error as error:
        raise FormatError(f"{path} is no gzip file or damaged ({error}); copy it again or remove it") from error
