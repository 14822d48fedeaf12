"""What tags of TIFF masks say of their numbers, in every format that keeps masks in folders: no data, and white is zero."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segwright.codecs.image_file import BLACK_IS_ZERO, TIFF_SUFFIXES
from segwright.core.errors import FormatError
from segwright.formats.image_index import MASK_FOLDERS, images_below
from segwright.formats.label_encoding import VOID_8_BIT, numbers_of_class
from segwright.formats.pairing import TRUTH_FOLDERS, subfolders
from segwright.formats.tiff import MaskTags, tags_of_mask
from segwright.inspection.finding import MAX_NAMES, Finding, plural, some
from segwright.inspection.sample_scan import SampleScan

LOOKED_AT = 200  # masks for their tags: one program wrote them all
ZERO = ("0", "0.0", "-0")


def about_tags(root: Path, named: Mapping[str, Any] | None, looks: Sequence[SampleScan]) -> list[Finding]:
    """Findings of the tags of TIFF masks in a folder, or in its parts.

    `named` is the content of classes.json or [masks], None where neither is.
    """
    given = named or {}
    masks = _masks(root)
    tags = _tags(masks)
    turned = [name for name, one in tags.items() if one.is_turned]
    zero = [name for name, one in tags.items() if one.nodata in ZERO]
    other = [name for name, one in tags.items() if one.nodata and one.nodata not in ZERO]
    seen = [look.pixels for look in looks if look.pixels is not None]
    findings = []
    if turned and not _are_falling(given.get("values") or []):
        are_all = len(turned) == len(masks) and not any(mask.parent.name.lower() in TRUTH_FOLDERS for mask in masks)
        findings.append(_turned(turned, _numbers(tags[turned[0]], looks) if are_all else []))
    if zero and given.get("ignore_index") != 0:
        findings.append(_zero(zero))
    if other and any(look.void for look in looks) and not any(pixels[1:].any() for pixels in seen):
        findings.append(_foreground(other, tags[other[0]].nodata))
    return findings


def _masks(root: Path) -> list[Path]:
    """The first masks in a folder, or in its parts."""
    if not root.is_dir():
        return []
    names = (*MASK_FOLDERS, *TRUTH_FOLDERS)
    places = [root, *(place for place in sorted(root.iterdir()) if place.is_dir())]
    masks = [file for place in places for folder in subfolders(place, names) for _, file in images_below(folder)]
    return masks[:LOOKED_AT]


def _tags(masks: Sequence[Path]) -> dict[str, MaskTags]:
    """The tags of those that are TIFF, by their names."""
    found = {}
    for mask in masks:
        if mask.suffix.lower() in TIFF_SUFFIXES:
            try:
                found[mask.name] = tags_of_mask(mask)
            except FormatError:  # told when it is read
                continue
    return found


def _are_falling(values: Sequence[Any]) -> bool:
    """Whether the numbers of classes fall, as they do who turn them back."""
    numbers = [numbers_of_class(value)[0] for value in values]
    return len(numbers) > 1 and numbers[0] > numbers[-1]


def _numbers(tags: MaskTags, looks: Sequence[SampleScan]) -> list[int]:
    """The numbers in masks as they are read, the highest first, where they can be told and are few."""
    if tags.is_one_bit:
        return [1, 0]
    held = [look.mask.values for look in looks if look.mask is not None and look.mask.colors is None]
    numbers = np.unique(np.concatenate([np.zeros(0, np.int64), *held]))[::-1].tolist()
    return numbers if 1 < len(numbers) <= MAX_NAMES and numbers[0] <= VOID_8_BIT else []  # others are those of objects


def _turned(names: Sequence[str], numbers: list[int]) -> Finding:
    classes = ["background", "foreground"] if len(numbers) == 2 else [f"class_{k}" for k in range(len(numbers))]
    by_values = f"write classes = {classes} and values = {numbers} below [masks] in dataset.toml, or ".replace("'", '"')
    return Finding(
        "white-is-zero",
        "warning",
        f"The files of {plural(len(names), 'mask')} ({some(names)}) say that white is 0 (tag 262, PhotometricInterpretation): "
        "their numbers are read turned, the highest for 0, as every viewer shows them. Some programs, tifffile for masks of "
        "True and False among them, write this tag and do not turn the numbers: then background and foreground are swapped.",
        f"Look at a mask in a viewer. Where the objects are black, {by_values if numbers else ''}say in each file that black "
        f"is 0, which changes no pixel: {BLACK_IS_ZERO}",
        {"masks": len(names)},
    )


def _zero(names: Sequence[str]) -> Finding:
    return Finding(
        "zero-is-nodata",
        "note",
        f"The files of {plural(len(names), 'mask')} say that 0 is no data ({some(names)}). Many programs do so that a map "
        "shows through; 0 is read as a number like others.",
        "If nobody labelled these pixels, name the other classes in classes.json, with their values, and ignore_index 0.",
        {"masks": len(names)},
    )


def _foreground(names: Sequence[str], nodata: str) -> Finding:
    return Finding(
        "foreground-is-nodata",
        "warning",
        f"The files of {plural(len(names), 'mask')} ({some(names)}) say that {nodata} is no data (tag 42113), and no mask "
        "holds another number but 0: so all of it is void.",
        f'If it is the foreground, write classes = ["background", "foreground"] and values = [0, {VOID_8_BIT}] below [masks] '
        "in dataset.toml.",
        {"masks": len(names)},
    )
