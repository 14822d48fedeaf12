"""What the colours in masks tell: pictures in the colours of classes, blurred ones, and palettes. Axes: N colours."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segwright.formats.smoothed_values import COVERS, STRAY
from segwright.inspection.finding import SHOWN, Finding, Fix, Level, plural, some
from segwright.inspection.sample_scan import SampleScan

MAX_CLASS_COLORS = 256  # more are no class colours: the masks are photographs
APART = 64  # of 255, in one channel: colours of classes are mostly farther apart, what JPEG makes of one colour is nearer
ON_LINE = 12  # of 255: a blend of two colours lies so near to the line between both
BLENDED = 0.9  # of the pixels that cover no area: the rest are blends of three colours

Color = tuple[int, ...]


def about_colors(colored: Sequence[SampleScan], count: int, named: Mapping[str, Any] | None) -> list[Finding]:
    """The finding of masks that are pictures, of `count` in all, if their colours have no names."""
    pixels: Counter[Color] = Counter()
    inside: Counter[Color] = Counter()
    for look in colored:
        if look.mask is not None and look.mask.colors is not None:
            colors = [*map(tuple, look.mask.colors.tolist())]
            pixels.update(dict(zip(colors, look.mask.counts.tolist(), strict=True)))
            inside.update(dict(zip(colors, look.mask.inside.tolist(), strict=True)))
    given = named or {}
    palette = [tuple(color) for color in given.get("palette") or []]
    unknown = [color for color in pixels if color not in {*palette, (0, 0, 0)}]
    if palette and (not unknown or given.get("nearest")):
        return []
    lossy = [look.key for look in colored if look.mask is not None and look.mask.is_lossy]
    solid = _solid(pixels, inside, are_lossy=bool(lossy))
    are_blurred = len(solid) > 1 and _are_blends(pixels, inside, solid, are_lossy=bool(lossy))
    total = sum(pixels.values())
    shown = ", ".join(f"{color} at {100 * number / total:.1f} %" for color, number in pixels.most_common(SHOWN))
    evidence = f"{len(colored)} of {plural(count, 'mask')} hold {plural(len(pixels), 'colour')}: {shown}."
    keys = tuple(look.key for look in colored)
    numbers = {"masks": len(colored), "colors": [[*color, number] for color, number in pixels.most_common(MAX_CLASS_COLORS)]}
    if palette and (are_blurred or len(lossy) == len(colored)):
        remedy = "Say in dataset.toml that each colour counts as the nearest of the palette."
        evidence = f"{evidence[:-1]}; {len(unknown)} of them are not in the palette, as blurring and JPEG make them."
        level: Level = "note" if len(lossy) == len(colored) else "error"  # those are read by the nearest
        return [Finding("smoothed-masks", level, evidence, remedy, numbers, keys, Fix(masks=dict(given) | {"nearest": True}))]
    if not are_blurred and (lossy or len(pixels) > MAX_CLASS_COLORS):
        remedy = "So many colours are no classes: the masks were blurred or are photographs. Export them again as PNG."
        return [Finding("rgb-masks", "error", evidence, remedy, numbers, keys)]
    colors = solid if are_blurred else sorted(pixels, key=lambda color: (-pixels[color], color))
    remedy = "Name the class of each colour under palette in dataset.toml."
    if are_blurred:
        evidence = f"{evidence[:-1]}; {plural(len(solid), 'colour')} cover areas, others are blends of them."
        remedy = "Name the class of each colour that covers an area in dataset.toml; each other counts as the nearest."
    masks = _with_colors(given, palette, [color for color in colors if color not in palette])
    fix = Fix(masks=masks | ({"nearest": True} if are_blurred else {}))
    return [Finding("rgb-masks", "error", evidence, remedy, numbers, keys, fix)]


def about_palettes(looks: Sequence[SampleScan], named: Mapping[str, Any] | None) -> list[Finding]:
    """Palettes that differ from mask to mask, or give numbers in another order than they are seen."""
    reordered = tuple(look.key for look in looks if look.mask is not None and look.mask.is_reordered)
    findings = []
    if reordered:
        evidence = (
            f"The palettes of {plural(len(reordered), 'mask')} ({some(reordered)}) number greys in another order than they "
        )
        remedy = "Nothing has to be done: masks of grey palettes are read by their greys, as every viewer shows them."
        findings.append(Finding("palette-order", "note", f"{evidence}are seen.", remedy, {"masks": len(reordered)}, reordered))
    shown = [look for look in looks if look.mask is not None and look.mask.palette is not None]
    differing = _differing(shown)
    given = named or {}
    if not differing or given.get("palette") and all(not look.problem for look in shown):
        return findings
    pixels: Counter[Color] = Counter()
    for look in shown:
        if look.mask is not None and look.mask.palette is not None:
            pixels.update(dict(zip(map(tuple, look.mask.palette.tolist()), look.mask.counts.tolist(), strict=True)))
    keys = tuple(look.key for look in shown)
    evidence = f"The palettes of {plural(len(shown), 'mask')} ({some(keys)}) {differing}, so that an index is no class."
    numbers = {"masks": len(shown), "colors": [[*color, number] for color, number in pixels.most_common(MAX_CLASS_COLORS)]}
    remedy = "Name the class of each colour under palette in dataset.toml."
    is_known = len(shown) == len(looks) and named is None
    colors = sorted(pixels, key=lambda color: (-pixels[color], color))
    fix = Fix(masks=_with_colors({}, [], colors)) if is_known and len(pixels) <= MAX_CLASS_COLORS else None
    return [Finding("mixed-palettes", "error", evidence, remedy, numbers, keys, fix)]


def _differing(shown: Sequence[SampleScan]) -> str:
    """How palettes differ, "" where they do not."""
    seen: dict[int, Color] = {}
    for look in shown:
        if look.mask is None or look.mask.palette is None:
            continue
        for value, color in zip(look.mask.values.tolist(), map(tuple, look.mask.palette.tolist()), strict=True):
            if seen.setdefault(value, color) != color:
                return f"show the index {value} as {seen[value]} and as {color}"
    if sorted(seen) == [0, 1] and seen[1] == (0, 0, 0):
        return f"show the index 0 as {seen[0]} and 1 as black"
    return ""


def _solid(pixels: Mapping[Color, int], inside: Mapping[Color, int], *, are_lossy: bool) -> list[Color]:
    """The colours that cover areas, the most frequent first; in files that are not exact without those near to another."""
    solid: list[Color] = []
    for color in sorted(pixels, key=lambda color: (-pixels[color], color)):
        is_new = not are_lossy or all(max(abs(a - b) for a, b in zip(color, other, strict=True)) >= APART for other in solid)
        if is_new and inside[color] > COVERS * pixels[color]:
            solid.append(color)
    return solid


def _are_blends(pixels: Mapping[Color, int], inside: Mapping[Color, int], solid: Sequence[Color], *, are_lossy: bool) -> bool:
    """Whether all other colours than the solid ones cover no area, and nearly all are blends of two of these."""
    rest = [color for color in pixels if color not in solid]
    if len(solid) > MAX_CLASS_COLORS // 8:  # 8: of many colours, anything is a blend
        return False
    counts = np.array([pixels[color] for color in rest], np.int64)
    if not are_lossy and sum(inside[color] for color in rest) > STRAY * counts.sum() or 2 * counts.sum() > sum(pixels.values()):
        return False
    colors, is_blend = np.array(rest, float).reshape(-1, 3), np.zeros(len(rest), bool)
    for first in np.array(solid, float):
        for second in np.array(solid, float):
            along = second - first
            share = np.clip((colors - first) @ along / max(float(along @ along), 1.0), 0, 1)[:, None]
            is_blend |= np.abs(first + share * along - colors).max(axis=1) <= (APART if are_lossy else ON_LINE)
    return bool((len(rest) > 0 or are_lossy) and counts[is_blend].sum() >= BLENDED * counts.sum())


def _with_colors(given: Mapping[str, Any], palette: Sequence[Color], more: Sequence[Color]) -> dict[str, Any]:
    """The table [masks] with the colours that it lacks as further classes."""
    names = given.get("classes")
    is_whole = isinstance(names, list) and len(names) == len(palette) and not given.get("values")
    kept = [*names] if is_whole and isinstance(names, list) else []
    masks = dict(given) if kept else {}
    masks["classes"] = [*kept, *(f"color_{r}_{g}_{b}" for r, g, b in more)]
    masks["palette"] = [[*color] for color in ([*palette, *more] if kept else more)]
    masks.pop("is_thing", None)
    return masks | {"masks": "colors"}
