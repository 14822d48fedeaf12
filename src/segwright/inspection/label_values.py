"""What the numbers in mask files tell, held against the names of the classes. Axes: N numbers, K classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segwright.formats.guessed_meaning import is_spread, may_be_class
from segwright.formats.label_encoding import VOID_8_BIT, numbers_of_class
from segwright.formats.smoothed_values import COVERS
from segwright.inspection.finding import SHOWN, Finding, Fix, Level, listed, plural, some
from segwright.inspection.label_colors import about_colors, about_palettes
from segwright.inspection.label_smoothing import about_smoothing
from segwright.inspection.sample_scan import MaskLook, SampleScan

NAMES_OF_VOID = (
    "void",
    "ignore",
    "ignored",
    "unlabelled",
    "unlabeled",
    "unlabel",
    "unknown",
    "undefined",
    "background",
    "none",
)
SPECIAL = ("ignore_index", "nothing_index", "crowd_index")
THIN = 0.5  # of the pixels of a number beside another: seams and outlines reach that, regions of some size do not


@dataclass(frozen=True)
class Number:
    """One number over all masks: pixels, pixels beside another number, those inside an area, and the masks that hold it."""

    pixels: int
    edges: int
    inside: int
    masks: tuple[str, ...]

    @property
    def thinness(self) -> float:
        """The share of its pixels that lie beside another number."""
        return self.edges / max(self.pixels, 1)


def tally(looks: Sequence[SampleScan], named: Mapping[str, Any] | None = None) -> dict[int, Number]:
    """What is known of each number in the masks, in the order of the numbers; white counts as what `named` calls it."""
    counts: dict[int, np.ndarray] = {}
    masks: dict[int, list[str]] = {}
    white = _white(looks, named)
    for look in looks:
        if look.mask is None or look.mask.colors is not None:
            continue
        rows = np.stack([look.mask.counts, look.mask.edges, look.mask.inside], axis=1)
        for value, row in zip(_numbers_in(look.mask, named, white), rows, strict=True):
            counts[value] = counts.get(value, 0) + row
            masks.setdefault(value, []).append(look.key)
    numbers = {}
    for value in sorted(counts):
        pixels, edges, inside = map(int, counts[value])
        numbers[value] = Number(pixels, edges, inside, tuple(dict.fromkeys(masks[value])))
    return numbers


def _numbers_in(mask: MaskLook, named: Mapping[str, Any] | None, white: int) -> list[int]:
    """The numbers of a mask as it is read: white as the class that it stands for, greys that are no class as indices."""
    if mask.is_black_and_white:
        return [white if value >= 128 else 0 for value in mask.values.tolist()]  # 128: a JPEG blurs both
    if mask.indices is not None and named is not None:
        known = {*_flat(named.get("values") or range(len(named.get("classes") or []))), *map(named.get, SPECIAL)}
        if not known.issuperset(mask.values.tolist()) and known.issuperset(mask.indices.tolist()):
            return mask.indices.tolist()
    return mask.values.tolist()


def _white(looks: Sequence[SampleScan], named: Mapping[str, Any] | None) -> int:
    """The number of white in masks of black and white alone: 1, or 255 where it has a class or other masks hold it."""
    if named is not None:
        numbers = _flat(named.get("values") or [])
        return VOID_8_BIT if VOID_8_BIT in numbers and 1 not in numbers else 1
    plain = [look.mask.values for look in looks if look.mask is not None and not look.mask.is_black_and_white]
    held = set(np.concatenate([np.zeros(0, np.int64), *plain]).tolist())
    return VOID_8_BIT if VOID_8_BIT in held and 1 not in held else 1


def _flat(values: Sequence[Any]) -> list[Any]:
    """The numbers of all classes, of which "values" gives one or a list each."""
    return [number for value in values for number in numbers_of_class(value)]


def about_numbers(looks: Sequence[SampleScan], named: Mapping[str, Any] | None) -> list[Finding]:
    """Diseases of the numbers; `named` is the content of classes.json or [masks], None where neither is there."""
    colored = [look for look in looks if look.mask is not None and look.mask.colors is not None]
    if colored:
        return about_colors(colored, len(looks), named)
    reordered = [*about_palettes(looks, named), *_below(looks, named)]
    found = tally(looks, named)
    has_missing = any(look.mask.has_missing for look in looks if look.mask is not None)
    is_wide = any(look.mask.itemsize > 1 for look in looks if look.mask is not None)
    if any(finding.level == "error" for finding in reordered):
        return reordered
    if not found or (named or {}).get("masks") in ("instances", "colors") or (named or {}).get("nearest"):
        return reordered
    smoothed = about_smoothing(looks, named)
    if smoothed is not None:
        return [*reordered, smoothed]
    if named is None:
        return [*reordered, *([] if is_wide and len(found) > 2 else _unnamed(found, has_missing=has_missing))]
    names, values = named.get("classes"), named.get("values")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return reordered
    special = {*map(named.get, SPECIAL)} - {None}
    numbers = _against_names(found, names, [*(values or range(len(names)))], special, dict(named), has_values=bool(values))
    return [*reordered, *numbers]


def _unnamed(found: dict[int, Number], *, has_missing: bool) -> list[Finding]:
    """Diseases of numbers that nobody named; some masks may say that numbers are missing."""
    values = [*found]
    if values[0] < 0:
        return [_negative(found)]
    if values == [0, VOID_8_BIT] or values == [VOID_8_BIT]:
        masks = {"classes": ["background", "foreground"], "values": [0, VOID_8_BIT]}
        if has_missing:
            return [_void_or_class("The masks hold 0 and 255, some say that numbers are missing (tag 42113), ", found, masks)]
        remedy = "Nothing has to be done: 255 is read as the class foreground. Name the classes in dataset.toml if you like."
        return [_found("masks-0-255", "note", _shares(found, values), remedy, found, values, masks)]
    if len([value for value in values if value]) < 2:
        return []
    if values == [0, 1, VOID_8_BIT] and not set(found[1].masks) & set(found[VOID_8_BIT].masks):
        masks = {"classes": ["background", "foreground"], "values": [0, [1, VOID_8_BIT]]}
        evidence = (
            f"{plural(len(found[1].masks), 'mask')} hold 0 and 1, {len(found[VOID_8_BIT].masks)} hold 0 and 255, none both."
        )
        remedy = "Say in dataset.toml that both are the foreground, or, if nobody knows what 255 is, that it is to be ignored."
        return [_found("mixed-foregrounds", "error", evidence, remedy, found, [VOID_8_BIT], masks)]
    solid = [value for value in values if found[value].inside > COVERS * found[value].pixels]
    are_doubtful = 2 * len(solid) < len(values) < values[-2] // 2
    if VOID_8_BIT in values and len(values) > 2 and may_be_class(values, are_doubtful=are_doubtful):
        masks = {"classes": [f"class_{value}" for value in values], "values": values}
        evidence = f"The masks hold {plural(len(values), 'number')} ({listed([*map(str, values)])}), "
        if is_spread(values):
            evidence += "grey levels that are read as classes."
            remedy = "Name the classes in dataset.toml, with these numbers as values."
            return [_found("scattered-numbers", "warning", evidence, remedy, found, [], masks)]
        return [_void_or_class(evidence, found, masks)]
    classes = [value for value in values if value != VOID_8_BIT]
    void = {"ignore_index": VOID_8_BIT} if VOID_8_BIT in values else {}
    if len(classes) < 2 or classes == [0, 1]:
        return []
    numbered = {"classes": [f"class_{value}" for value in classes], "values": classes}
    if classes == [*range(1, len(classes) + 1)]:
        evidence = f"The masks hold 1 to {len(classes)} and never 0, so that a class 0 would be learned that nobody drew."
        remedy = f"Say in dataset.toml that the classes are numbered 1 to {len(classes)}, and name them."
        return [_found("off-by-one", "warning", evidence, remedy, found, [], numbered | void)]
    if len(classes) < classes[-1] // 2:
        evidence = f"The masks hold only {plural(len(classes), 'number')} ({listed([*map(str, classes)])}), read as "
        evidence += f"{classes[-1] + 1} classes."
        remedy = "Name the classes in dataset.toml, with these numbers as values."
        return [_found("scattered-numbers", "warning", evidence, remedy, found, [], numbered | void)]
    if _is_seam(found, classes):
        rest = [value for value in classes if value]
        masks = {"classes": [f"class_{value}" for value in rest], "values": rest, "ignore_index": 0}
        evidence = f"{_shares(found, [0])}, {found[0].thinness:.0%} of them seams between other numbers."
        remedy = "If nobody labelled these pixels, say in dataset.toml that 0 is to be ignored."
        return [_found("zero-is-void", "warning", evidence, remedy, found, [0], masks)]
    return []


def _negative(found: dict[int, Number]) -> Finding:
    """A number below 0, which can be no class."""
    low, *rest = found
    classes = [value for value in rest if value != VOID_8_BIT]
    masks = {"classes": [f"class_{value}" for value in classes], "values": classes, "ignore_index": low}
    evidence = f"{_shares(found, [low])}, which can be no class and are taken for void."
    remedy = f"Say in dataset.toml that {low} is to be ignored, or that it is something else by drawing it anew."
    return _found("negative-numbers", "warning", evidence, remedy, found, [low], masks)


def _below(looks: Sequence[SampleScan], named: Mapping[str, Any] | None) -> list[Finding]:
    """Numbers below 0 in files of images, which are read as void."""
    low = {look.key: look.mask.negative for look in looks if look.mask is not None and look.mask.negative is not None}
    if not low or {*low.values()} == {(named or {}).get("ignore_index")}:
        return []
    evidence = (
        f"{plural(len(low), 'mask')} ({some([*low])}) hold {listed([*map(str, sorted({*low.values()}))])}, which can be no "
    )
    remedy = "Nothing has to be done if nobody knows what these pixels are; else draw them anew, with a number from 0 on."
    return [
        Finding("negative-numbers", "warning", f"{evidence}class and counts as void.", remedy, {"masks": len(low)}, (*low,))
    ]


def _void_or_class(evidence: str, found: dict[int, Number], masks: dict[str, Any]) -> Finding:
    evidence += "of which 255 may be a class or void."
    remedy = "Say in dataset.toml that it is a class, or, if nobody knows what these pixels are, that it is to be ignored."
    return _found("void-or-class", "error", evidence, remedy, found, [VOID_8_BIT], masks)


def _is_seam(found: dict[int, Number], classes: list[int]) -> bool:
    """Whether 0 is drawn between the others: thin itself, the others not, and at least three of them."""
    others = [found[value] for value in classes if value]
    thinness = sum(other.edges for other in others) / max(sum(other.pixels for other in others), 1)
    return 0 in found and len(others) > 2 and found[0].thinness > THIN > 2 * thinness


def _against_names(
    found: dict[int, Number], names: list[str], values: list[int], special: set[Any], named: dict[str, Any], *, has_values: bool
) -> list[Finding]:
    """Diseases of numbers of which somebody said what they mean."""
    count, ignore = len(names), named.get("ignore_index")
    present = [value for value in found if value not in special]
    unnamed = [value for value in present if value not in _flat(values)]
    if not has_values and [*found] == [0, VOID_8_BIT] and count == 2:
        evidence = f"{_shares(found, [0, VOID_8_BIT])}, but the classes {listed(names)} have the numbers 0 and 1"
        evidence += " and 255 is to be ignored, so that nothing of the second is left." if ignore == VOID_8_BIT else "."
        masks = _without_ignore(named, values=[0, VOID_8_BIT])
        remedy = 'Say "values" = [0, 255] in dataset.toml.'
        return [_found("masks-0-255", "error", evidence, remedy, found, [VOID_8_BIT], masks)]
    if not has_values and count > 1 and present and max(present) == count and 0 not in present:
        evidence = f"{plural(count, 'name')} are given, and the numbers are {min(present)} to {count}"
        evidence += ", never 0." if 0 not in found else "; 0 is to be ignored."
        remedy = f"Say in dataset.toml that {names[0]} is 1 and {names[-1]} is {count}."
        masks = named | {"values": [*range(1, count + 1)]}
        return [_found("off-by-one", "error", evidence, remedy, found, [], masks)]
    if not has_values and unnamed == [count] and 0 in present and _is_void(found, count, names, ignore):
        evidence = f"{plural(count, 'name')} are given, and the numbers are 0 to {count}: one too many. {_shares(found, [0])}, "
        evidence += f"{found[0].thinness:.0%} of them beside another number, and it would be called {names[0]}."
        remedy = f"Say in dataset.toml that 0 is to be ignored and that {names[0]} is 1."
        masks = named | {"values": [*range(1, count + 1)], "ignore_index": 0}
        return [_found("zero-is-void", "error", evidence, remedy, found, [0], masks)]
    if not has_values and unnamed and len(present) == count and present[-1] >= 2 * count and ignore not in _flat(values):
        evidence = f"{plural(count, 'name')} are given, and the masks hold as many numbers: {listed([*map(str, present)])}."
        remedy = "Say in dataset.toml that these are the values of the classes, in this order."
        return [_found("scattered-numbers", "error", evidence, remedy, found, unnamed, named | {"values": present})]
    findings = [_unknown(found, names, values, unnamed, named)] if unnamed else []
    if ignore in values and ignore in found and names[values.index(ignore)].lower() not in NAMES_OF_VOID:
        findings.append(_ignored_class(found, names, values, unnamed, named))
    return findings


def _is_void(found: dict[int, Number], count: int, names: list[str], ignore: Any) -> bool:
    """Whether of the numbers 0 and `count`, of which one has no name, 0 is what nobody labelled."""
    return ignore is None and names[0].lower() not in NAMES_OF_VOID and found[0].thinness >= found[count].thinness


def _unknown(
    found: dict[int, Number], names: list[str], values: list[int], unnamed: list[int], named: dict[str, Any]
) -> Finding:
    keys = sorted({key for value in unnamed for key in found[value].masks})
    evidence = f"{_shares(found, unnamed[:SHOWN])} of {plural(len(keys), 'mask')} ({some(keys)}), "
    evidence += f"but the {len(names)} classes have {_span(values)}."
    if len(unnamed) == 1 and named.get("ignore_index") is None:
        masks, remedy = (
            named | {"ignore_index": unnamed[0]},
            f"Say in dataset.toml that {unnamed[0]} is to be ignored, or name it.",
        )
    else:
        more = [f"class_{value}" for value in unnamed]
        masks = named | {"classes": [*names, *more], "values": [*values, *unnamed]}
        for name in ("palette", "is_thing"):
            masks.pop(name, None)
        remedy = f"Name {'it' if len(unnamed) == 1 else 'them'} in dataset.toml; which number is to be ignored is said already."
        if named.get("ignore_index") is None:
            remedy = "Name them in dataset.toml, or say which is to be ignored."
    return Finding("number-without-class", "error", evidence, remedy, _numbers(found, unnamed), tuple(keys), Fix(masks=masks))


def _ignored_class(
    found: dict[int, Number], names: list[str], values: list[int], unnamed: list[int], named: dict[str, Any]
) -> Finding:
    ignore = named["ignore_index"]
    name = names[values.index(ignore)]
    evidence = f"{_shares(found, [ignore])}. {ignore} is the number of {name}, and is to be ignored: {name} is never learned."
    masks = _without_ignore(named)
    if unnamed == [VOID_8_BIT]:
        masks["ignore_index"] = VOID_8_BIT
    remedy = f"If {name} is a class, take ignore_index away, as the [masks] of dataset.toml then does; else take its name away."
    return _found("ignore-inside", "warning", evidence, remedy, found, [ignore], masks)


def _without_ignore(named: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in named.items() if key != "ignore_index"} | changes


def _found(
    name: str, level: Level, evidence: str, remedy: str, found: dict[int, Number], shown: list[int], masks: dict[str, Any]
) -> Finding:
    keys = sorted({key for value in shown for key in found[value].masks})
    return Finding(name, level, evidence.rstrip(".") + ".", remedy, _numbers(found, [*found]), tuple(keys), Fix(masks=masks))


def _numbers(found: dict[int, Number], values: Sequence[int]) -> dict[str, Any]:
    return {"pixels": {str(value): found[value].pixels for value in values}}


def _shares(found: dict[int, Number], values: Sequence[int]) -> str:
    total = max(sum(number.pixels for number in found.values()), 1)
    said = [f"{value} at {100 * found[value].pixels / total:.2g} %" for value in values if value in found]
    return f"The masks hold {listed(said)} of the pixels"


def _span(values: Sequence[int]) -> str:
    if [*values] == [*range(len(values))]:
        return f"the numbers 0 to {len(values) - 1}"
    return f"the numbers {listed([*map(str, values)])}"
