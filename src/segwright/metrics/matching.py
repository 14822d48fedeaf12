"""Which detections find which objects: COCO's greedy matching, and the state of average precision that it fills.

Detections of one image and class are taken from the highest score down, equal scores in the order given. At each threshold,
one takes the object of its class that it overlaps most among those not yet taken (of equals the later one), if their overlap
reaches the threshold. Objects that do not count, because they are crowds or their area lies outside of the range, are looked
at only where no other fits; what matches them is neither right nor wrong, and neither is what matches nothing and lies outside
itself. A crowd can be matched any number of times.

Axes: D detections, G true objects, M pairs of both that overlap, A ranges of area, T thresholds (bits of a uint64), N images,
R weighted sums at once.

Source: Lin et al. 2014, "Microsoft COCO", doi 10.1007/978-3-319-10602-1_48, and the rules of its evaluation, cocodataset.org.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
from numba import njit

from segwright.core.errors import SettingError, UsageError

AREA_NAMES = ("all", "small", "medium", "large")
AREA_RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # pixels, both ends included: COCO's own
MAX_THRESHOLDS = 64  # bits of an integer
NEARLY_ONE = 1 - 1e-10  # COCO's: a threshold of 1 forgives rounding


@dataclass(frozen=True, eq=False)
class ImageMatches:
    """What the detections of one image found, sorted by class and then by rank.

    `class_ids` int32 (D,), `scores` float64 (D,), `ranks` int32 (D,), from 0 in the image and class. The bits of `correct`
    uint64 (A, D) say at which thresholds a detection is right, those of `counted` uint64 (A, D) where it is right or wrong.
    `true_class_ids` int32 (G,) and `true_ranges` uint8 (G,), whose bits are the ranges of area where an object is to be found.
    """

    class_ids: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    correct: np.ndarray
    counted: np.ndarray
    true_class_ids: np.ndarray
    true_ranges: np.ndarray


@dataclass(frozen=True, eq=False)
class Matches:
    """The state of average precision: the matches of N images, in an order that decides between equal scores.

    `weights` int64 (R, N) say how many times each image counts in each of R sums; None is one sum of each image once.
    """

    images: tuple[ImageMatches, ...]
    weights: np.ndarray | None = None

    def __add__(self, other: Self) -> Self:
        if self.weights is None and other.weights is None:
            return type(self)(self.images + other.images)
        sums = len(self.weights if self.weights is not None else other.weights)  # type: ignore[arg-type]
        both = [
            state.weights if state.weights is not None else np.ones((sums, len(state.images)), np.int64)
            for state in (self, other)
        ]
        return type(self)(self.images + other.images, np.concatenate(both, axis=1))

    @classmethod
    def weighted(cls, states: Sequence[Self], weights: np.ndarray) -> Self:
        """R sums of the states of N images, image n counted weights[r, n] times; weights are whole numbers (R, N)."""
        counts = [len(state.images) for state in states]
        images = tuple(image for state in states for image in state.images)
        return cls(images, np.repeat(np.asarray(weights, np.int64), counts, axis=1))


@dataclass(frozen=True, eq=False)
class Objects:
    """Detections or true objects of one image: `class_ids` int (D,), `areas` float64 (D,) and

    `scores` float64 (D,) of detections; `is_crowd` bool (D,) of true objects. `is_excused` bool (D,) marks detections that are
    not wrong when they match nothing, as their class was not drawn everywhere. Of N images, one after another, `starts` int64
    (N + 1,) says where each begins and the last ends.
    """

    class_ids: np.ndarray
    areas: np.ndarray
    scores: np.ndarray | None = None
    is_crowd: np.ndarray | None = None
    is_excused: np.ndarray | None = None
    starts: np.ndarray | None = None

    @property
    def image_ids(self) -> np.ndarray:
        """The image of each, int64 (D,), counted from 0."""
        if self.starts is None:
            return np.zeros(len(self.class_ids), np.int64)
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def image_class_ids(detections: Objects, truth: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Numbers int64 (D,) and (G,) that are equal where image and class are, rising with the image, then with the class."""
    class_ids = [np.asarray(each.class_ids, np.int64) for each in (detections, truth)]
    step = 1 + max(int(ids.max(initial=0)) for ids in class_ids)
    one, other = (each.image_ids * step + ids for each, ids in zip((detections, truth), class_ids, strict=True))
    return one, other


def check_rules(iou_thresholds: Sequence[float], max_detections: Sequence[int]) -> None:
    """Refuse thresholds of IoU, or limits of detections, that cannot be used.

    Raises:
        SettingError: there are no thresholds or more than 64, or one is not above 0 and at most 1; or the limits do not rise.
    """
    if not 1 <= len(iou_thresholds) <= MAX_THRESHOLDS:
        raise SettingError(
            f"{len(iou_thresholds)} IoU thresholds were given; between 1 and {MAX_THRESHOLDS} are possible, COCO has 10"
        )
    wrong = [threshold for threshold in iou_thresholds if not 0 < threshold <= 1]
    if wrong:
        raise SettingError(f"an IoU threshold is {wrong[0]}; give shares above 0 and up to 1, such as 0.5")
    rises = all(first < second for first, second in zip(max_detections, max_detections[1:], strict=False))
    if not max_detections or max_detections[0] < 1 or not rises:
        raise SettingError(
            f"max_detections are {tuple(max_detections)}; give rising whole numbers from 1 on, COCO has 1, 10, 100"
        )


def _ranked(groups: np.ndarray, scores: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The detections by group and then falling score, at most so many of a group, and their ranks, int64 each.

    Raises:
        UsageError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise UsageError(
            f"the score of detection {int(np.isnan(scores).argmax())} is NaN, which has no rank; leave it out, or look for a "
            "division by zero or an overflow in the model"
        )
    order = np.lexsort((-scores, groups))  # stable, as COCO's
    groups = groups[order]
    ranks = np.arange(len(order)) - np.searchsorted(groups, groups)
    is_kept = ranks < most
    return order[is_kept], ranks[is_kept]


def match(
    detections: Objects,
    truth: Objects,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    iou_thresholds: Sequence[float],
    most: int,
) -> Matches:
    """The matches of each image. `pairs` are detection, object and overlap (M,) each, of one image and class, in rising order.

    The overlap is IoU, for a crowd the share of the detection that lies in it. Pairs not given do not overlap.

    Raises:
        UsageError: a score is NaN.
    """
    class_ids = np.asarray(detections.class_ids, np.int32)
    scores = np.asarray(detections.scores, np.float64)
    order, ranks = _ranked(image_class_ids(detections, truth)[0], scores, most)
    detection, object_, overlap = pairs
    starts = np.searchsorted(detection, np.arange(len(class_ids) + 1))
    is_crowd = np.zeros(len(truth.class_ids), bool) if truth.is_crowd is None else truth.is_crowd
    is_excused = np.zeros(len(class_ids), bool) if detections.is_excused is None else detections.is_excused
    limits = np.minimum(np.asarray(iou_thresholds, np.float64), NEARLY_ONE)
    areas = np.asarray(detections.areas, np.float64)
    outside = (areas < AREA_RANGES[:, :1]) | (areas > AREA_RANGES[:, 1:]) | is_excused  # (A, D)
    true_areas = np.asarray(truth.areas, np.float64)
    counts = (true_areas >= AREA_RANGES[:, :1]) & (true_areas <= AREA_RANGES[:, 1:]) & ~is_crowd  # (A, G)
    correct, counted = _match(order, starts, object_, overlap, outside, counts, is_crowd, limits)
    ranges = (counts << np.arange(len(AREA_RANGES))[:, None]).sum(axis=0).astype(np.uint8)
    found = class_ids[order], scores[order], ranks.astype(np.int32), correct, counted
    true = np.asarray(truth.class_ids, np.int32), ranges
    if detections.starts is None or truth.starts is None:
        return Matches((ImageMatches(*found, *true),))
    starts = np.searchsorted(detections.image_ids[order], np.arange(len(detections.starts)))
    spans = [[slice(*ends) for ends in pairwise(each.tolist())] for each in (starts, truth.starts)]
    return Matches(
        tuple(
            ImageMatches(*(each[..., own] for each in found), *(each[theirs] for each in true))
            for own, theirs in zip(*spans, strict=True)
        )
    )


@njit(cache=True, nogil=True)
def _match(order, starts, truth, overlap, outside, counts, is_crowd, limits):
    """Bits of the thresholds at which a detection is right, and right or wrong, (A, D) each, in the given order."""
    ranges, detections = len(counts), len(order)
    correct = np.zeros((ranges, detections), np.uint64)
    counted = np.zeros((ranges, detections), np.uint64)
    taken = np.zeros((ranges, len(is_crowd)), np.uint64)
    one = np.uint64(1)
    for d in range(detections):
        first, end = starts[order[d]], starts[order[d] + 1]
        for a in range(ranges):
            for t in range(len(limits)):
                bit = one << np.uint64(t)
                best, found = limits[t], -1
                for is_looked_for in (True, False):  # objects that do not count come last
                    for m in range(first, end):
                        g = truth[m]
                        is_free = is_crowd[g] or not taken[a, g] & bit
                        if counts[a, g] == is_looked_for and is_free and overlap[m] >= best:
                            best, found = overlap[m], g
                    if found >= 0:
                        break
                if found >= 0:
                    taken[a, found] |= bit
                    if counts[a, found]:
                        correct[a, d] |= bit
                        counted[a, d] |= bit
                elif not outside[a, order[d]]:
                    counted[a, d] |= bit
    return correct, counted
