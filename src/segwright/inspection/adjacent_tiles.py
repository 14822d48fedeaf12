"""Images that are touching tiles of one larger picture: the border of one goes on in the other. Axes: N images, n pixels."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from segwright.inspection.finding import Finding, Fix, listed, plural
from segwright.inspection.sample_scan import SampleScan
from segwright.inspection.split_leakage import Together, groups_of

LEFT, RIGHT, TOP, BOTTOM = range(4)
CORRELATION = 0.9  # of the two lines of pixels; at 0.85 microscope tiles show no more true pairs, and twice the false ones
FINE_CORRELATION = (
    0.6  # of what is left of them without their course over WINDOW pixels: sky above road is alike in all streets
)
WINDOW = 17  # pixels
STEP = 1.5  # times the change from one line of pixels to the next inside both images
STEP_OF_TILES, MANY = 2.0, 0.1  # the same, where this share of the images has a neighbour: a tiled set has more such pairs
USUAL = 0.5  # of the median difference to the borders of all other images: a border that fits everything fits nothing
MIN_LENGTH = 96  # pixels; of thousands of shorter borders some agree by chance


def about_tiles(looks: Sequence[SampleScan], together: Together) -> list[Finding]:
    """Touching tiles, inside a part and across parts."""
    pairs = [pair for pair in touching(looks) if not together.is_one_clip(*pair)]  # a turning camera goes on, too
    groups = together.unknown(groups_of(pairs))
    torn = [group for group in groups if together.is_torn(group)]
    whole = [group for group in groups if not together.is_torn(group)]
    findings = []
    if torn:
        counts: dict[str, int] = defaultdict(int)
        for group in torn:
            for key in group:
                counts[together.part(key)] += 1
        parts = listed([f"{number} in {part}" for part, number in counts.items()])
        findings.append(
            Finding(
                "touching-tiles-across-splits",
                "warning",
                f"{plural(len(torn), 'group')} of touching tiles lie in different parts ({parts}; for one "
                f"{together.example(torn[0])}): the border of one goes on in the other.",
                "Scores on such a part are too good. Split again by the groups, or take them from dataset.toml for "
                "cross-validation.",
                {"groups": [list(group) for group in torn], "tiles": dict(counts)},
                tuple(key for group in torn for key in group),
                Fix(groups=tuple(torn)),
            )
        )
    if whole:
        findings.append(
            Finding(
                "touching-tiles",
                "note",
                f"{plural(len(whole), 'group')} of touching tiles lie inside one part ({together.example(whole[0])}).",
                "Keep them on one side of every split, by groups in dataset.toml.",
                {"groups": [list(group) for group in whole]},
                tuple(key for group in whole for key in group),
                Fix(groups=tuple(whole)),
            )
        )
    return findings


def touching(looks: Sequence[SampleScan]) -> list[tuple[str, str]]:
    """Pairs of keys of which the first lies left of, or above, the second in one larger picture."""
    pairs = _touching(looks, STEP)
    has_neighbour = {key for pair in pairs for key in pair}
    return _touching(looks, STEP_OF_TILES) if len(has_neighbour) > MANY * len(looks) else pairs


def _touching(looks: Sequence[SampleScan], step: float) -> list[tuple[str, str]]:
    pairs = []
    for near, far in ((RIGHT, LEFT), (BOTTOM, TOP)):
        by_length: dict[int, list[tuple[SampleScan, np.ndarray, np.ndarray]]] = defaultdict(list)
        for look in looks:
            if look.borders is not None and look.borders[near].shape[1] >= MIN_LENGTH and len(look.borders[near]) == 2:
                by_length[look.borders[near].shape[1]].append((look, look.borders[near], look.borders[far]))
        for group in by_length.values():
            keyed, first, second = zip(*group, strict=True)
            pairs += [
                (keyed[i].key, keyed[j].key)
                for i, j in touching_borders(np.stack(first), np.stack(second), step)
                if keyed[i].digest != keyed[j].digest
            ]
    return pairs


def touching_borders(first: np.ndarray, second: np.ndarray, step_limit: float = STEP) -> list[tuple[int, int]]:
    """Index pairs (i, j) where border i of the first float32 (N, 2, n) goes on in border j of the second, outermost line first.

    Both lines must correlate, differ hardly more than neighbouring lines inside the images do, far less than from the
    borders of all others, and be each other's best partner.
    """
    count, _, length = first.shape
    if count < 2:
        return []
    a, b = first[:, 0], second[:, 0]
    step = np.sqrt((_mean_square(first[:, 0] - first[:, 1])[:, None] + _mean_square(second[:, 0] - second[:, 1])[None]) / 2)
    differences = np.sqrt(np.maximum(_mean_square(a)[:, None] + _mean_square(b)[None] - 2 * (a @ b.T) / length, 0))
    others = ~np.eye(count, dtype=bool)
    usual = np.where(others, differences, np.nan)
    typical = np.fmin(np.nanmedian(usual, axis=1)[:, None], np.nanmedian(usual, axis=0)[None])
    is_fit = others & (differences < step_limit * step) & (step > 0)
    is_fit &= (_correlation(a, b) > CORRELATION) & (_correlation(_fine(a), _fine(b)) > FINE_CORRELATION)
    if count > 8:  # with fewer, half of the others may touch as well
        is_fit &= differences < USUAL * typical
    cost = np.where(is_fit, differences / np.maximum(step, 1e-12), np.inf)
    best_of_first, best_of_second = cost.argmin(axis=1), cost.argmin(axis=0)
    return [(i, int(j)) for i, j in enumerate(best_of_first) if np.isfinite(cost[i, j]) and best_of_second[j] == i]


def _mean_square(lines: np.ndarray) -> np.ndarray:
    return (lines.astype(np.float64) ** 2).mean(axis=1)


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of each line of a (N, n) with each of b, (N, N); 0 for lines without contrast."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    spread = np.sqrt(_mean_square(a)[:, None] * _mean_square(b)[None])
    return (a @ b.T) / a.shape[1] / np.maximum(spread, 1e-6 * max(float(np.abs(a).max()), 1e-12) ** 2)


def _fine(lines: np.ndarray) -> np.ndarray:
    """Lines (N, n) without their mean over WINDOW pixels, (N, n - WINDOW + 1)."""
    sums = np.cumsum(np.pad(lines.astype(np.float64), ((0, 0), (1, 0))), axis=1)
    half = WINDOW // 2
    return lines[:, half : lines.shape[1] - half] - (sums[:, WINDOW:] - sums[:, :-WINDOW]) / WINDOW
