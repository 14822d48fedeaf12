"""Average precision and recall from matches: one walk per sum over detections sorted by score.

Precision at a recall is the best precision at that recall or any higher one; average precision is its mean over the 101 recalls
0, 0.01, ..., 1, 0 where they are not reached. Only right detections change the recall, so the walk back visits those alone. A
detection of an image that counts w times comes w times; equal scores of one image come in turn, as they would if the image were
there w times over.

Axes: D detections, C detections that are there, K classes, A ranges of area, T thresholds, L limits of detections, R sums.

Source: Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge", doi 10.1007/s11263-009-0275-4, at the recalls of
COCO.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.sparse import coo_array

from segwright.core.errors import UsageError
from segwright.metrics.matching import AREA_NAMES, Matches

RECALLS = np.linspace(0, 1, 101)  # COCO's: some of them are one rounding above k / 100, which decides between two precisions
MOST_CELLS = 2**21  # of a table of scores, 16 MiB: sums are done in blocks of so many
ROUNDING = 1e-9  # far above what dividing two counts loses, far below the distance of two recalls


@dataclass(frozen=True, eq=False)
class Curves:
    """`precision` float64 (R, K, A, T), averaged over recalls, and `recall` float64 (R, K, A, L, T); NaN without an object."""

    precision: np.ndarray
    recall: np.ndarray


def average_precision_of(scores: np.ndarray, is_correct: np.ndarray, objects: int) -> float:
    """Average precision by COCO's rule of detections with scores (D,), right or wrong bool (D,), where so many objects are.

    Of equal scores the first comes first. NaN without objects, 0 without detections.

    Raises:
        UsageError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise UsageError(f"the score of detection {int(np.isnan(scores).argmax())} is NaN, which has no rank; leave it out")
    if not objects:
        return float("nan")
    right = np.asarray(is_correct, bool)[np.argsort(-np.asarray(scores, np.float64), kind="stable")]
    found = np.cumsum(right)[right]
    return float(_area(found, np.flatnonzero(right) + 1, len(found), objects, RECALLS))


def curves(matches: Matches, num_classes: int, num_thresholds: int, max_detections: tuple[int, ...]) -> list[Curves]:
    """The curves of each sum, in blocks of consecutive sums; `max_detections` must rise.

    Blocks are made on all cores at once.
    """
    table = _Table.of(matches, num_classes, max_detections)
    weights = matches.weights if matches.weights is not None else np.ones((1, len(matches.images)), np.int64)
    cells = num_classes * len(AREA_NAMES) * num_thresholds * (1 + len(max_detections))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = max(1, min(MOST_CELLS // cells, -(-len(weights) // cores)))
    blocks = [weights[first : first + size] for first in range(0, len(weights), size)]
    if len(blocks) == 1:
        return [table.curves(blocks[0], num_thresholds, max_detections)]
    with ThreadPoolExecutor(cores) as pool:  # the kernel holds no lock
        return list(pool.map(lambda block: table.curves(block, num_thresholds, max_detections), blocks))


@dataclass(frozen=True, eq=False)
class _Table:
    """All detections by class, then falling score, then image: the runs of one image, class and score from starts[i] to
    starts[i + 1] are (D,) rows of `correct`, `counted`; those of class k are the runs from class_starts[k]."""

    image_ids: np.ndarray  # int64 (runs,)
    starts: np.ndarray  # int64 (runs + 1,)
    class_starts: np.ndarray  # int64 (K + 1,)
    limits: np.ndarray  # int64 (D,): the first of max_detections that lets the detection in
    correct: np.ndarray  # uint64 (A, D)
    counted: np.ndarray  # uint64 (A, D)
    objects: coo_array  # (K * A, N) objects to be found

    @classmethod
    def of(cls, matches: Matches, num_classes: int, max_detections: tuple[int, ...]) -> "_Table":
        images = matches.images
        image_ids = np.repeat(np.arange(len(images)), [len(image.class_ids) for image in images])
        class_ids = np.concatenate([image.class_ids for image in images])
        scores = np.concatenate([image.scores for image in images])
        order = np.lexsort((-scores, class_ids))  # stable: equal scores in the order of images, then ranks
        image_ids, class_ids, scores = image_ids[order], class_ids[order], scores[order]
        differs = (np.diff(class_ids) != 0) | (np.diff(scores) != 0) | (np.diff(image_ids) != 0)
        first = np.concatenate([[0] if len(order) else [], np.flatnonzero(differs) + 1]).astype(np.int64)
        ranks = np.concatenate([image.ranks for image in images])[order]
        return cls(
            image_ids[first],
            np.append(first, len(order)),
            np.searchsorted(class_ids[first], np.arange(num_classes + 1)),
            np.searchsorted(max_detections, ranks, side="right"),
            np.concatenate([image.correct for image in images], axis=1)[:, order],
            np.concatenate([image.counted for image in images], axis=1)[:, order],
            _objects(matches, num_classes),
        )

    def curves(self, weights: np.ndarray, num_thresholds: int, max_detections: tuple[int, ...]) -> Curves:
        """The curves of sums with weights int64 (R, N)."""
        ranges, classes = len(self.correct), len(self.class_starts) - 1
        objects = (self.objects @ weights.T).T.reshape(len(weights), classes, ranges)
        precision = np.full((len(weights), classes, ranges, num_thresholds), np.nan)
        recall = np.full((len(weights), classes, ranges, len(max_detections), num_thresholds), np.nan)
        _curves(
            np.ascontiguousarray(weights),
            self.image_ids,
            self.starts,
            self.class_starts,
            self.limits,
            self.correct,
            self.counted,
            np.ascontiguousarray(objects),
            RECALLS,
            precision,
            recall,
        )
        return Curves(precision, recall)


def _objects(matches: Matches, num_classes: int) -> coo_array:
    """How many objects are to be found, of each class and range of area (K * A), in each image."""
    ranges, images = len(AREA_NAMES), matches.images
    class_ids = np.concatenate([image.true_class_ids for image in images]).astype(np.int64)
    bits = np.concatenate([image.true_ranges for image in images])
    image_ids = np.repeat(np.arange(len(images)), [len(image.true_class_ids) for image in images])
    rows = [class_ids[bits >> a & 1 > 0] * ranges + a for a in range(ranges)]
    columns = [image_ids[bits >> a & 1 > 0] for a in range(ranges)]
    row, column = np.concatenate(rows), np.concatenate(columns)
    return coo_array((np.ones(len(row), np.int64), (row, column)), shape=(num_classes * ranges, len(images))).tocsr()


@njit(cache=True, nogil=True)
def _curves(weights, image_ids, starts, class_starts, limits, correct, counted, objects, recalls, precision, recall):
    """Fill precision (R, K, A, T) and recall (R, K, A, L, T) where there are objects."""
    num_classes, ranges = recall.shape[1:3]
    steps, times = np.empty(0, np.int64), np.empty(0, np.int64)
    for r in range(len(weights)):
        for k in range(num_classes):
            needed = 0
            for run in range(class_starts[k], class_starts[k + 1]):
                length = starts[run + 1] - starts[run]
                needed += 1 if length == 1 else length * weights[r, image_ids[run]]
            if needed > len(steps):
                steps, times = np.empty(needed, np.int64), np.empty(needed, np.int64)
            count = _steps(weights[r], image_ids, starts, class_starts[k], class_starts[k + 1], steps, times)
            for a in range(ranges):
                if objects[r, k, a] > 0:
                    _walk(
                        steps[:count],
                        times[:count],
                        limits,
                        correct[a],
                        counted[a],
                        objects[r, k, a],
                        recalls,
                        precision[r, k, a],
                        recall[r, k, a],
                    )


@njit(cache=True, nogil=True)
def _steps(weights, image_ids, starts, first, end, steps, times):
    """The detections that are there in turn, and how many times each; those of equal score in one image come in rounds."""
    count = 0
    for run in range(first, end):
        weight = weights[image_ids[run]]
        if starts[run + 1] - starts[run] == 1:
            if weight:
                steps[count], times[count] = starts[run], weight
                count += 1
            continue
        for _ in range(weight):
            for d in range(starts[run], starts[run + 1]):
                steps[count], times[count] = d, 1
                count += 1
    return count


@njit(cache=True, nogil=True)
def _walk(steps, times, limits, correct, counted, objects, recalls, precision, recall):
    """Fill precision (T,) and recall (L, T) of one class and range of area."""
    num_limits, thresholds = recall.shape
    found, seen = np.empty((thresholds, len(steps)), np.int64), np.empty((thresholds, len(steps)), np.int64)
    rights = np.zeros(thresholds, np.int64)  # right detections at each threshold
    total, less = 0, np.zeros(thresholds, np.int64)  # counted at all thresholds, and where fewer are
    within = np.zeros((num_limits + 1, thresholds), np.int64)  # right detections by the limit that lets them in
    sums = np.zeros(thresholds, np.int64)
    every = (np.uint64(1) << np.uint64(thresholds)) - np.uint64(1) if thresholds < 64 else ~np.uint64(0)
    for n in range(len(steps)):
        d, weight = steps[n], times[n]
        bits = counted[d]
        if not bits:
            continue
        total += weight
        if bits != every:
            for t in range(thresholds):
                if not bits >> np.uint64(t) & np.uint64(1):
                    less[t] += weight
        hits = correct[d]
        for t in range(thresholds):
            if not hits:
                break
            if hits & np.uint64(1):
                sums[t] += weight
                found[t, rights[t]], seen[t, rights[t]] = sums[t], total - less[t]
                rights[t] += 1
                within[limits[d], t] += weight
            hits >>= np.uint64(1)
    for t in range(thresholds):
        precision[t] = _area(found[t], seen[t], rights[t], objects, recalls)
        sum_ = 0
        for limit in range(num_limits):
            sum_ += within[limit, t]
            recall[limit, t] = sum_ / objects


@njit(cache=True, nogil=True)
def _area(found, seen, count, objects, recalls):
    """Mean of the best precision at or beyond each recall, after right detections with `found` right ones of `seen`."""
    best, area = 0.0, 0.0
    above = _reached(found[count - 1], objects, recalls) if count else 0
    for n in range(count - 1, -1, -1):
        best = max(best, found[n] / seen[n])
        below = _reached(found[n - 1], objects, recalls) if n else 0
        area += best * (above - below)
        above = below
    return area / len(recalls)


@njit(cache=True, nogil=True)
def _reached(found, objects, recalls):
    """How many of the recalls are at or below found / objects."""
    place = found / objects * (len(recalls) - 1)
    k = int(place + ROUNDING)
    return k + (found / objects >= recalls[k])
