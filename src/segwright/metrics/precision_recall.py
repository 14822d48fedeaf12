"""Average precision and recall from matches: one walk over detections sorted by score, for many sums of images at once.

Precision at a recall is the best precision at that recall or any higher one; average precision is its mean over the 101 recalls
0, 0.01, ..., 1, 0 where they are not reached. Only right detections change the recall, so precision is asked for at those,
from the last to the first. A detection of an image that counts w times comes w times; equal scores of one image come in rounds,
as they would if the image were there w times over.

Axes: D detections, K classes, A ranges of area, T thresholds, L limits of detections, N images, R sums, B sums done at once.

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
from segwright.metrics.matching import Matches
from segwright.metrics.sums import ratio

STEP = 0.01  # between COCO's recalls, which are multiples of it in float64: some lie one rounding above k / 100
RECALLS = STEP * np.arange(101)
ROUNDING = 1e-9  # far above what dividing two counts loses, far below the distance of two recalls
LANES = 64  # sums done at once: a few vectors of each number, and the weights of 1000 images still fit a cache
VECTOR = 8  # numbers that a processor adds at once
FOUND, LESS, BEST, AREA, REACHED = range(0, 5 * LANES, LANES)  # places of the numbers of one threshold in one array


@dataclass(frozen=True, eq=False)
class Curves:
    """`precision` float64 (K, A, T, R), averaged over recalls; `recall` float64 (K, A, L, R), averaged over thresholds.

    NaN where there is no object.
    """

    precision: np.ndarray
    recall: np.ndarray


def average_precision_of(scores: np.ndarray, is_correct: np.ndarray, objects: int) -> float:
    """Average precision by COCO's rule of detections with scores (D,), right or wrong bool (D,), where so many objects are.

    Of equal scores the first comes first. NaN without objects, 0 without detections.

    Raises:
        UsageError: a score is NaN.
    """
    scores = np.asarray(scores, np.float64)
    if np.isnan(scores).any():
        raise UsageError(f"the score of detection {int(np.isnan(scores).argmax())} is NaN, which has no rank; leave it out")
    if not objects:
        return float("nan")
    right = np.asarray(is_correct, bool)[np.argsort(-scores, kind="stable")]
    found = np.cumsum(right)[right]
    precision = np.maximum.accumulate((found / (np.flatnonzero(right) + 1))[::-1])[::-1]
    place = np.searchsorted(found / objects, RECALLS)
    return float(precision[place[place < len(found)]].sum() / len(RECALLS))


def curves(matches: Matches, num_classes: int, num_thresholds: int, max_detections: tuple[int, ...]) -> list[Curves]:
    """The curves of all sums, in blocks of consecutive ones; `max_detections` must rise. All cores are used."""
    table = _Table.of(matches, num_classes, max_detections)
    weights = matches.weights if matches.weights is not None else np.ones((1, len(matches.images)), np.int64)
    blocks = [weights[first : first + LANES] for first in range(0, len(weights), LANES)]
    if len(blocks) == 1:
        return [table.curves(blocks[0], num_thresholds, len(max_detections))]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:  # the kernel holds no lock
        return list(pool.map(lambda block: table.curves(block, num_thresholds, len(max_detections)), blocks))


@dataclass(frozen=True, eq=False)
class _Table:
    """All detections by class, then falling score, then image. Run i are those of one image, class and score, from starts[i] to
    starts[i + 1]; the runs of class k begin at class_starts[k]."""

    image_ids: np.ndarray  # int64 (runs,)
    starts: np.ndarray  # int64 (runs + 1,)
    class_starts: np.ndarray  # int64 (K + 1,)
    correct: np.ndarray  # uint64 (A, D), bits of thresholds
    counted: np.ndarray  # uint64 (A, D), bits of thresholds
    objects: coo_array  # (K * A, N): objects to be found
    hits: coo_array  # (K * A * L, N): right detections within a limit and beyond the one before, of all thresholds together

    @classmethod
    def of(cls, matches: Matches, num_classes: int, max_detections: tuple[int, ...]) -> "_Table":
        images = matches.images
        image_ids = np.repeat(np.arange(len(images)), [len(image.class_ids) for image in images])
        class_ids = np.concatenate([image.class_ids for image in images])
        scores = np.concatenate([image.scores for image in images])
        order = np.lexsort((-scores, class_ids))  # stable: equal scores in the order of images, then ranks
        image_ids, class_ids, scores = image_ids[order], class_ids[order], scores[order]
        differs = (np.diff(class_ids) != 0) | (np.diff(scores) != 0) | (np.diff(image_ids) != 0)
        first = np.concatenate([np.zeros(min(1, len(order)), np.int64), np.flatnonzero(differs) + 1])
        ranks = np.concatenate([image.ranks for image in images])[order]
        correct = np.concatenate([image.correct for image in images], axis=1)[:, order]
        true_class_ids = np.concatenate([image.true_class_ids for image in images])
        true_image_ids = np.repeat(np.arange(len(images)), [len(image.true_class_ids) for image in images])
        true_ranges = np.concatenate([image.true_ranges for image in images])
        is_wanted = true_ranges >> np.arange(len(correct), dtype=np.uint8)[:, None] & 1  # (A, G)
        within = np.searchsorted(max_detections, ranks, side="right")  # the first limit that lets a detection in
        return cls(
            image_ids[first],
            np.append(first, len(order)),
            np.searchsorted(class_ids[first], np.arange(num_classes + 1)),
            correct,
            np.concatenate([image.counted for image in images], axis=1)[:, order],
            _tallied(is_wanted, true_class_ids, true_image_ids, (num_classes, 1, len(images))),
            _tallied(np.bitwise_count(correct), class_ids, image_ids, (num_classes, len(max_detections), len(images)), within),
        )

    def curves(self, weights: np.ndarray, num_thresholds: int, num_limits: int) -> Curves:
        """The curves of sums with weights int64 (B, N)."""
        sums, images = weights.shape
        classes, ranges = len(self.class_starts) - 1, len(self.correct)
        width = -(-sums // VECTOR) * VECTOR
        rows = np.zeros((images + 1, width))  # the last is room for one round of equal scores
        rows[:images, :sums] = weights.T
        objects = (self.objects @ weights.T).reshape(classes, ranges, sums)
        hits = (self.hits @ weights.T).reshape(classes, ranges, num_limits, sums).cumsum(axis=2)
        precision = np.full((classes, ranges, num_thresholds, sums), np.nan)
        _curves(rows, (self.image_ids, self.starts, self.class_starts), self.correct, self.counted, objects, precision)
        return Curves(precision, ratio(hits / num_thresholds, objects[:, :, None]))


def _tallied(
    counts: np.ndarray, class_ids: np.ndarray, image_ids: np.ndarray, shape: tuple[int, int, int], part: np.ndarray | int = 0
) -> coo_array:
    """Counts (A, D) added up by class, range, part and image: (K * A * L, N), for a shape (K, L, N)."""
    classes, parts, images = shape
    a, d = np.nonzero(counts)
    rows = (class_ids[d].astype(np.int64) * len(counts) + a) * parts + np.broadcast_to(part, class_ids.shape)[d]
    return coo_array(
        (counts[a, d].astype(np.int64), (rows, image_ids[d])), shape=(classes * len(counts) * parts, images)
    ).tocsr()


@njit(cache=True, nogil=True)
def _curves(rows, runs, correct, counted, objects, precision):
    """Fill precision (K, A, T, B) where there are objects (K, A, B), from weights `rows` (N + 1, B), at most LANES."""
    image_ids, starts, class_starts = runs
    classes, ranges, thresholds, sums = precision.shape
    every = ~np.uint64(0) >> np.uint64(64 - thresholds)  # all bits
    numbers, seen, wanted = np.zeros((thresholds, 5 * LANES)), np.zeros(LANES), np.zeros(LANES)
    for k in range(classes):
        first, end = class_starts[k], class_starts[k + 1]
        for a in range(ranges):
            wanted[:sums] = objects[k, a]
            if wanted.max() == 0:
                continue
            precision[k, a] = np.where(objects[k, a] > 0, 0.0, np.nan)
            rights = np.uint64(0)  # thresholds at which anything is right
            for d in range(starts[first], starts[end]):
                rights |= correct[a, d]
            if not rights:
                continue
            numbers[:] = 0
            seen[:] = 0
            for run in range(first, end):
                for d in range(starts[run], starts[run + 1]):
                    _see(numbers, seen, rows[image_ids[run]], counted[a, d], every, 1.0)
                    for t in range(thresholds):
                        if correct[a, d] >> np.uint64(t) & np.uint64(1):
                            _add(numbers[t, FOUND : FOUND + LANES], rows[image_ids[run]], 1.0)
            for t in range(thresholds):
                for lane in range(sums):
                    numbers[t, REACHED + lane] = _reached(numbers[t, FOUND + lane], wanted[lane])
            for run in range(end - 1, first - 1, -1):
                _back(
                    numbers, seen, wanted, rows, image_ids[run], (starts[run], starts[run + 1]), correct[a], counted[a], every
                )
            for t in range(thresholds):
                for lane in range(sums):
                    if wanted[lane] > 0:
                        precision[k, a, t, lane] = numbers[t, AREA + lane] / 101


@njit(cache=True, nogil=True)
def _back(numbers, seen, wanted, rows, image, span, correct, counted, every):
    """Go back over the detections of one image and score: in rounds, if there are several."""
    first, end = span
    if end - first == 1:
        _undo(numbers, seen, wanted, rows[image], correct[first], counted[first], every)
        return
    room = rows[len(rows) - 1]
    for turn in range(int(rows[image].max()) - 1, -1, -1):
        for lane in range(len(room)):
            room[lane] = 1.0 if rows[image, lane] > turn else 0.0
        for d in range(end - 1, first - 1, -1):
            _undo(numbers, seen, wanted, room, correct[d], counted[d], every)


@njit(cache=True, nogil=True)
def _undo(numbers, seen, wanted, weights, hits, counts, every):
    """Go back over one detection, right at the thresholds of `hits` and counted at those of `counts`."""
    t = 0
    while hits:
        if hits & np.uint64(1):
            _leave(numbers[t], seen, wanted, weights)
        hits >>= np.uint64(1)
        t += 1
    _see(numbers, seen, weights, counts, every, -1.0)


@njit(cache=True, nogil=True)
def _see(numbers, seen, weights, counts, every, sign):
    """Add a detection to those seen, at all thresholds, or take it from those where it is not."""
    if counts:
        _add(seen, weights, sign)
        missing, t = ~counts & every, 0
        while missing:
            if missing & np.uint64(1):
                _add(numbers[t, LESS : LESS + LANES], weights, sign)
            missing >>= np.uint64(1)
            t += 1


@njit(cache=True, nogil=True)
def _add(numbers, weights, sign):
    for lane in range(len(weights)):
        numbers[lane] += sign * weights[lane]


@njit(cache=True, nogil=True)
def _reached(found, objects):
    """How many of the recalls are at or below found / objects; none without a right detection."""
    share = found / max(objects, 1.0)
    k = np.floor(share * 100 + ROUNDING)
    return k + (1.0 if share >= k * STEP else 0.0) if found > 0 else 0.0


@njit(cache=True, nogil=True)
def _leave(numbers, seen, wanted, weights):
    """Go back over a right detection: the best precision up to here holds for the recalls that it reached."""
    for lane in range(len(weights)):
        found, weight = numbers[FOUND + lane], weights[lane]
        best = max(numbers[BEST + lane], found / max(seen[lane] - numbers[LESS + lane], 1.0))
        below = _reached(found - weight, wanted[lane])
        numbers[AREA + lane] += best * (numbers[REACHED + lane] - below)
        numbers[BEST + lane], numbers[REACHED + lane] = best, below
        numbers[FOUND + lane] = found - weight
