"""The first bytes of a volume file, checked before a decoder sees them: what all kinds share, NRRD and MetaImage.

A header decides how much memory is taken, so that each number in it is compared with what the file can hold. Where a header
lies, decoders fill with zeros, take gigabytes, or end the process. Needs no package.
"""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from segwright.codecs.tag_table import refused
from segwright.core.errors import FormatError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES, *META_SUFFIXES)

MAX_RATIO = 1_100  # zlib packs 1032 bytes into one at best; the rest is for the ends of small files
SMALL_FILE, MAX_OF_SMALL = 2**20, 480 * 2**20  # reading takes two copies: less than 1 GiB for a file below 1 MiB
MAX_TEXT = 2**18  # bytes of a text header: hundreds of gradient directions fit
SHEAR = 1e-4  # cosine between two axes from which they are not taken for orthogonal: NIfTI's float32 leaves 1e-7
STEP = 1e-3  # relative difference of two pixel sizes that rounding may leave
FAR = 1e15  # mm; nothing that is scanned lies further away
MAX_SIDE = 2**24  # pixels along an axis; more is a damaged number
MM = {  # of what files call their unit of length
    **dict.fromkeys(("", "mm", "millimeter", "millimeters", "millimetre", "millimetres", "?", "???"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometers", "nanometre", "nanometres"), 1e-6),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), 1000.0),
}

NRRD_TYPES = {
    "i1": ("signed char", "int8", "int8_t"), "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"), "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",), "f8": ("double",),
}  # fmt: skip
UNREAD_KINDS = ("complex", "hsv-color", "xyz-color", "quaternion")  # of an axis: its numbers are no channels of an image
META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Layout:
    """How pixels lie in a file: from byte `start` on as `coding` says (raw, gzip, zlib or text).

    `stored` is their shape, the slowest axis first; one of them may hold the channels. Values are stored * slope + inter.
    `place` is the steps (n, n), world mm in LPS for a step along x, y, z (columns), and the origin (n,), where the first
    pixel lies; in the file, the unit was `unit_mm`. `notes` are what a NRRD says besides, as name:=value.
    """

    file: Path
    start: int
    coding: str
    stored: tuple[int, ...]
    dtype: np.dtype
    place: tuple[np.ndarray, np.ndarray]
    channel_axis: int | None = None
    slope: float = 1.0
    inter: float = 0.0
    has_alpha: bool = False
    unit_mm: float = 1.0
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_scaled(self) -> bool:
        """Whether the values differ from what is stored."""
        return (self.slope, self.inter) != (1.0, 0.0)

    def check(self) -> "Layout":
        """The layout, if the file can hold it.

        Raises:
            FormatError: it cannot, or it takes more memory than should be risked.
        """
        if min(self.stored) < 1 or max(self.stored) > MAX_SIDE:
            raise FormatError(f"{self.file}: the sides {self.stored[::-1]} are named in its header; copy it again")
        count, size = math.prod(self.stored), _size(self.file)
        bytes_stored = count if self.coding == "text" else count * self.dtype.itemsize  # a digit per number at least
        bytes_read = count * (max(self.dtype.itemsize, 4) if self.is_scaled else self.dtype.itemsize)
        is_packed = self.coding in ("gzip", "zlib")
        what = f"{self.file} announces {' x '.join(map(str, self.stored[::-1]))} pixels, {bytes_stored:,} bytes"
        if not is_packed and self.start + bytes_stored > size:
            raise FormatError(f"{what}, but holds {max(size - self.start, 0):,}: it is cut short; copy it again")
        if is_packed and self.start + bytes_stored > MAX_RATIO * size:
            raise FormatError(f"{what}, more than {size:,} packed bytes can hold: it is damaged or cut short; copy it again")
        if size < SMALL_FILE and bytes_read > MAX_OF_SMALL:
            raise FormatError(f"{what} from {size:,}, which could fill the memory; if you trust it, save it uncompressed")
        return self


def suffix_of(path: Path) -> str:
    """The ending in lower case under which a volume is known, such as ".nii.gz"; "" if the name has no such ending."""
    name = path.name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def nrrd(path: Path) -> Layout:
    """How the pixels of a .nrrd or .nhdr lie.

    Raises:
        FormatError: the header is damaged, its data lies in no plain file beside it, or it announces more than there is.
    """
    fields, notes, start = _nrrd_fields(path)
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "little").lower())
    kind = next((kind for kind, names in NRRD_TYPES.items() if fields.get("type", "").lower() in names), None)
    if kind is None or order is None:
        raise FormatError(f"{path}: its pixels are of NRRD type {fields.get('type')!r}; save it with integers or floats")
    sizes = _integers(path, "sizes", fields.get("sizes", ""))
    if [len(sizes)] != _integers(path, "dimension", fields.get("dimension", "")) or not 2 <= len(sizes) <= 4:
        raise FormatError(f"{path}: dimension {fields.get('dimension')} and sizes {sizes} are named; 2 to 4 axes are read")
    codings = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "ascii": "text", "text": "text", "txt": "text"}
    coding = codings.get(fields.get("encoding", "").lower())
    if coding is None:
        raise FormatError(f"{path}: its encoding is {fields.get('encoding')!r}; raw, gzip and ascii are read: save it again")
    if fields.get("byteskip", "0") != "0" or fields.get("lineskip", "0") != "0":
        raise FormatError(f"{path}: its data begins after bytes or lines to skip; save it as one .nrrd file")
    data_file = fields.get("datafile")
    if data_file is None and path.name.lower().endswith(".nhdr"):
        raise FormatError(f"{path} names no data file; save it as one .nrrd file")
    kinds = fields.get("kinds", "").lower().split() or ["domain"] * len(sizes)
    axis, steps, origin = _nrrd_place(path, fields, kinds)
    unit_mm = _nrrd_unit(path, fields)
    place = steps * unit_mm, origin * unit_mm
    stored = tuple(sizes[::-1])
    file, start = (path, start) if data_file is None else (_beside(path, data_file), 0)
    has_alpha = axis is not None and kinds[axis : axis + 1] == ["rgba-color"]
    axis = None if axis is None else len(sizes) - 1 - axis
    dtype = np.dtype(order + kind)
    return Layout(file, start, coding, stored, dtype, place, axis, has_alpha=has_alpha, unit_mm=unit_mm, notes=notes).check()


def _nrrd_fields(path: Path) -> tuple[dict[str, str], dict[str, str], int]:
    """The fields of an NRRD header, names without blanks and in lower case, its name:=value notes, and where data begins."""
    with open_binary(path) as file:
        lines = file.read(MAX_TEXT).split(b"\n")
    if not re.fullmatch(rb"NRRD000[1-5]\r?", lines[0]):
        raise FormatError(f"{path} does not begin like an NRRD file; save it again as .nrrd or .nii.gz")
    fields: dict[str, str] = {}
    notes: dict[str, str] = {}
    start = len(lines[0]) + 1
    for line in lines[1:]:
        start += len(line) + 1
        plain = _plain(line, path)
        if not plain:
            break
        name, mark, value = plain.partition(":")
        if plain.startswith("#") or not mark:
            continue
        if value.startswith("="):
            notes[_utf8(name)] = _utf8(value[1:])
            continue
        if fields.setdefault(name.lower().replace(" ", ""), value.strip()) != value.strip():
            raise FormatError(f"{path} names {name[:60]!r} twice in its header; save it again")
    return fields, notes, start


def _utf8(text: str) -> str:
    """What a person wrote, which headers hold in UTF-8 today and in Latin-1 before; without the escapes of line ends."""
    raw = text.encode("latin-1")
    with suppress(UnicodeDecodeError):
        text = raw.decode()
    return text.replace("\\n", " ").replace("\\\\", "\\").strip()


def _nrrd_unit(path: Path, fields: dict[str, str]) -> float:
    """Millimetres of the unit of length in an NRRD header."""
    name = "spaceunits" if "spacedirections" in fields else "units"
    units = {_utf8(unit).lower() for unit in re.findall(r'"([^"]*)"', fields.get(name, ""))} - {"ms", "s", "sec"}
    found = {MM.get(unit) for unit in units} or {1.0}
    size = found.pop()
    if found or size is None:
        raise refused(path, "NRRD", "space units, units, others", f"its {name.replace('ceu', 'ce u')} are {fields[name]:.60}")
    return size


def _nrrd_place(path: Path, fields: dict[str, str], kinds: list[str]) -> tuple[int | None, np.ndarray, np.ndarray]:
    """The axis that holds channels, counted from the fastest, and steps and origin of the others."""
    axes = len(fields["sizes"].split())
    given = fields.get("spacedirections")
    unread = [kind for kind in kinds if kind in UNREAD_KINDS]
    if unread:
        raise refused(path, "NRRD", "kinds, complex, HSV, XYZ, quaternion", f"an axis of its pixels is of kind {unread[0]}")
    if given is None and "spacings" not in fields and "axismins" in fields:
        raise refused(path, "NRRD", "axis mins without spacings", f"its axis mins are {fields['axismins']:.60}")
    if given is not None:
        vectors = [
            None if word == "none" else _numbers(path, "space directions", word.strip("()").replace(",", " "))
            for word in re.sub(r"\s*,\s*", ",", given).replace("( ", "(").replace(" )", ")").split()
        ]
    else:
        vectors = [None if kind not in ("domain", "space", "time", "???", "none") else [] for kind in kinds]
        spacings = _numbers(path, "spacings", fields.get("spacings", "nan " * axes))
        if len(vectors) == axes == len(spacings):
            n = axes - vectors.count(None)
            for place, axis in enumerate(axis for axis in range(axes) if vectors[axis] is not None):
                size = 1.0 if math.isnan(spacings[axis]) else spacings[axis]
                vectors[axis] = [size if place == other else 0.0 for other in range(n)]
    spatial = [vector for vector in vectors if vector is not None]
    space = len(spatial[0]) if spatial else 0
    if len(vectors) != axes or any(len(vector) != space for vector in spatial) or axes - len(spatial) > 1 or len(spatial) < 2:
        raise FormatError(
            f"{path}: {axes} axes of kinds {' '.join(kinds)!r} with directions {given!r} are no image; save it again"
        )
    origin = _numbers(path, "space origin", re.sub(r"[(),]", " ", fields.get("spaceorigin", "0 " * space)))
    n = min(len(spatial), 3)
    if len(origin) != space or space < n:
        raise FormatError(f"{path}: its space origin {origin} does not fit its directions {given!r}; correct the header")
    if space == 3 and n == 2:
        raise FormatError(f"{path} is a flat image with directions in space; save it as a volume of one slice")
    name = fields.get("space", "").lower()
    is_right, is_anterior = name.startswith("r"), "anterior" in name or name in ("ras", "las", "rast", "last")
    signs = np.array([-1.0 if is_right else 1.0, -1.0 if is_anterior else 1.0, 1.0])
    steps = np.array(spatial).T[:n, :n] * signs[:n, None]
    channel = vectors.index(None) if None in vectors else 3 if len(spatial) == 4 else None
    return channel, _checked_steps(path, steps), np.array(origin)[:n] * signs[:n]


def meta(path: Path) -> Layout:
    """How the pixels of a .mha or .mhd lie.

    Raises:
        FormatError: the header is damaged, its data lies in no plain file beside it, or it announces more than there is.
    """
    fields, start = _meta_fields(path)

    def flag(*names: str) -> bool:
        return any(fields.get(name, "False").lower() in ("true", "1", "t") for name in names)

    kind = META_TYPES.get(fields.get("ElementType", "").removesuffix("_ARRAY"))
    if fields.get("ObjectType", "Image") != "Image" or kind is None or "ElementDataFile" not in fields:
        raise FormatError(f"{path} is no MetaImage with integers or floats, but {fields.get('ElementType')!r}; save it again")
    sizes = _integers(path, "DimSize", fields.get("DimSize", ""))
    axes = len(sizes)
    if _integers(path, "NDims", fields.get("NDims", "")) != [axes] or not 2 <= axes <= 4:
        raise FormatError(f"{path}: {fields.get('NDims')} axes and sizes {sizes} are named; 2 to 4 axes are read")

    def numbers(names: Sequence[str], default: np.ndarray) -> np.ndarray:
        name = next((name for name in names if name in fields), "")
        found = np.array(_numbers(path, name, fields[name])) if name else default.ravel()
        if found.size != default.size:
            raise FormatError(f"{path}: {name} has {fields[name][:60]!r}, {default.size} numbers are needed; correct it")
        return found.reshape(default.shape)

    spacing = numbers(("ElementSpacing", "ElementSize"), np.ones(axes))
    steps = numbers(("TransformMatrix", "Rotation", "Orientation"), np.eye(axes)).T * spacing  # a row is a column of ours
    origin = numbers(("Offset", "Position", "Origin"), np.zeros(axes))
    channels = _integers(path, "ElementNumberOfChannels", fields.get("ElementNumberOfChannels", "1"))
    if len(channels) != 1 or fields.get("HeaderSize", "0") != "0" or (channels != [1] and axes == 4):
        raise FormatError(
            f"{path}: its channels {channels} or HeaderSize {fields.get('HeaderSize')} are not read; save it again"
        )
    stored = tuple(sizes[::-1]) + ((channels[0],) if channels != [1] else ())
    axis = axes if channels != [1] else 0 if axes == 4 else None
    is_local, is_binary = fields["ElementDataFile"] == "LOCAL", flag("BinaryData")
    coding = "text" if not is_binary else "zlib" if flag("CompressedData") else "raw"
    order = ">" if flag("BinaryDataByteOrderMSB", "ElementByteOrderMSB") else "<"
    file, start = (path, start) if is_local else (_beside(path, fields["ElementDataFile"]), 0)
    n = min(axes, 3)
    if not (spacing > 0).all():
        raise _no_size(path, spacing.tolist())
    unit_mm = _meta_unit(path, fields)
    place = _checked_steps(path, steps[:n, :n]) * unit_mm, origin[:n] * unit_mm
    return Layout(file, start, coding, stored, np.dtype(order + kind), place, axis, unit_mm=unit_mm).check()


def _meta_unit(path: Path, fields: dict[str, str]) -> float:
    """Millimetres of the unit of length in a MetaImage header, which is also checked for values that ask to be scaled."""
    for name, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if _numbers(path, name, fields.get(name, str(plain))) != [plain]:
            raise refused(path, "MetaImage", "ElementToIntensityFunctionSlope, Offset", f"its {name} is {fields[name]:.60}")
    size = MM.get(_utf8(fields.get("DistanceUnits", "")).lower())
    if size is None:
        raise refused(path, "MetaImage", "DistanceUnits, others", f"its DistanceUnits are {fields['DistanceUnits']:.60}")
    return size


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """The lines of a MetaImage header and where its data begins."""
    with open_binary(path) as file:
        text = file.read(MAX_TEXT)
    fields: dict[str, str] = {}
    start = 0
    for line in text.split(b"\n"):
        start += len(line) + 1
        name, mark, value = (part.strip() for part in _plain(line, path).partition("="))
        if not mark or not name or name in fields:
            raise FormatError(f"{path}: {name[:60]!r} is no line of a MetaImage header, or there twice; save it again")
        fields[name] = value
        if name == "ElementDataFile":
            break
    return fields, start


def open_binary(path: Path) -> BinaryIO:
    """A file to read.

    Raises:
        FormatError: it is missing or cannot be read.
    """
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise FormatError(f"{path} does not exist; check the spelling") from error
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); check that it is a readable file") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); copy it there") from error


def _plain(line: bytes, path: Path) -> str:
    text = line.rstrip(b"\r").decode("latin-1")
    if "\0" in text:
        raise FormatError(f"{path}: its header is binary where text is needed; copy it again or remove it")
    return text


def _beside(path: Path, name: str) -> Path:
    """The data file of a header, which must be a plain name in the same folder."""
    if not name or re.search(r"[/\\%:*?]|^\.|^LIST|\s", name) or name == path.name:
        raise FormatError(f"{path}: its data lies in {name[:60]!r}, no plain file name in the same folder; save it as one file")
    return path.parent / name


def _integers(path: Path, name: str, text: str) -> list[int]:
    if not re.fullmatch(r"\s*(-?\d{1,15}\s*)( -?\d{1,15}\s*)*", text):
        raise FormatError(f"{path}: {name} is {text[:60]!r}, whole numbers are needed; copy it again or correct it")
    return [int(part) for part in text.split()]


def _numbers(path: Path, name: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split()]
    except ValueError as error:
        raise FormatError(f"{path}: {name} is {text[:60]!r}, numbers are needed; copy it again or correct it") from error
    if any(abs(number) > FAR or math.isnan(number) and name != "spacings" for number in numbers):
        raise FormatError(f"{path}: {name} is {text[:60]!r}, finite numbers are needed; correct the header")
    return numbers


def check_spacing(path: Path, spacing: Sequence[float]) -> None:
    """Check that sizes of pixels are sizes.

    Raises:
        FormatError: one is zero, negative, infinite or NaN.
    """
    if not all(0 < number < math.inf for number in spacing):
        raise _no_size(path, spacing)


def _checked_steps(path: Path, steps: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(steps, axis=0)
    check_spacing(path, lengths.tolist())
    if abs(np.linalg.det(steps / lengths)) < STEP:
        raise FormatError(f"{path}: two of its axes point the same way ({steps.tolist()}); correct the header")
    return steps


def _no_size(path: Path, spacing: Sequence[float]) -> FormatError:
    return FormatError(
        f"{path}: its pixels are {times(spacing)} mm, which is no size; write the spacing into its header, for example "
        "with SimpleITK"
    )


def times(numbers: Sequence[float]) -> str:
    """Numbers for a message: "1 x 2 x 3"."""
    return " x ".join(f"{number:g}" for number in numbers)
