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
from scipy.sparse import coo_array, csr_array

from segwright.core.errors import UsageError
from segwright.metrics.accumulators import ratio
from segwright.metrics.matching import Matches

STEP = 0.01  # between COCO's recalls, which are multiples of it in float64: some lie one rounding above k / 100
RECALLS = STEP * np.arange(101)
ROUNDING = 1e-9  # far above what dividing two counts loses, far below the distance of two recalls
LANES = 256  # sums done at once, so that what is done per detection alone weighs little; the numbers of a walk fill 100 KiB
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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = min(LANES, _whole_vectors(-(-len(weights) // cores)))
    blocks = [weights[first : first + size] for first in range(0, len(weights), size)]
    if len(blocks) == 1:
        return [table.curves(blocks[0], num_thresholds, len(max_detections))]
    with ThreadPoolExecutor(cores) as pool:  # the kernel holds no lock
        return list(pool.map(lambda block: table.curves(block, num_thresholds, len(max_detections)), blocks))


def _whole_vectors(count: int) -> int:
    """A count, raised to full vectors."""
    return -(-count // VECTOR) * VECTOR


@dataclass(frozen=True, eq=False)
class _Table:
    """All detections by class, then falling score, then image. Run i are those of one image, class and score, from starts[i] to
    starts[i + 1]; the runs of class k begin at class_starts[k]."""

    image_ids: np.ndarray  # int64 (runs,)
    starts: np.ndarray  # int64 (runs + 1,)
    class_starts: np.ndarray  # int64 (K + 1,)
    correct: np.ndarray  # uint64 (A, D), bits of thresholds
    counted: np.ndarray  # uint64 (A, D), bits of thresholds
    objects: csr_array  # (K * A, N): objects to be found
    hits: csr_array  # (K * A * L, N): right detections within a limit and beyond the one before, of all thresholds together

    @classmethod
    def of(cls, matches: Matches, num_classes: int, max_detections: tuple[int, ...]) -> "_Table":
        images = matches.images
        image_ids = np.repeat(np.arange(len(images)), [len(image.class_ids) for image in images])
        class_ids = np.concatenate([image.class_ids for image in images])
        scores = np.concatenate([image.scores for image in images])
        order = np.lexsort((-scores, class_ids))  # stable: equal scores in the order of images, then ranks
        image_ids, class_ids, scores = image_ids[order], class_ids[order], scores[order]
        differs = (np.diff(class_ids) != 0) | (scores[1:] != scores[:-1]) | (np.diff(image_ids) != 0)
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
        columns = np.ascontiguousarray(weights.T, np.float64)
        objects = (self.objects @ columns).reshape(classes, ranges, sums)
        hits = (self.hits @ columns).reshape(classes, ranges, num_limits, sums).cumsum(axis=2)
        recall = ratio(hits / num_thresholds, objects[:, :, None])
        precision = np.full((classes, ranges, num_thresholds, sums), np.nan)
        if sums == 1 and (weights == 1).all():
            ends = self.starts[self.class_starts]
            _curves_of_all(ends, self.correct, self.counted, objects[..., 0], precision[..., 0])
            return Curves(precision, recall)
        rows = np.zeros((images + 1, _whole_vectors(sums)), np.float32)  # the last is room for one round of equal scores
        rows[:images, :sums] = columns
        _curves(rows, (self.image_ids, self.starts, self.class_starts), self.correct, self.counted, objects, precision)
        return Curves(precision, recall)


def _tallied(
    counts: np.ndarray, class_ids: np.ndarray, image_ids: np.ndarray, shape: tuple[int, int, int], part: np.ndarray | int = 0
) -> csr_array:
    """Counts (A, D) added up by class, range, part and image: (K * A * L, N), for a shape (K, L, N)."""
    classes, parts, images = shape
    a, d = np.nonzero(counts)
    rows = (class_ids[d].astype(np.int64) * len(counts) + a) * parts + np.broadcast_to(part, class_ids.shape)[d]
    return coo_array(
        (counts[a, d].astype(np.float64), (rows, image_ids[d])), shape=(classes * len(counts) * parts, images)
    ).tocsr()


@njit(cache=True, nogil=True)
def _curves_of_all(ends, correct, counted, objects, precision):
    """Fill precision (K, A, T) where there are objects (K, A): `_curves` of one sum of each image once, without its lanes.

    The detections of class k are ends[k] to ends[k + 1] - 1.
    """
    classes, ranges, thresholds = precision.shape
    found, seen, best, areas, reached = np.zeros((5, thresholds))
    for k in range(classes):
        for a in range(ranges):
            if not objects[k, a]:
                continue
            found[:], seen[:], best[:], areas[:] = 0, 0, 0, 0
            for d in range(ends[k], ends[k + 1]):
                for t in range(thresholds if counted[a, d] else 0):
                    found[t] += correct[a, d] >> np.uint64(t) & np.uint64(1)
                    seen[t] += counted[a, d] >> np.uint64(t) & np.uint64(1)
            for t in range(thresholds):
                reached[t] = _reached(found[t], objects[k, a])
            for d in range(ends[k + 1] - 1, ends[k] - 1, -1):
                for t in range(thresholds if counted[a, d] else 0):
                    if correct[a, d] >> np.uint64(t) & np.uint64(1):
                        best[t] = max(best[t], found[t] / seen[t])
                        below = _reached(found[t] - 1, objects[k, a])
                        areas[t] += best[t] * (reached[t] - below)
                        found[t], reached[t] = found[t] - 1, below
                    seen[t] -= counted[a, d] >> np.uint64(t) & np.uint64(1)
            precision[k, a] = areas / 101


@njit(cache=True, nogil=True)
def _curves(rows, runs, correct, counted, objects, precision):
    """Fill precision (K, A, T, B) where there are objects (K, A, B), from weights `rows` (N + 1, B), at most LANES."""
    image_ids, starts, class_starts = runs
    classes, ranges, thresholds, sums = precision.shape
    every = ~np.uint64(0) >> np.uint64(64 - thresholds)  # all bits
    numbers, seen, wanted = np.zeros((thresholds, 5 * LANES)), np.zeros(LANES), np.zeros(LANES)
    for k in range(classes):
        span = class_starts[k], class_starts[k + 1]
        for a in range(ranges):
            most = 0.0
            for lane in range(sums):
                wanted[lane] = objects[k, a, lane]
                most = max(most, wanted[lane])
            if most and _start(numbers, seen, wanted, rows, (image_ids, starts), span, correct[a], counted[a], every):
                for run in range(span[1] - 1, span[0] - 1, -1):
                    ends = starts[run], starts[run + 1]
                    _back(numbers, seen, wanted, rows, image_ids[run], ends, correct[a], counted[a], every)
            for t in range(thresholds if most else 0):
                own, areas = precision[k, a, t], numbers[t, AREA : AREA + LANES]
                for lane in range(sums):
                    own[lane] = areas[lane] / 101 if wanted[lane] else np.nan


@njit(cache=True, nogil=True)
def _start(numbers, seen, wanted, rows, runs, span, correct, counted, every):
    """Set the numbers to those after the last detection of a class; whether anything is right."""
    image_ids, starts = runs
    is_right = False
    for place in (FOUND, LESS, BEST, AREA, REACHED):
        numbers[:, place : place + rows.shape[1]] = 0
    seen[: rows.shape[1]] = 0
    for run in range(span[0], span[1]):
        for d in range(starts[run], starts[run + 1]):
            if counted[d]:
                _see(numbers, seen, rows, image_ids[run], counted[d], every, 1.0)
                hits, t = correct[d], 0
                is_right |= hits > 0
                while hits:
                    if hits & np.uint64(1):
                        _add(numbers, t, FOUND, rows, image_ids[run], 1.0)
                    hits >>= np.uint64(1)
                    t += 1
    for t in range(len(numbers) if is_right else 0):
        for lane in range(rows.shape[1]):
            numbers[t, REACHED + lane] = _reached(numbers[t, FOUND + lane], wanted[lane])
    return is_right


@njit(cache=True, nogil=True)
def _back(numbers, seen, wanted, rows, image, ends, correct, counted, every):
    """Go back over the detections of one image and score: in rounds, if there are several."""
    first, end = ends
    if end - first == 1:
        _undo(numbers, seen, wanted, rows, image, correct[first], counted[first], every)
        return
    room = len(rows) - 1
    for turn in range(int(rows[image].max()) - 1, -1, -1):
        for lane in range(rows.shape[1]):
            rows[room, lane] = 1.0 if rows[image, lane] > turn else 0.0
        for d in range(end - 1, first - 1, -1):
            _undo(numbers, seen, wanted, rows, room, correct[d], counted[d], every)


@njit(cache=True, nogil=True)
def _undo(numbers, seen, wanted, rows, row, hits, counts, every):
    """Go back over one detection, right at the thresholds of `hits` and counted at those of `counts`."""
    t = 0
    while hits:
        if hits & np.uint64(1):
            _leave(numbers, t, seen, wanted, rows, row)
        hits >>= np.uint64(1)
        t += 1
    if counts:
        _see(numbers, seen, rows, row, counts, every, -1.0)


@njit(cache=True, nogil=True)
def _see(numbers, seen, rows, row, counts, every, sign):
    """Add a detection to those seen, and to those that a threshold does not count, or take it from both."""
    for lane in range(rows.shape[1]):
        seen[lane] += sign * rows[row, lane]
    missing, t = ~counts & every, 0
    while missing:
        if missing & np.uint64(1):
            _add(numbers, t, LESS, rows, row, sign)
        missing >>= np.uint64(1)
        t += 1


@njit(cache=True, nogil=True)
def _add(numbers, t, place, rows, row, sign):
    own = numbers[t, place : place + LANES]
    for lane in range(rows.shape[1]):
        own[lane] += sign * rows[row, lane]


@njit(cache=True, nogil=True)
def _reached(found, objects):
    """How many of the recalls are at or below found / objects; none without a right detection."""
    share = found / max(objects, 1.0)
    k = np.floor(share * 100 + ROUNDING)
    return k + (1.0 if share >= k * STEP else 0.0) if found > 0 else 0.0


@njit(cache=True, nogil=True)
def _leave(numbers, t, seen, wanted, rows, row):
    """Go back over a right detection: the best precision up to here holds for the recalls that it reached."""
    own = numbers[t]
    for lane in range(rows.shape[1]):
        found, weight = own[FOUND + lane], rows[row, lane]
        best = max(own[BEST + lane], found / max(seen[lane] - own[LESS + lane], 1.0))
        below = _reached(found - weight, wanted[lane])
        own[AREA + lane] += best * (own[REACHED + lane] - below)
        own[BEST + lane], own[REACHED + lane] = best, below
        own[FOUND + lane] = found - weight
