"""Pixels that nobody measured: those that the files name, and those that look as if they were."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segwright.codecs.image_file import TIFF_SUFFIXES
from segwright.core.errors import FormatError
from segwright.formats.image_index import MASK_FOLDERS, images_below
from segwright.formats.pairing import subfolders
from segwright.formats.tiff import calls_zero_nodata
from segwright.inspection.finding import Finding, Fix, listed, plural, some
from segwright.inspection.sample_scan import SampleScan

LOOKED_AT = 200  # masks for the tag: one program wrote them all


def about_missing(looks: Sequence[SampleScan]) -> list[Finding]:
    """A note on missing values that are declared, a warning of those that are not."""
    return [*_declared([look for look in looks if look.missing], len(looks)), *_undeclared(looks)]


def about_zeros(root: Path, named: Mapping[str, Any] | None) -> list[Finding]:
    """A note on TIFF masks in a folder, or in its parts, whose files say that 0 is no data, though 0 may be a class.

    `named` is the content of classes.json or [masks], None where neither is.
    """
    if not root.is_dir() or named is not None and named.get("ignore_index") == 0:
        return []
    places = [root, *(place for place in sorted(root.iterdir()) if place.is_dir())]
    masks = [file for place in places for folder in subfolders(place, MASK_FOLDERS) for _, file in images_below(folder)]
    names = [mask.name for mask in masks[:LOOKED_AT] if mask.suffix.lower() in TIFF_SUFFIXES and _calls_zero_nodata(mask)]
    if not names:
        return []
    return [
        Finding(
            "zero-is-nodata",
            "note",
            f"The files of {plural(len(names), 'mask')} say that 0 is no data ({some(names)}). Many programs do so that a map "
            "shows through; 0 is read as a number like others.",
            "If nobody labelled these pixels, name the other classes in classes.json, with their values, and ignore_index 0.",
            {"masks": len(names)},
        )
    ]


def _calls_zero_nodata(mask: Path) -> bool:
    try:
        return calls_zero_nodata(mask)
    except FormatError:  # told when it is read
        return False


def _declared(holey: Sequence[SampleScan], count: int) -> list[Finding]:
    if not holey:
        return []
    pixels = sum(math.prod(look.shape) for look in holey)
    missing = sum(look.missing for look in holey)
    empty = tuple(look.key for look in holey if look.missing == math.prod(look.shape))
    evidence = f"In {len(holey)} of {plural(count, 'image')}, {100 * missing / pixels:.3g} % of the pixels have no value: "
    evidence += "nodata, NaN or infinity."
    if empty:
        evidence += f" {len(empty)} of them hold{'s' * (len(empty) == 1)} none at all ({some(empty)})."
    return [
        Finding(
            "missing-values",
            "note",
            evidence,
            "Nothing has to be done: they are left out of statistics, training and scores, and are void in predictions.",
            {"images": len(holey), "share": missing / pixels, "without_any": len(empty)},
            tuple(look.key for look in holey),
        )
    ]


def _undeclared(looks: Sequence[SampleScan]) -> list[Finding]:
    found = [look for look in looks if look.undeclared is not None]
    if not found:
        return []
    counted = Counter(look.undeclared for look in found if look.undeclared is not None)
    numbers = [_number(value) for value, _ in counted.most_common()]
    keys = tuple(look.key for look in found)
    where = f"{len(found)} of {plural(len(looks), 'image')} ({some(keys)})"
    return [
        Finding(
            "undeclared-nodata",
            "warning",
            f"{listed([*map(str, numbers)])} fills areas of {where}, far off all their other values, and would be taken for a "
            "measurement.",
            "If it stands for missing values, say so: in the files, where they are TIFF, by gdal_edit.py -a_nodata "
            f"{numbers[0]} FILE.tif, which adds a tag and changes no pixel; or by nodata = {numbers} in dataset.toml.",
            {"images": {str(number): count for number, (_, count) in zip(numbers, counted.most_common(), strict=True)}},
            keys,
            Fix(nodata=tuple(numbers)),
        )
    ]


def _number(value: float) -> float:
    """A number as people write it: -9999 and not -9999.0."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
