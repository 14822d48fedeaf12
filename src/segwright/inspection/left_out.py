"""Annotations that became no segment: drawn outside of their image, or of a kind, a class or a size that gives no pixel."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from segwright.formats.drawn_shapes import (
    ABOUT_IMAGE,
    BOX_ALONE,
    FEW_CORNERS,
    LINE_OR_POINTS,
    NO_IMAGE,
    NO_PIXEL,
    OUTSIDE,
    SWAPPED,
    UNLABELLED,
    lost,
    told,
)
from segwright.inspection.finding import Finding, Level, some
from segwright.inspection.sample_scan import SampleScan

SPOILED, FEW = 0.5, 0.01  # shares of all annotations, from which on this is an error, and below which it is a note
MANY_CUT = 0.1  # share of shapes: objects at the border of a picture are cut too, where people draw beyond it
CUT = 2.0  # pixels beyond the border, and
CUT_SHARE = 0.01  # of the longer side more: less is a hand that was not steady
BORDER = "the border of their image"
ON_A_MAP = 50.0  # times the side of an image: no picture is made so much smaller
REMEDIES = {
    NO_PIXEL: "They are thinner than a pixel, or empty: draw them again, or remove them.",
    FEW_CORNERS: "Draw them again, or remove them.",
    LINE_OR_POINTS: "Lines and points have no area: draw regions of what is to be learned.",
    BOX_ALONE: "Draw masks for them, since what has none counts as background, or leave these images out by drop in "
    "dataset.toml.",
    NO_IMAGE: "Add these images, under the names that their annotations have, or remove the annotations.",
    UNLABELLED: "Give them a label, or remove them.",
}
NOT_HERE = (OUTSIDE, SWAPPED, ABOUT_IMAGE)
LISTED = "Add what is missing to the list of classes, or remove these annotations."
ON_ANOTHER_MAP = (
    "These look like places on a map that the image does not lie on: give the GeoTIFF that was labelled, name the system of "
    "the labels by crs, or export labels in pixels."
)
TINY = "All shapes are smaller than a pixel: are these shares of the image, or degrees? Bring them to pixels."
UNKNOWN = "Nothing can be learned of kinds without a region: remove them, or draw regions."


def about_left_out(looks: Sequence[SampleScan], elsewhere: Mapping[str, int]) -> list[Finding]:
    """Findings on annotations outside of the image, and on others that are no segment; `elsewhere` are those of no sample."""
    total = sum(look.segments + lost(look.left_out) for look in looks) + lost(elsewhere)
    return [*_outside(looks, total), *_others(looks, elsewhere, total)] if total else []


def _level(share: float) -> Level:
    return "error" if share >= SPOILED else "warning" if share >= FEW else "note"


def _outside(looks: Sequence[SampleScan], total: int) -> list[Finding]:
    counts = {look.key: look.left_out.get(OUTSIDE, 0) + look.left_out.get(SWAPPED, 0) for look in looks}
    outside, swapped = sum(counts.values()), sum(look.left_out.get(SWAPPED, 0) for look in looks)
    beyond = {look.key: _beyond(look) for look in looks}
    cut = sum(int((pixels > 0).sum()) for pixels in beyond.values()) - (outside - swapped)
    if not outside and cut < MANY_CUT * total:
        return []
    keys = tuple(key for key, count in counts.items() if count) or tuple(key for key, by in beyond.items() if (by > 0).any())
    said = [f"{outside:,} of {total:,} annotations lie outside of their image"] if outside else []
    if cut > 0:
        said += [f"{cut:,} more are cut by its border" if outside else f"{cut:,} of {total:,} annotations are cut by {BORDER}"]
    evidence = f"{', and '.join(said)} ({some(keys)})"
    numbers: dict[str, float] = {"outside": outside, "cut": max(cut, 0), "of": total}
    if swapped:
        evidence += f"; {swapped:,} would lie inside with x and y swapped."
        remedy = "Exchange x and y: longitude or easting comes first."
    else:
        text, times = _reach([look for look in looks if look.key in set(keys)])
        evidence += f"; {text}."
        numbers["times"] = times
        remedy = "Give the images that were annotated, or bring the coordinates to the size of these."
        if _are_tiny(looks):
            remedy = TINY
        elif times > ON_A_MAP:
            remedy = ON_ANOTHER_MAP
        elif times > 1:
            remedy = f"Were the images made smaller, to {1 / times:.2g} of their size or less? {remedy}"
    level = _level(outside / total) if outside else "warning"
    return [Finding("objects-outside", level, evidence, remedy, numbers, keys)]


def _beyond(look: SampleScan) -> np.ndarray:
    """By how many pixels each drawn shape reaches farther beyond its image than a hand that is not steady, float64 (N,)."""
    if look.drawn_xyxy is None or not len(look.drawn_xyxy):
        return np.zeros(0)
    height, width = look.shape
    beyond = np.maximum(-look.drawn_xyxy[:, :2], look.drawn_xyxy[:, 2:] - (width, height)).max(axis=1)
    return beyond - CUT - CUT_SHARE * max(height, width)


def _are_tiny(looks: Iterable[SampleScan]) -> bool:
    """Whether there are drawn shapes, and none is as long as a pixel."""
    sizes = [look.drawn_xyxy[:, 2:] - look.drawn_xyxy[:, :2] for look in looks if look.drawn_xyxy is not None]
    return any(map(len, sizes)) and bool((np.concatenate(sizes) < 1).all())


def _reach(looks: Sequence[SampleScan]) -> tuple[str, float]:
    """How far shapes reach in the image where they reach farthest, and how many times its size that is."""
    drawn = [(look, look.drawn_xyxy) for look in looks if look.drawn_xyxy is not None and len(look.drawn_xyxy)]
    times, look, boxes = max(
        ((float((boxes[:, 2:].max(axis=0) / look.shape[::-1]).max()), look, boxes) for look, boxes in drawn),
        key=lambda entry: entry[0],
    )
    height, width = look.shape
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    size = f"the image is {width} wide and {height} high"
    if times <= 1:
        return f"shapes begin at x = {left:.6g} and y = {top:.6g}, {size}", times
    text = f"shapes reach x = {right:.6g} and y = {bottom:.6g}, {size}"
    if times > ON_A_MAP:
        return text, times
    return f"{text}, {1 / times:.2g} of that", times


def _others(looks: Sequence[SampleScan], elsewhere: Mapping[str, int], total: int) -> list[Finding]:
    counts = Counter(elsewhere)
    keys = []
    for look in looks:
        others = {reason: count for reason, count in look.left_out.items() if reason not in NOT_HERE}
        counts.update(others)
        keys += [look.key] if others else []
    if not counts:
        return []
    count = sum(counts.values())
    where = f" ({some(keys)})" if keys else ""
    evidence = f"{count:,} of {total:,} annotations became no segment: {told(counts)}{where}."
    remedies = [LISTED if "not listed" in reason else REMEDIES.get(reason, UNKNOWN) for reason, _ in counts.most_common()]
    if _are_tiny(look for look in looks if look.left_out.get(NO_PIXEL)):
        remedies = [TINY]
    remedy = " ".join(dict.fromkeys(remedies))
    return [Finding("left-out", _level(count / total), evidence, remedy, {"of": total, "reasons": dict(counts)}, tuple(keys))]
