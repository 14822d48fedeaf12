"""What the headers of volumes and their masks tell: how numbers are stored, what they mean in each file, units, thin stacks."""

from collections.abc import Mapping
from pathlib import Path

from segwright.codecs.volume_file import layout_of, suffix_of
from segwright.codecs.volume_header import Layout
from segwright.core.classes import spellings
from segwright.core.errors import FormatError
from segwright.formats.slicer_segments import Segment, segments_of
from segwright.inspection.finding import Finding, listed, plural, some

NOTHING_TO_DO = "Nothing has to be done: "


def about_volumes(pairs: Mapping[str, tuple[Path, Path]]) -> list[Finding]:
    """Notes on the image and mask files of each key, where these are volumes; what cannot be read is told elsewhere."""
    headers = {key: (_layout(image), _layout(mask)) for key, (image, mask) in pairs.items()}
    segments = {key: named for key, (_, mask) in pairs.items() if (named := _segments(mask))}
    images = {key: image for key, (image, _) in headers.items() if image is not None}
    masks = {key: mask for key, (_, mask) in headers.items() if mask is not None}
    rounded = [key for key, mask in masks.items() if mask.slope != int(mask.slope) or mask.inter != int(mask.inter)]
    repeated = [key for key, mask in masks.items() if _channels(mask) > 1 and key not in segments]
    thin = [key for key, image in images.items() if len(image.place[1]) == 3 and _slices(image) == 1]
    units = [key for key, image in images.items() if image.unit_mm != 1]
    notes = []
    if rounded:
        evidence = f"{plural(len(rounded), 'mask')} are stored with a slope ({some(rounded)}): numbers are off by a rounding."
        notes.append(_note("rounded-numbers", evidence, f"{NOTHING_TO_DO}they are made whole when read.", rounded))
    if repeated:
        evidence = f"{plural(len(repeated), 'mask')} have a fourth axis ({some(repeated)})."
        remedy = f"{NOTHING_TO_DO}where nothing changes along it, the mask is taken as one."
        notes.append(_note("repeated-masks", evidence, remedy, repeated))
    if thin:
        evidence = f"{len(thin)} of {plural(len(images), 'volume')} have a single slice ({some(thin)})."
        remedy = "If all have, save them as flat images: then flat networks learn from them."
        notes.append(_note("one-slice", evidence, remedy, thin))
    if units:
        evidence = f"{plural(len(units), 'volume')} say their size in units of {images[units[0]].unit_mm:g} mm ({some(units)})."
        remedy = f"{NOTHING_TO_DO}sizes and scores are in millimetres."
        notes.append(_note("other-units", evidence, remedy, units))
    return [*notes, *_about_names(segments)]


def _about_names(segments: Mapping[str, tuple[Segment, ...]]) -> list[Finding]:
    """Notes on names of segments whose numbers or spellings differ from file to file."""
    notes = []
    known = spellings(segment.name for named in segments.values() for segment in named)
    several = [" and ".join(map(repr, names)) for names in known.values() if len(names) > 1]
    if several:
        remedy = "They are taken for one class: rename one if they are two."
        notes.append(_note("spellings", f"Segments are called {listed(several)}.", remedy, [*segments]))
    first: dict[str, tuple[str, int]] = {}
    for key, named in segments.items():
        for segment in named:
            other, number = first.setdefault(segment.name, (key, segment.number))
            if number != segment.number:
                evidence = (
                    f"{segment.name} is {number} in {other} and {segment.number} in {key}, as these files say themselves."
                )
                remedy = f"{NOTHING_TO_DO}names of segments decide, not numbers."
                return [*notes, _note("numbers-by-file", evidence, remedy, [other, key])]
    return notes


def _note(name: str, evidence: str, remedy: str, keys: list[str]) -> Finding:
    return Finding(name, "note", evidence, remedy, {"samples": len(keys)}, tuple(keys))


def _layout(path: Path) -> Layout | None:
    try:
        return layout_of(path) if suffix_of(path) else None
    except FormatError:
        return None


def _segments(path: Path) -> tuple[Segment, ...]:
    try:
        return segments_of(path)
    except FormatError:
        return ()


def _channels(layout: Layout) -> int:
    """Numbers at each voxel, along an axis of their own or a fourth one."""
    axes = len(layout.place[1])
    if layout.channel_axis is not None:
        return layout.stored[layout.channel_axis]
    return layout.stored[0] if len(layout.stored) > axes else 1


def _slices(layout: Layout) -> int:
    """The length of the first of the spatial axes."""
    stored = list(layout.stored)
    if layout.channel_axis is not None:
        del stored[layout.channel_axis]
    return stored[-len(layout.place[1])]
