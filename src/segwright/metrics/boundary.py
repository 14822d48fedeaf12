"""How well borders are met: boundary F1, boundary IoU and trimap IoU. Axes: K classes, *S spatial axes.

All classes are worked on at once: where segments do not overlap, one map of classes holds the borders of all of them, so the
time does not grow with K.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil, floor, hypot, isqrt, prod
from typing import ClassVar

import numpy as np
from numba import njit

from segwright.core import VOID, Classes, Segmentation
from segwright.core.errors import SettingError
from segwright.metrics.accumulators import Sums, mean, ratio
from segwright.metrics.class_maps import AXES, class_maps, class_masks, map_dtype
from segwright.metrics.overlaps import check_pair, check_sizes

MIXED = -2  # more than one class in a window
NO_BORDER = -1
IN_PREDICTED, IN_TRUE, IN_TRIMAP = 4, 2, 1  # bands that a pixel lies in, as bits


@dataclass(frozen=True)
class Boundary:
    """Scores of borders, `Sums` (12, K + 1).

    Rows 0-5 are F1, precision and recall of the border added up over images, each followed by the number of images where it
    exists; rows 6-8 the pixels that the inner bands of prediction and truth share, those of the true and of the predicted band;
    rows 9-11 the correct, true and predicted pixels of the trimap. Column K holds the mean over classes of each image.

    `tolerance_share` of the image diagonal is how far apart borders may lie to be the same (`tolerance_pixels` in pixels
    where given), `band_share` how wide the bands of boundary IoU are, `trimap_pixels` how far the trimap reaches from a border.

    Source: boundary F1: Csurka et al. 2013, doi 10.5244/C.27.32; boundary IoU: Cheng et al. 2021, arXiv 2103.16562, equal to
    the authors' masks; trimap: Kohli et al. 2009, doi 10.1007/s11263-008-0202-0.
    """

    classes: Classes
    tolerance_share: float = field(default=0.0075, kw_only=True)  # Csurka et al.
    tolerance_pixels: float | None = field(default=None, kw_only=True)
    band_share: float = field(default=0.02, kw_only=True)  # Cheng et al.
    trimap_pixels: int = field(default=5, kw_only=True)  # the width of the void that PASCAL VOC leaves around objects
    SCORES: ClassVar[tuple[str, ...]] = (
        "boundary F1",
        "boundary precision",
        "boundary recall",
        "boundary IoU",
        "trimap IoU",
    )

    def __post_init__(self) -> None:
        tolerance = self.tolerance_share if self.tolerance_pixels is None else self.tolerance_pixels
        for name, value in (("tolerance", tolerance), ("band", self.band_share), ("trimap", self.trimap_pixels)):
            if not 0 <= value < np.inf or (name == "trimap" and value < 1):
                needed = "1 pixel or more" if name == "trimap" else "0 or more"
                raise SettingError(f"a {name} of {value} was given, {needed} is needed; leave it out for the published value")

    @property
    def convention(self) -> str:
        """What counts as a border and as its match, and what is averaged."""
        tolerance = f"{100 * self.tolerance_share:g} % of the image diagonal"
        if self.tolerance_pixels is not None:
            tolerance = f"{self.tolerance_pixels:g} pixels"
        return (
            "A border pixel has a neighbour across an edge or face that is known to be of another class; against void and at "
            f"the edge of the image there is no border. Boundary F1: borders of a class match up to {tolerance} (Euclidean), "
            "judged per image and class, averaged over the classes of an image, then over images; 0 where only truth or "
            "prediction has a border, left out where neither has one and both agree. Boundary IoU: IoU of the pixels within "
            f"{100 * self.band_share:g} % of the diagonal (chessboard) from what is not their class, the edge of the image "
            "included; pixels added up over images, mean over classes. Trimap IoU: the same of pixels within "
            f"{self.trimap_pixels} pixels (chessboard) of another true class. Pixels void in the truth are left out everywhere."
        )

    def count(self, prediction: Segmentation, truth: Segmentation) -> Sums:
        """What is added up of one image, (12, K + 1).

        Raises:
            ShapeError: prediction and truth differ in size.
            UsageError: one of them holds a class that this metric does not know.
        """
        check_pair(prediction, truth, self.classes)
        num_classes = len(self.classes)
        diagonal = hypot(*truth.shape)
        tolerance = self.tolerance_share * diagonal if self.tolerance_pixels is None else self.tolerance_pixels
        width = max(1, round(self.band_share * diagonal))
        borders, pixels = np.zeros((4, num_classes), np.int64), np.zeros((3, num_classes + 1, 8), np.int64)
        trimap = None if _is_flat(prediction, truth) else self.trimap(truth)
        margin = max(width, ceil(tolerance)) + 1
        for predicted, true, region in _layers(prediction, truth, num_classes, margin):
            predicted_border, true_border = class_borders(predicted, num_classes), class_borders(true, num_classes)
            borders += matches(predicted_border, true_border, num_classes, tolerance)
            is_near = band(true, self.trimap_pixels, has_edge=False) if trimap is None else trimap[region]
            flags = band(predicted, width, has_edge=True) * np.uint8(IN_PREDICTED)
            flags |= band(true, width, has_edge=True) * np.uint8(IN_TRUE) | is_near * np.uint8(IN_TRIMAP)
            _tally(predicted.ravel(), true.ravel(), flags.ravel(), pixels)
        rows = _band_pixels(pixels)[:, :num_classes]
        sums = np.zeros((12, num_classes + 1))
        sums[:6] = _border_scores(borders, rows[:3])
        sums[6:, :num_classes] = rows[3:]
        return Sums(sums)

    def trimap(self, truth: Segmentation) -> np.ndarray:
        """Pixels near a border of any true class, bool (*S), where segments may overlap."""
        result = np.zeros(truth.shape, bool)
        for _, true, region in _layers(truth, truth, len(self.classes), self.trimap_pixels + 1):
            result[region] |= band(true, self.trimap_pixels, has_edge=False)
        return result

    def score(self, state: Sums) -> dict[str, np.ndarray]:
        """Scores from 0 to 1 by name, then each of them per class."""
        rows = np.moveaxis(state.values, -2, 0)  # 12 times (..., K + 1)
        scores, per_class = {}, {}
        for row, title in enumerate(self.SCORES[:3]):
            values = ratio(rows[2 * row], rows[2 * row + 1])
            scores[title], per_class[title] = values[..., -1], values[..., :-1]
        for row, title in ((6, self.SCORES[3]), (9, self.SCORES[4])):
            shared, true, predicted = rows[row : row + 3, ..., :-1]
            per_class[title] = ratio(shared, true + predicted - shared)
            scores[title] = mean(per_class[title])
        for title, values in per_class.items():
            scores |= {f"{title}/{name}": values[..., k] for k, name in enumerate(self.classes.names)}
        return scores


def _is_flat(prediction: Segmentation, truth: Segmentation) -> bool:
    """Whether one map holds all classes of each."""
    return len(prediction.planes) == len(truth.planes) == 1


def _layers(
    prediction: Segmentation, truth: Segmentation, num_classes: int, margin: int
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[slice, ...]]]:
    """Predicted and true class map (*S) of a region of the image, as `class_maps` makes them, and the region.

    One pair of maps holds all classes where no segments overlap; else there is one for each class and its surroundings.
    """
    if _is_flat(prediction, truth):
        predicted, true = class_maps(prediction, truth, num_classes)
        yield predicted, true, (slice(None),) * true.ndim
        return
    for k, region, predicted, true in class_masks(prediction, truth, num_classes, margin):
        is_void = truth.planes[0][region] == VOID
        maps = [
            np.where(is_void, VOID, np.where(mask, k, num_classes)).astype(map_dtype(num_classes)) for mask in (predicted, true)
        ]
        yield maps[0], maps[1], region


def _border_scores(borders: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """F1, precision and recall of an image and where each exists, (6, K + 1), the last column their mean over classes.

    `borders` (4, K) are matched and all predicted, matched and all true border pixels; `pixels` (3, K)
    correct, true and predicted ones.
    """
    found, predicted, met, true = borders
    precision, recall = ratio(found, predicted), ratio(met, true)
    is_judged = (predicted + true > 0) | (pixels[0] != pixels[1]) | (pixels[0] != pixels[2])
    both = np.nan_to_num(precision) * np.nan_to_num(recall)
    f1 = np.where(is_judged, np.nan_to_num(ratio(2 * both, precision + recall)), np.nan)
    rows = []
    for values in (f1, precision, recall):
        values = np.append(values, mean(values))
        rows += [np.nan_to_num(values), ~np.isnan(values)]
    return np.stack(rows).astype(np.float64)


def _band_pixels(pixels: np.ndarray) -> np.ndarray:
    """Correct, true and predicted pixels (9, K) of all, of the inner bands and of the trimap, from those by flags (3, K, 8)."""
    flags = np.arange(pixels.shape[2])
    of_all, own, trimap = np.full(len(flags), True), flags & IN_TRUE > 0, flags & IN_TRIMAP > 0
    predicted = flags & IN_PREDICTED > 0
    wanted = ((of_all,) * 3, (own & predicted, own, predicted), (trimap,) * 3)
    return np.stack([pixels[row] @ mask for masks in wanted for row, mask in enumerate(masks)])


def border(mask: np.ndarray) -> np.ndarray:
    """Pixels of a bool mask (*S) that have a neighbour outside of it across an edge or face, within the image; bool (*S)."""
    return class_borders(np.where(mask, 0, 1).astype(np.int8), 1) == 0


def class_borders(class_map: np.ndarray, num_classes: int) -> np.ndarray:
    """The class of each border pixel of a class map (*S) of integers, in its dtype, -1 elsewhere.

    A border pixel is of a class 0..K-1 and has a neighbour across an edge (2D) or face (3D) of another class or of none, which
    K stands for. VOID is no neighbour.
    """
    result = np.empty_like(class_map)
    shape = (1,) * (AXES - class_map.ndim) + class_map.shape
    _class_borders(class_map.reshape(shape), num_classes, result.reshape(shape))
    return result


def boundary_f(predicted: np.ndarray, true: np.ndarray, tolerance: float) -> tuple[float, float, float]:
    """F1, precision and recall of the predicted border pixels against the true ones, bool (*S) both.

    They match up to `tolerance` pixels, Euclidean. A rate of no pixels is 1, as in the evaluation of DAVIS: nothing found where
    nothing is gives F1 = 1.

    Raises:
        ShapeError: the masks differ in size.
    """
    check_sizes(predicted.shape, true.shape)
    one, two = (np.where(mask, 0, NO_BORDER).astype(np.int8) for mask in (predicted, true))
    found, all_predicted, met, all_true = matches(one, two, 1, tolerance)[:, 0].tolist()
    precision, recall = found / all_predicted if all_predicted else 1.0, met / all_true if all_true else 1.0
    return (2 * precision * recall / (precision + recall) if precision + recall else 0.0), precision, recall


def matches(predicted: np.ndarray, true: np.ndarray, num_classes: int, tolerance: float) -> np.ndarray:
    """Matched and all predicted, matched and all true border pixels of each class, int64 (4, K).

    `predicted` and `true` (*S) hold the class of border pixels and -1 elsewhere. A pixel is matched where one of its class in
    the other map lies within `tolerance` pixels, Euclidean.
    """
    shape = (1,) * (AXES - true.ndim) + true.shape
    reach = min(floor(tolerance), max(shape))
    planes = range(-reach, reach + 1) if true.ndim == AXES else (0,)
    lines = [(z, y) for z in planes for y in range(-reach, reach + 1) if z * z + y * y <= tolerance * tolerance]
    lines.sort(key=lambda line: line[0] ** 2 + line[1] ** 2)  # the nearest first: most pixels are matched at once
    window = np.array([(z, y, isqrt(floor(tolerance**2 - z**2 - y**2))) for z, y in lines])
    places = [np.flatnonzero(borders != NO_BORDER) for borders in (predicted, true)]
    counts = [
        np.bincount(borders.ravel()[place], minlength=num_classes)
        for borders, place in zip((predicted, true), places, strict=True)
    ]
    result = np.zeros((4, num_classes), np.int64)
    result[1], result[3] = counts
    _matches(predicted.reshape(shape), places[0], true.reshape(shape), counts[1], window, result[0])
    _matches(true.reshape(shape), places[1], predicted.reshape(shape), counts[0], window, result[2])
    return result


def band(class_map: np.ndarray, width: int, *, has_edge: bool) -> np.ndarray:
    """Pixels with another class within `width` pixels of chessboard distance, bool (*S), from a class map (*S) of integers.

    VOID is no class. Where `has_edge`, the outside of the image is another class: then the band of a class is its mask without
    the mask eroded `width` times by a square of 3 pixels.
    """
    length = class_map.shape[-1]
    values = np.empty_like(class_map)
    _spread_rows(class_map.reshape(-1, length), width, has_edge, values.reshape(-1, length))
    for axis in reversed(range(class_map.ndim - 1)):
        lengths = class_map.shape[axis], prod(class_map.shape[axis + 1 :])
        result = np.empty_like(values)
        _spread(values.reshape(-1, *lengths), width, has_edge, result.reshape(-1, *lengths))
        values = result
    return values == MIXED


@njit(cache=True, nogil=True)
def _class_borders(class_map, num_classes, result):
    """Mark the border pixels of a map (D, H, W); at the edge of the image a pixel is its own neighbour."""
    D, H, W = class_map.shape
    for z in range(D):
        for y in range(H):
            row, before, behind = class_map[z, y], class_map[max(z - 1, 0), y], class_map[min(z + 1, D - 1), y]
            above, below, marks = class_map[z, max(y - 1, 0)], class_map[z, min(y + 1, H - 1)], result[z, y]
            for x in range(W):
                own = row[x]
                differs = _differs(own, above[x]) | _differs(own, below[x])
                differs |= _differs(own, before[x]) | _differs(own, behind[x])
                marks[x] = own if differs else NO_BORDER
            for x in range(1, W):
                if _differs(row[x], row[x - 1]):
                    marks[x - 1], marks[x] = row[x - 1], row[x]
            for x in range(W):
                marks[x] = marks[x] if 0 <= marks[x] < num_classes else NO_BORDER


@njit(cache=True, nogil=True)
def _differs(one, other):
    """Whether two pixels are of two classes, both known."""
    return (one != other) & (one != VOID) & (other != VOID)


@njit(cache=True, nogil=True)
def _matches(borders, places, others, exists, window, matched):
    """Look around each border pixel (M,) of a map (D, H, W) for one of its class, in lines of a window (L, 3).

    A line of the window is its offset in planes and rows, and half its length. The line where the pixel above found one is
    tried first.
    """
    D, H, W = borders.shape
    found = np.zeros(W, np.int64)
    for place in places:
        z, y, x = place // (H * W), place // W % H, place % W
        k = borders[z, y, x]
        if others[z, y, x] == k or (exists[k] and _is_in_line(others, k, z, y, x, window[found[x]])):
            matched[k] += 1
        elif exists[k]:
            for i in range(len(window)):
                if _is_in_line(others, k, z, y, x, window[i]):
                    matched[k] += 1
                    found[x] = i
                    break


@njit(cache=True, nogil=True)
def _is_in_line(others, k, z, y, x, line):
    """Whether a pixel of class k lies in a line near a place."""
    D, H, W = others.shape
    plane, row, half = z + line[0], y + line[1], line[2]
    if not (0 <= plane < D and 0 <= row < H):
        return False
    part = others[plane, row, max(0, x - half) : min(x + half + 1, W)]
    hit = False
    for i in range(len(part)):  # to the end: many pixels at once are faster than a stop at the first
        hit |= part[i] == k
    return hit


@njit(cache=True, nogil=True)
def _spread_rows(values, width, has_edge, result):
    """The one value, MIXED or VOID (none) of the window of 2 width + 1 pixels around each pixel of rows (A, L), run by run."""
    A, L = values.shape
    first, last = np.empty(L, np.int64), np.empty(L, np.int64)  # of the windows' centres that see two neighbouring values
    for a in range(A):
        row, out = values[a], result[a]
        before, place, changes, start = VOID, -1, 0, 0  # the known value before, and its last pixel
        while start < L:
            value, end = row[start], start + 1
            while end < L and row[end] == value:
                end += 1
            if value != VOID:
                out[start:end] = value
                out[max(start - width, place + 1) : start] = value  # void takes the value of what is near
                if before != VOID and before != value:
                    first[changes], last[changes] = max(start - width, 0), min(place + width, L - 1)
                    changes += 1
                before, place = value, end - 1
            else:
                out[start:end] = VOID
                if before != VOID:
                    out[start : min(start + width, end)] = before
            start = end
        done = 0
        for i in range(changes):
            out[max(first[i], done) : last[i] + 1] = MIXED
            done = max(done, last[i] + 1)
        if has_edge:
            out[:width], out[max(L - width, 0) :] = MIXED, MIXED


@njit(cache=True, nogil=True)
def _spread(values, width, has_edge, result):
    """The same along L of a map (A, L, B), for whole rows B at once."""
    A, L, B = values.shape
    last, seen, other = np.empty(B, values.dtype), np.empty(B, np.int32), np.empty(B, np.int32)
    for a in range(A):
        last[:], seen[:], other[:] = VOID, -width - 1, -width - 1  # latest value, where it was, where another one was
        for end in range(L + width):
            if end < L:
                for b in range(B):
                    value = values[a, end, b]
                    is_new = value != VOID and value != last[b]
                    other[b] = seen[b] if is_new else other[b]
                    last[b] = value if is_new else last[b]
                    seen[b] = end if value != VOID else seen[b]
            start, centre = end - 2 * width, end - width
            if centre >= 0 and has_edge and (start < 0 or end >= L):
                result[a, centre] = MIXED
            elif centre >= 0:
                for b in range(B):
                    one = VOID if seen[b] < start else last[b]
                    result[a, centre, b] = MIXED if other[b] >= start else one


@njit(cache=True, nogil=True)
def _tally(predicted, true, flags, table):
    """Add correct, true and predicted pixels (N,) by class and flags to a table (3, K + 1, 8).

    Run by run, as neighbours are mostly alike in everything. Where runs begin is marked first, many pixels at once.
    """
    is_new = np.empty(4096, np.bool_)  # pixels at a time that stay in the fastest cache
    for begin in range(0, len(true), len(is_new)):
        p, t, f = predicted[begin : begin + len(is_new)], true[begin : begin + len(is_new)], flags[begin : begin + len(is_new)]
        for i in range(1, len(t)):
            is_new[i] = (p[i] != p[i - 1]) | (t[i] != t[i - 1]) | (f[i] != f[i - 1])
        start = 0
        for i in range(1, len(t) + 1):
            if i == len(t) or is_new[i]:
                if t[start] != VOID:
                    table[0, t[start], f[start]] += (i - start) * (p[start] == t[start])
                    table[1, t[start], f[start]] += i - start
                    table[2, p[start], f[start]] += i - start
                start = i
