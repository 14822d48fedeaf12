"""Segments of 3D Slicer: what the numbers in a .seg.nrrd mean, as its header says. They differ from file to file: names count.

    Segment0_Name:=Liver             also Segment0_ID and the type in Segment0_Tags, where there is no name
    Segment0_LabelValue:=1           its number in the pixels, 1 where nothing is said
    Segment0_Layer:=0                the layer that it lies in; old files say neither: there, segment N is 1 in layer N
    Segment0_Color:=0.5 0.7 0.5      red, green and blue, 0..1

Segments of different layers may overlap. Pixels of no segment are the class "background", those of one called "void" are void.
Axes: P layers or planes, *S spatial axes.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segwright.codecs.volume_file import layout_of
from segwright.codecs.volume_header import NRRD_SUFFIXES, suffix_of
from segwright.core import VOID, Classes, Segmentation
from segwright.core.classes import BACKGROUND, background_of, plain, spellings
from segwright.core.errors import FormatError
from segwright.core.visualise import VOID_COLOR
from segwright.formats.label_maps import NOTHING, to_segmentation

FIELD = re.compile(r"Segment(\d{1,5})_(ID|Name|LabelValue|Layer|Color|Tags)")
TERMINOLOGY = re.compile(
    r"TerminologyEntry:[^~]*~[^~]*~[^~^]*\^[^~^]*\^([^~^]+)~"
)  # list ~ category ~ type, as code^scheme^name
VOID_NAME = "void"
UNKNOWN = NOTHING - 1  # class of a number that no segment has
HIGHEST = 65_535  # number of a segment


@dataclass(frozen=True)
class Segment:
    """One segment of a file: what it is, where it is drawn with which number, and its colour where one is given."""

    name: str
    layer: int
    number: int
    color: tuple[int, int, int] | None


def segments_of(path: Path) -> tuple[Segment, ...]:
    """The segments that a mask file names, in its order; none where it says nothing, as all but NRRD.

    Raises:
        FormatError: the header is damaged, or two segments have one number.
    """
    if suffix_of(path) not in NRRD_SUFFIXES:
        return ()
    layout = layout_of(path)
    given: dict[int, dict[str, str]] = {}
    for key, value in layout.notes.items():
        if match := FIELD.fullmatch(key):
            given.setdefault(int(match[1]), {})[match[2]] = value
    layers = 1 if layout.channel_axis is None else layout.stored[layout.channel_axis]
    segments = tuple(_segment(path, index, fields) for index, fields in sorted(given.items()))
    for segment in segments:
        twin = next(other for other in segments if (other.layer, other.number) == (segment.layer, segment.number))
        if twin is not segment or segment.layer >= layers:
            where = f"layer {segment.layer} of {layers}" if segment.layer >= layers else f"the number of {twin.name!r}"
            raise FormatError(f"{path}: its segment {segment.name!r} has {where}; open it in 3D Slicer and save it again")
    return segments


def _segment(path: Path, index: int, fields: dict[str, str]) -> Segment:
    term = TERMINOLOGY.search(fields.get("Tags", ""))
    name = fields.get("Name") or (term[1] if term else "") or fields.get("ID") or f"Segment_{index + 1}"
    try:
        layer = int(fields.get("Layer", 0 if "LabelValue" in fields else index))
        number = int(fields.get("LabelValue", 1))
        rgb = tuple(round(255 * float(part)) for part in fields.get("Color", "").split())
        if not layer >= 0 or not 0 < number <= HIGHEST or any(not 0 <= part <= 255 for part in rgb):
            raise ValueError(f"layer {layer}, number {number}, colour {rgb}")
    except (ValueError, OverflowError) as error:
        raise FormatError(
            f"{path}: its segment {name!r} is damaged ({error}); open it in 3D Slicer and save it again"
        ) from error
    return Segment(
        unicodedata.normalize("NFC", " ".join(name.split())), layer, number, (rgb[0], rgb[1], rgb[2]) if len(rgb) == 3 else None
    )


def classes_of_segments(segments: Iterable[Segment]) -> Classes:
    """The classes that segments of several files name, after the background in the order of their names.

    So they have the same numbers in two sets of the same classes, whatever their files are called.
    """
    segments = [*segments]
    known = spellings(segment.name for segment in segments)
    names = {BACKGROUND: BACKGROUND} | {name: known[name][0] for name in sorted(known) if name != VOID_NAME}
    colors = {plain(segment.name): segment.color for segment in reversed(segments) if segment.color is not None}
    distinct = Classes.of([*names.values()]).colors
    return Classes.of([*names.values()], colors=[colors.get(name, color) for name, color in zip(names, distinct, strict=True)])


def truth_of_segments(
    layers: np.ndarray, segments: tuple[Segment, ...], classes: Classes, path: Path
) -> tuple[Segmentation, dict[str, int]]:
    """The segments of a file with layers of numbers (P, *S) as segments of the classes of their names, and what is left out.

    Raises:
        FormatError: a name is no class, or a number no segment.
    """
    class_ids = {plain(name): index for index, name in enumerate(classes.names)}
    class_maps = np.empty(layers.shape, np.int32)
    for layer, numbers in enumerate(layers):
        here = [segment for segment in segments if segment.layer == layer]
        class_of = np.full(HIGHEST + 1, UNKNOWN, np.int32)
        class_of[0] = NOTHING
        for segment in here:
            if plain(segment.name) == VOID_NAME:
                class_of[segment.number] = VOID
                continue
            if plain(segment.name) not in class_ids:
                known = ", ".join(classes.names[:10])
                raise FormatError(f"{path} names a segment {segment.name!r}, but the classes are {known}; add it or rename it")
            class_of[segment.number] = class_ids[plain(segment.name)]
        class_maps[layer] = class_of[numbers.clip(0, HIGHEST)]
        is_unknown = (class_maps[layer] == UNKNOWN) | (numbers < 0) | (numbers > HIGHEST)
        if is_unknown.any():
            said = ", ".join(f"{segment.name} {segment.number}" for segment in here[:10]) or "none there"
            raise FormatError(
                f"{path} holds the number {numbers[is_unknown][0]} at {is_unknown.sum()} of {numbers.size} voxels, which none "
                f"of its segments has ({said}); open it in 3D Slicer, make them a segment or erase them, and save it again"
            )
    empty = sum(not (layers[segment.layer] == segment.number).any() for segment in segments)
    return _in_planes(class_maps, classes), {"segments without a voxel": empty} if empty else {}


def notes_of_segments(classes: Classes, values: np.ndarray, void: int) -> dict[str, str]:
    """What a NRRD says of a map of class numbers as its segments; nothing where 0 is no background, as 0 is no segment."""
    if background_of(classes) != 0:
        return {}
    said = [(classes.names[k], k, classes.colors[k]) for k in range(1, len(classes))]
    said += [(VOID_NAME, void, VOID_COLOR)] if (values == void).any() else []
    return {
        f"Segment{index}_{key}": value
        for index, (name, number, color) in enumerate(said)
        for key, value in (
            *(("ID", f"Segment_{number}"), ("Name", name), ("LabelValue", str(number)), ("Layer", "0")),
            ("Color", " ".join(f"{part / 255:.6g}" for part in color)),
        )
    }


def _in_planes(class_maps: np.ndarray, classes: Classes) -> Segmentation:
    """A segment for each class in maps (P, *S) that may overlap; in one plane where they do not."""
    for layer in range(1, len(class_maps)):
        class_maps[layer][(class_maps[:layer] == class_maps[layer]).any(axis=0)] = NOTHING  # two segments of one name
    is_void = (class_maps == VOID).any(axis=0) & (class_maps < 0).all(axis=0)
    class_maps[class_maps == VOID] = NOTHING
    class_maps[0][is_void] = VOID
    background = background_of(classes)
    if background is not None:
        class_maps[0][(class_maps == NOTHING).all(axis=0)] = background
    if ((class_maps != NOTHING).sum(axis=0) <= 1).all():
        class_maps = class_maps.max(axis=0, keepdims=True)
    below = to_segmentation(class_maps.reshape(-1, *class_maps.shape[2:]), None, classes)  # a segment may lie in several layers
    planes = below.planes.reshape(class_maps.shape)
    return Segmentation(planes, below.class_ids, below.instance_ids, below.scores, classes)
