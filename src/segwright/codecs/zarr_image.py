"""Images in Zarr folders, versions 2 and 3, of which parts are read when they are taken; OME-Zarr tells what axes mean.

    NAME.zarr/                 an array of its own, or a group as OME-Zarr 0.4 and 0.5 have it (ngff.openmicroscopy.org/0.5)
    NAME.zarr/0                of a group: the array of full resolution, the first of its "multiscales"; others are not read
    NAME.zarr/labels/LABEL     label images, groups like that of the image

Axes are z, y, x and c; t, of which there may be one point, is dropped, and so is a z of one slice: microscopes write both for
plain images, and Segwright notes where it means a stack. The scale gives the spacing, in micrometres where no unit is named, as
in OME. An array without names of its axes is read as tiff_axes.py says. The affine is that of the files that Segwright wrote.

A chunk that is not there is one of the fill value, by definition of Zarr, so that a lost one cannot be told from an empty one.
Segwright writes empty ones too, and says so: of its files, a lost chunk is an error. Of others `chunks_of_zarr` counts them.

Axes: C channels, *S spatial axes, (D, H, W) or (H, W). Needs `segwright[zarr]`.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil

from segwright.codecs.tiff_axes import FLAT, Axes, named_by_a_person, told_letters
from segwright.codecs.volume_header import MM
from segwright.codecs.whole_numbers import whole_numbers
from segwright.core import Grid
from segwright.core.errors import FormatError, MissingExtraError, SegwrightError
from segwright.core.warn_once import warn_once

log = logging.getLogger(__name__)

SUFFIX = ".zarr"
OURS = "segwright"  # key of the attributes that no standard has
ALL_CHUNKS, IS_STACK, IS_EMPTY, NOTHING = "all_chunks", "is_stack", "is_empty", "nothing"  # what we note there
LABELS = "labels"
IMAGE_LABEL = "image-label"  # key of OME-Zarr, by which a label image is known
MARKS = ("zarr.json", ".zgroup", ".zarray")  # one of them makes a folder a Zarr
_CHUNK = re.compile(r"(c\.)?\d+(\.\d+)*")  # the name of a file of one
_OLD_AXES = "tczyx"  # of OME-Zarr 0.1 and 0.2, which name none
_NAMES = {name: name[0] for name in ("t", "time", "c", "channel", "z", "y", "x")}
_DEFAULT_UNIT = "micrometer"  # of OME-XML, whose files most OME-Zarrs were made of
_READ_KINDS = "uifb"  # of numpy's types


def zarr_package() -> ModuleType:
    """The package zarr.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise MissingExtraError(
            "Zarr files need the package zarr, which is not installed: pip install 'segwright[zarr]'"
        ) from error
    return zarr


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder that is called like a Zarr; what is in it is not looked at."""
    return path.name.lower().endswith(SUFFIX) and path.is_dir()


def zarr_stem(name: str) -> str:
    """The name of a Zarr folder without its suffixes: "a" of "a.zarr" and of "a.ome.zarr"."""
    return name[: -len(SUFFIX)].removesuffix(".ome")


@dataclass(frozen=True, eq=False)
class ZarrImage:
    """An image (C, *S) in a Zarr folder: `image[:, *window]` reads a part, given by slices for the channels and each axis.

    `axes` are those of the array for C (None where it has none) and for each of *S.
    """

    path: Path
    array: Any  # of zarr
    axes: tuple[int | None, ...]
    grid: Grid

    @classmethod
    def opened(cls, path: Path | str, known: Axes = FLAT) -> "ZarrImage":
        """The image in a folder; `known` tells the axes of arrays that do not name theirs.

        Raises:
            FormatError: the folder is no Zarr, is damaged, holds no image of one time point or more than memory does.
            MissingExtraError: zarr is not installed.
        """
        path = Path(path)
        with _readable(path):
            array, facts = _finest(path, _opened(path))
            _check_chunks(path, array, facts[OURS])
            shape = tuple(map(int, array.shape))
            if array.dtype.kind not in _READ_KINDS:
                raise FormatError(f"{path} holds {array.dtype}; save it as integers or floats")
            letters, scales, units = _named_axes(facts, array, path, known)
            return cls._of(path, array, shape, letters, scales, units, facts)

    @classmethod
    def _of(
        cls,
        path: Path,
        array: Any,
        shape: tuple[int, ...],
        letters: str,
        scales: list[float],
        units: list[str | None],
        facts: Mapping[str, Any],
    ) -> "ZarrImage":
        is_known = len({*letters}) == len(letters) == len(shape) and {*"yx"} <= {*letters} <= {*"tczyx"}
        if not is_known or 0 in shape:
            raise FormatError(
                f"{path} holds axes {letters!r} of shape {shape}; an image has y and x, and perhaps z, c and t: save it so"
            )
        if "t" in letters and shape[letters.index("t")] > 1:
            count = shape[letters.index("t")]
            raise FormatError(f"{path} holds {count} time points, one is needed; save each as a .zarr of its own")
        is_stack = _noted(facts[OURS], IS_STACK)
        spatial = [
            axis for axis in map(letters.find, "zyx") if axis >= 0 and (letters[axis] != "z" or shape[axis] > 1 or is_stack)
        ]
        sides = tuple(shape[axis] for axis in spatial)
        if array.dtype.itemsize * prod(shape) > psutil.virtual_memory().total:
            raise FormatError(
                f"{path} is {' x '.join(map(str, shape))} of {array.dtype}, more than the memory of this machine holds; "
                "save parts of it, or a coarser level, as a .zarr of its own"
            )
        spacing = _spacing_mm([scales[axis] for axis in spatial], [units[axis] for axis in spatial], path)
        channel = letters.find("c")
        return cls(path, array, (channel if channel >= 0 else None, *spatial), Grid(sides, spacing, _affine(facts, len(sides))))

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *S)."""
        return (1 if self.axes[0] is None else int(self.array.shape[self.axes[0]]), *self.grid.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of the values as they are read; bits become bytes."""
        kind = self.array.dtype.newbyteorder("=")
        return np.dtype(np.uint8) if kind.kind == "b" else kind

    def __getitem__(self, part: tuple[slice, ...]) -> np.ndarray:
        picks: list[int | slice] = [0] * self.array.ndim
        kept = [axis for axis in self.axes if axis is not None]
        for axis, each in zip(self.axes, part, strict=True):
            if axis is not None:
                picks[axis] = each
        with _readable(self.path):
            values = np.asarray(self.array[tuple(picks)]).astype(self.dtype, copy=False)
        values = values.transpose([sorted(kept).index(axis) for axis in kept])
        return values[None][part[0]] if self.axes[0] is None else values

    def read(self) -> np.ndarray:
        """All values (C, *S)."""
        return np.ascontiguousarray(self[tuple(slice(0, side) for side in self.shape)])


def read_numbers_of_zarr(path: Path | str) -> tuple[np.ndarray, Grid]:
    """The whole numbers (*S) of a label image, -1 where it says NaN, and its grid.

    Raises:
        FormatError: as `ZarrImage.opened`; or there are fractions, or channels that differ.
    """
    image = ZarrImage.opened(path, Axes(None, is_mask=True))
    numbers = whole_numbers(image.read(), Path(path))
    if (numbers[1:] != numbers[:1]).any():
        raise FormatError(
            f"{path} holds {len(numbers)} channels that differ, one number per pixel is needed; save the argmax along them"
        )
    return numbers[0], image.grid


def labels_of_zarr(path: Path) -> tuple[str, ...]:
    """The names of the label images in the Zarr folder of an image, none where it has none.

    Raises:
        FormatError: the folder is damaged, or a label image is not there.
        MissingExtraError: zarr is not installed.
    """
    folder = path / LABELS
    if not folder.is_dir() or not any(folder.iterdir()):
        return ()
    with _readable(folder):
        names = tuple(name for name in _ome(_opened(folder)).get(LABELS, ()) if isinstance(name, str))
    gone = next((name for name in names if ".." in Path(name).parts or not (folder / name.lstrip("/")).is_dir()), None)
    if gone is not None:
        raise FormatError(
            f"{folder} lists the label image {gone!r}, which is not there; copy it again, or shorten the list there"
        )
    return names


def is_image_of_zarr(path: Path) -> bool:
    """Whether a Zarr folder holds an image of its own; one that Segwright wrote for label images alone does not.

    Raises:
        FormatError: the folder is damaged.
        MissingExtraError: zarr is not installed.
    """
    with _readable(path):
        return not _noted(_opened(path).attrs.get(OURS), IS_EMPTY)


def chunks_of_zarr(path: Path) -> tuple[int, int]:
    """How many chunks the array of full resolution in a Zarr folder lacks, which are read as its fill value, and has in all.

    Raises:
        FormatError: the folder is damaged, or holds no image.
        MissingExtraError: zarr is not installed.
    """
    with _readable(path):
        array, _ = _finest(path, _opened(path))
        return _absent_chunks(path, array)


@dataclass(frozen=True)
class ToldLabels:
    """What a label image says of its numbers: names, colours, which one is void or nothing, if any, and other properties.

    Void is a number, but 0, that has no name and is transparent; nothing, but for 0, is what Segwright has noted.
    """

    is_label: bool
    names: dict[int, str]
    colors: dict[int, list[int]]
    void: int | None
    nothing: int | None
    properties: tuple[Mapping[str, Any], ...]

    @property
    def meaning(self) -> tuple[Any, ...]:
        """What has to be the same in all label images of a data set."""
        return self.names, self.colors, self.void, self.nothing


def told_labels_of_zarr(path: Path) -> ToldLabels:
    """What the group of a label image says of its numbers.

    Raises:
        FormatError: the folder is damaged.
        MissingExtraError: zarr is not installed.
    """
    with _readable(path):
        told = _ome(_opened(path)).get(IMAGE_LABEL)
        given, colors = (told or {}).get("properties") or (), (told or {}).get("colors") or ()
        names = {int(entry["label-value"]): str(entry["name"]) for entry in given if "name" in entry}
        nothing = next((int(entry["label-value"]) for entry in given if entry.get(OURS) == NOTHING), None)
        shown = {int(entry["label-value"]): list(map(int, entry["rgba"])) for entry in colors if "rgba" in entry}
        nameless = {number: rgba for number, rgba in shown.items() if number not in (0, nothing, *names)}
        hidden = [number for number, rgba in nameless.items() if rgba[-1] == 0]
        palette = {number: rgba[:3] for number, rgba in shown.items()}
        properties = tuple(entry for entry in given if isinstance(entry, Mapping))
    return ToldLabels(told is not None, names, palette, hidden[0] if len(hidden) == 1 else None, nothing, properties)


def _noted(ours: Any, key: str) -> Any:
    """What Segwright has noted under a key, None where it has not."""
    return ours.get(key) if isinstance(ours, Mapping) else None


def _absent_chunks(path: Path, array: Any) -> tuple[int, int]:
    """How many chunks, or shards, of an array in a Zarr folder are not there, and how many it has in all.

    Files are counted: to ask zarr takes time for each chunk that there should be, however many a damaged shape asks for.
    """
    pieces = getattr(array, "shards", None) or array.chunks
    count = prod(-(-side // piece) for side, piece in zip(array.shape, pieces, strict=True))
    there = sum(bool(_CHUNK.fullmatch(name)) for _, _, names in os.walk(path / array.path) for name in names)
    return max(0, count - there), count


def _check_chunks(path: Path, array: Any, ours: Any) -> None:
    """Refuse an array that Segwright wrote of which chunks are gone."""
    gone, count = _absent_chunks(path, array) if _noted(ours, ALL_CHUNKS) else (0, 0)
    if gone:
        raise FormatError(
            f"{path} is not whole: {gone} of its {count} chunks are gone; copy or write it again (if another program "
            f"removed chunks that it emptied, take {ALL_CHUNKS!r} out of the attributes in its zarr.json)"
        )


def _opened(path: Path) -> Any:
    """The group or array of zarr in a folder."""
    if not path.is_dir():
        raise FormatError(f"{path} does not exist, or is no folder; check the spelling, and unpack a .zarr.zip first")
    if not any((path / mark).is_file() for mark in MARKS):
        raise FormatError(f"{path} is no Zarr: it holds none of {', '.join(MARKS)}; copy it again, with hidden files")
    return zarr_package().open(str(path), mode="r")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A context in which whatever zarr fails with becomes a FormatError: damage leads to any."""
    try:
        yield
    except (SegwrightError, MemoryError):
        raise
    except Exception as error:
        raise FormatError(
            f"{path} is damaged or cut short ({type(error).__name__}: {str(error)[:200]}); copy it again, or remove it"
        ) from error


def _ome(node: Any) -> Mapping[str, Any]:
    """What OME-Zarr says of a group: its attributes, since 0.5 below "ome"."""
    attributes = dict(node.attrs)
    return attributes.get("ome", attributes)


def _finest(path: Path, node: Any) -> tuple[Any, Mapping[str, Any]]:
    """The array of full resolution in a group, or an array itself, and its "multiscales" with what is ours."""
    ours = node.attrs.get(OURS) or {}
    if hasattr(node, "shape"):
        return node, {OURS: ours}
    facts = _ome(node)
    scales = facts.get("multiscales")
    if isinstance(scales, list) and scales and scales[0].get("datasets"):
        first = scales[0]["datasets"][0]
        return node[first["path"]], {**scales[0], "first": first, OURS: ours}
    inside = [
        name for name in ("0", *sorted(entry.name for entry in path.iterdir() if entry.is_dir())) if (path / name).is_dir()
    ]
    what = "a plate of many images" if "plate" in facts else "a group without multiscales"
    raise FormatError(
        f"{path} is {what}, not one image; give the images in it each a folder that ends in {SUFFIX}"
        + (f", such as a copy of {path / inside[0]}" if inside else "")
    )


def _named_axes(facts: Mapping[str, Any], array: Any, path: Path, known: Axes) -> tuple[str, list[float], list[str | None]]:
    """A letter for each axis of an array, the size of a pixel along it, and the unit of that."""
    count = len(array.shape)
    scales = np.ones(count)
    for entry in (facts, facts.get("first", {})):
        for change in entry.get("coordinateTransformations", ()):
            if change.get("type") == "scale" and "scale" in change:
                scales = scales * np.array(change["scale"], float)
    given = facts.get("axes") or (list(_OLD_AXES) if "first" in facts and count == len(_OLD_AXES) else _dimensions(array))
    entries = [entry if isinstance(entry, dict) else {"name": entry} for entry in given or ()]
    letters = "".join(_NAMES.get(str(entry.get("name")).lower(), "?") for entry in entries)
    is_named = len(letters) == count and "?" not in letters
    is_scaled = any(scale != 1 for axis, scale in enumerate(scales) if not is_named or letters[axis] in "zyx")
    units = [entry.get("unit") or (_DEFAULT_UNIT if is_scaled else None) for entry in entries] or [None] * count
    if is_scaled and any(letter in "zyx" and not entry.get("unit") for letter, entry in zip(letters, entries, strict=True)):
        warn_once(log, "%s: images tell no unit of their pixel size; micrometres are taken", path.parent)
    if not is_named:
        letters = _told(array, path, known)
    return letters, scales.tolist(), units


def _dimensions(array: Any) -> list[str] | None:
    """The names that an array has for its axes itself, as version 3 or as xarray keeps them in version 2."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return list(names) if names and all(names) else None


def _told(array: Any, path: Path, known: Axes) -> str:
    """The axes of an array that names none: by dataset.toml, else by what is known of the image."""
    count = len(array.shape)
    names = named_by_a_person(path)
    if len(names) != count:
        free = "QRUV"[: max(count - 2, 0)]  # which stand for no axis in tiff_axes.py
        names = told_letters(tuple(array.shape), f"{free}YX", path, known)
    return names.lower()


def _spacing_mm(scales: list[float], units: list[str | None], path: Path) -> tuple[float, ...] | None:
    """Millimetres for each spatial axis; None where a unit is no length, or none is known."""
    if None in units:
        return None
    factors = [MM.get(str(unit).lower()) for unit in units]
    if None in factors:
        warn_once(log, "%s: the unit of pixel sizes is %s, which is not read; they are left out", path.parent, units[-1])
        return None
    if not all(np.isfinite(scale) and scale > 0 for scale in scales):
        raise FormatError(f"{path} says that pixels are {scales} {units[-1]} large; correct the scale in its multiscales")
    return tuple(scale * factor for scale, factor in zip(scales, factors, strict=True))  # type: ignore[operator]


def _affine(facts: Mapping[str, Any], axes: int) -> np.ndarray | None:
    """The affine that Segwright has written."""
    given = _noted(facts[OURS], "affine")
    if given is None:
        return None
    affine = np.array(given, float)
    return affine if affine.shape == (axes + 1, axes + 1) else None
