"""What the pixels of the classes tell: absent, rare and overwhelming ones, and masks without anything. Axes: K classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segwright.core import Classes
from segwright.core.classes import spellings
from segwright.formats.label_encoding import VOID_8_BIT
from segwright.inspection.finding import Finding, Fix, listed, plural, some
from segwright.inspection.sample_scan import SampleScan

NAMES_OF_BACKGROUND = ("background", "bg", "_background_", "nothing", "none", "class_0")
OVERWHELMING = 0.99  # of the known pixels: the answer "this everywhere" is then right at 99 of 100
CROP, BATCH = 256, 8  # pixels and crops of a usual batch, in which the expected foreground is told


def about_classes(
    looks: Sequence[SampleScan], classes: Classes, named: Mapping[str, Any] | None, *, is_split: bool, has_mask_files: bool
) -> list[Finding]:
    """Diseases of the class counts; `named` is the content of classes.json or [masks], which dataset.toml can say anew only
    where masks are files of numbers.
    """
    seen = [look for look in looks if look.pixels is not None]
    if not seen:
        return _spelt(classes)
    counts = np.stack([np.asarray(look.pixels) for look in seen])
    background = _background(classes)
    return [
        *_spelt(classes),
        *_empty(seen, counts, background, classes),
        *_never_seen(seen, counts, background, classes, named, has_mask_files=has_mask_files),
        *_absent(seen, counts, classes, is_split=is_split),
        *_shares(seen, counts, background, classes),
    ]


def _background(classes: Classes) -> int | None:
    """The class that stands for the rest, by its name."""
    return next((k for k, name in enumerate(classes.names) if name.lower() in NAMES_OF_BACKGROUND), None)


def _spelt(classes: Classes) -> list[Finding]:
    """Classes whose names differ in capitals or blanks alone."""
    several = [names for names in spellings(classes.names).values() if len(names) > 1]
    if not several:
        return []
    evidence = f"Classes of their own are called {'; '.join(listed([repr(name) for name in names]) for names in several)}."
    remedy = "If they are the same, spell them alike where the objects are named: they are learned and measured apart."
    return [Finding("spellings", "warning", evidence, remedy, {"classes": several})]


def _empty(looks: Sequence[SampleScan], counts: np.ndarray, background: int | None, classes: Classes) -> list[Finding]:
    foreground = np.delete(counts, background, axis=1) if background is not None else counts
    is_told = np.array([bool(look.left_out) for look in looks])  # left_out.py says why these are empty
    is_empty = (foreground.sum(axis=1) == 0) & ~is_told
    if not is_empty.any() or len(classes) == 1 and background == 0:
        return []
    empty = [look for look, flag in zip(looks, is_empty, strict=True) if flag]
    unknown = [look.key for look in empty if look.void == int(np.prod(look.shape))]
    keys = tuple(look.key for look in empty)
    evidence = f"{len(keys)} of {plural(len(looks), 'mask')} hold no object and no class"
    evidence += f" but {classes.names[background]}" if background is not None else ""
    evidence += f" ({some(keys)})" + (f", {len(unknown)} of them nothing but void." if unknown else ".")
    remedy = "Keep those that truly show nothing; leave out those that nobody labelled, by drop in dataset.toml."
    numbers = {"masks": len(keys), "of": len(looks), "all_void": len(unknown)}
    are_all = bool(is_empty.all())
    if are_all:
        remedy = "Nothing can be learned or measured: check how these masks were exported, and what their numbers mean."
    fix = Fix(drop=tuple(unknown)) if 0 < len(unknown) < len(looks) else None
    return [Finding("empty-masks", "error" if are_all else "warning", evidence, remedy, numbers, keys, fix)]


def _never_seen(
    looks: Sequence[SampleScan],
    counts: np.ndarray,
    background: int | None,
    classes: Classes,
    named: Mapping[str, Any] | None,
    *,
    has_mask_files: bool,
) -> list[Finding]:
    missing = [k for k in range(len(classes)) if not counts[:, k].any()]
    if {*missing, background} >= {*range(len(classes))} or not missing:  # all of them: the masks are empty, as is said
        return []
    names = [classes.names[k] for k in missing]
    fix = None
    if has_mask_files and named is None and classes.names == tuple(f"class_{k}" for k in range(len(classes))):
        present = [k for k in range(len(classes)) if k not in missing]  # numbers with gaps, which nobody named
        void = {"ignore_index": VOID_8_BIT} if any(look.void for look in looks) else {}
        fix = Fix(masks={"classes": [classes.names[k] for k in present], "values": present} | void)
    elif has_mask_files and named is not None and named.get("masks") not in ("instances", "colors"):
        kept = [k for k in range(len(classes)) if k not in missing]
        masks = dict(named)
        for key in ("classes", "palette", "is_thing"):
            if isinstance(masks.get(key), list) and len(masks[key]) >= len(classes):
                masks[key] = [masks[key][k] for k in kept]
        values = named.get("values") or range(len(classes))
        fix = Fix(masks=masks | {"values": [values[k] for k in kept]})
    where = ", with the values of the others in dataset.toml" if fix is not None else " where the classes are listed"
    return [
        Finding(
            "class-never-seen",
            "warning",
            f"Not one pixel of {listed(names)} in {plural(len(looks), 'mask')}.",
            f"Nothing can be learned or measured of it: add samples that show it, or take the name away{where}.",
            {"classes": names, "masks": len(looks)},
            fix=fix,
        )
    ]


def _absent(looks: Sequence[SampleScan], counts: np.ndarray, classes: Classes, *, is_split: bool) -> list[Finding]:
    parts = list(dict.fromkeys(look.part for look in looks))
    if len(parts) < 2:
        return []
    pixels = np.stack([counts[[look.part == part for look in looks]].sum(axis=0) for part in parts])
    said, absent = [], {}
    for part, row in zip(parts, pixels, strict=True):
        names = [classes.names[k] for k in np.flatnonzero((row == 0) & (pixels.sum(axis=0) > 0))]
        if names:
            said.append(f"{part} has no pixel of {listed(names)}")
            absent[part] = names
    if not said:
        return []
    return [
        Finding(
            "class-absent-from-split",
            "warning" if is_split else "note",
            f"{'; '.join(said)}, though others have.",
            "Split again so that each part has every class: what training lacks is not learned, what validation lacks is not "
            "measured.",
            {"absent": absent},
        )
    ]


def _shares(looks: Sequence[SampleScan], counts: np.ndarray, background: int | None, classes: Classes) -> list[Finding]:
    nothing = sum(look.nothing for look in looks)
    totals = counts.sum(axis=0)
    known = int(totals.sum()) + nothing
    rest = nothing + (int(totals[background]) if background is not None else 0)
    foreground = known - rest
    if not known or not foreground:
        return []
    share = foreground / known
    if rest and share < 1 - OVERWHELMING:
        sides = np.median([look.shape for look in looks], axis=0)
        crop = tuple(int(min(side, CROP)) for side in sides) if len(sides) == 2 else tuple(int(side) for side in sides)
        crops = BATCH if len(sides) == 2 else 2
        expected = share * float(np.prod(crop)) * crops
        size = " × ".join(map(str, crop))
        evidence = (
            f"{100 * share:.2g} % of the known pixels are no background: a batch of {crops} random crops of {size} holds "
        )
        evidence += f"{expected:,.0f} such pixels of {int(np.prod(crop)) * crops:,}."
        remedy = (
            "Learn with a Dice loss and crops around objects, and read Dice or IoU: pixel accuracy is 99 % for an empty answer."
        )
        numbers = {"share": share, "expected_pixels": expected, "crop": list(crop), "crops": crops}
        return [Finding("tiny-foreground", "warning", evidence, remedy, numbers)]
    top = int(np.argmax(totals))
    if len(classes) > 1 and top != background and totals[top] >= OVERWHELMING * known:
        return [
            Finding(
                "dominant-class",
                "warning",
                f"{classes.names[top]} has {100 * totals[top] / known:.1f} % of the known pixels.",
                "Check that the masks are right; then read IoU and Dice: pixel accuracy is as high for this class alone.",
                {"class": classes.names[top], "share": float(totals[top] / known)},
            )
        ]
    return []
