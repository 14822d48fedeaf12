"""Masks whose numbers were smoothed, by resizing, blurring or JPEG: which numbers are classes, and how dataset.toml says so."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segwright.formats.guessed_meaning import TALLIED, TALLIED_WIDE, is_spread
from segwright.formats.label_encoding import VOID_8_BIT, numbers_of_class
from segwright.formats.smoothed_values import NO_VALUES, ValueTally, classes_among
from segwright.inspection.finding import Finding, Fix, Level, listed, plural
from segwright.inspection.sample_scan import SampleScan


def about_smoothing(looks: Sequence[SampleScan], named: Mapping[str, Any] | None) -> Finding | None:
    """The finding of masks that hold numbers between those of the classes, None where they do not."""
    masks = [look.mask for look in looks if look.mask is not None and look.mask.colors is None]
    lossy = [look.key for look in looks if look.mask is not None and look.mask.is_lossy]
    most = sorted(masks, key=lambda mask: -len(mask.values))
    most = most[: TALLIED if all(mask.itemsize == 1 for mask in masks) else TALLIED_WIDE]
    found = sum((ValueTally(mask.values, mask.counts, mask.inside, mask.between) for mask in most), NO_VALUES)
    classes = classes_among(found, are_lossy=bool(lossy)) if len(found.values) else None
    if lossy and all(mask.is_black_and_white for mask in masks):
        classes = [0, VOID_8_BIT]  # each of them is read so
    if classes is None:
        return None
    is_class = np.isin(found.values, classes)
    between = len(found.values) - int(is_class.sum())
    pixels = found.counts[~is_class].sum() / found.counts.sum()
    evidence = f"The masks hold {plural(len(found.values), 'number')}, but only {listed([*map(str, classes)])} cover areas; "
    evidence += (
        f"{between} {'lies' if between == 1 else 'lie'} between them, at {100 * pixels:.2g} % of the pixels, as resizing, "
    )
    evidence += "blurring and JPEG make them."
    keys = tuple(lossy) if lossy else tuple(look.key for look in looks if look.mask is not None)
    numbers = {"classes": classes, "between": between, "share": float(pixels), "lossy_files": len(lossy)}
    if named is None:
        return _unnamed(classes, evidence, numbers, keys, is_certain=bool(lossy))
    return _named(classes, dict(named), evidence, numbers, keys, is_read=bool(lossy))


def _unnamed(classes: list[int], evidence: str, numbers: dict[str, Any], keys: tuple[str, ...], *, is_certain: bool) -> Finding:
    are_two = len(classes) == 2
    names = ["background", "foreground"] if are_two else [f"class_{value}" for value in classes]
    fix = Fix(masks={"classes": names, "values": classes, "nearest": True})
    if not are_two and classes[-1] == VOID_8_BIT and not is_spread(classes):
        remedy = "Say in dataset.toml that 255 is a class and that others count as the nearest, or that 255 is to be ignored."
        return Finding("smoothed-masks", "error", f"{evidence} 255 may be a class or void.", remedy, numbers, keys, fix)
    remedy = "Each counts as the nearest of these: say so in dataset.toml, and name the classes."
    if not are_two:
        remedy += " A border between the lowest and the highest may pass as what lies between: better export exact masks again."
    return Finding("smoothed-masks", "note" if are_two and is_certain else "warning", evidence, remedy, numbers, keys, fix)


def _named(
    classes: list[int],
    named: dict[str, Any],
    evidence: str,
    numbers: dict[str, Any],
    keys: tuple[str, ...],
    *,
    is_read: bool,
) -> Finding | None:
    """The same where the classes are named: with their values, or as many as cover areas."""
    names, values = named.get("classes"), named.get("values")
    if not isinstance(names, list):
        return None
    if not values:
        if len(names) != len(classes):
            return None
        values = classes
        if named.get("ignore_index") in classes:
            named.pop("ignore_index")
    given = {number for value in values for number in numbers_of_class(value)} | {named.get("ignore_index")}
    if not given & {*classes}:
        return None
    fix = Fix(masks=named | {"values": [*values], "nearest": True})
    remedy = "Say in dataset.toml that each counts as the nearest number of a class."
    level: Level = "note" if is_read and (named.get("values") or len(classes) == 2) else "error"
    return Finding("smoothed-masks", level, evidence, remedy, numbers, keys, fix)
