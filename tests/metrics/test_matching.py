import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.errors import UsageError
from segwright.metrics.matching import AREA_RANGES, Objects, match

THRESHOLDS = (0.5, 0.7, 1.0)
NO_PAIRS = np.zeros(0, int), np.zeros(0, int), np.zeros(0)


def slow(detections, truth, overlap, most):
    """COCO's rules as nested loops, for one class: what each detection is (right, wrong or neither) by range and threshold."""
    order = sorted(range(len(detections.class_ids)), key=lambda d: -detections.scores[d])[:most]
    fates = {}
    for low, high in AREA_RANGES:
        is_ignored = [bool(truth.is_crowd[g]) or not low <= truth.areas[g] <= high for g in range(len(truth.class_ids))]
        sequence = sorted(range(len(is_ignored)), key=lambda g: is_ignored[g])
        for threshold in THRESHOLDS:
            taken = set()
            for d in order:
                best, found = min(threshold, 1 - 1e-10), None
                for g in sequence:
                    if g in taken and not truth.is_crowd[g]:
                        continue
                    if found is not None and not is_ignored[found] and is_ignored[g]:
                        break
                    if overlap[d, g] >= best:
                        best, found = overlap[d, g], g
                taken.add(found)
                if found is None:
                    fate = "wrong" if low <= detections.areas[d] <= high else "neither"
                else:
                    fate = "neither" if is_ignored[found] else "right"
                fates[low, high, threshold, d] = fate
    return order, fates


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 8), st.integers(0, 6), st.integers(1, 10))
def test_equals_the_slow_twin(seed, count, objects, most):
    generator = np.random.default_rng(seed)
    overlap = generator.choice([0, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0], (count, objects))
    areas = [10, 32**2, 2000, 96**2, 20000]
    detections = Objects(np.zeros(count, int), generator.choice(areas, count), generator.integers(0, 4, count) / 4)
    truth = Objects(np.zeros(objects, int), generator.choice(areas, objects), is_crowd=generator.random(objects) < 0.3)
    row, column = np.nonzero(overlap)
    (found,) = match(detections, truth, (row, column, overlap[row, column]), THRESHOLDS, most).images
    order, fates = slow(detections, truth, overlap, most)
    assert found.scores.tolist() == detections.scores[order].tolist() and found.ranks.tolist() == list(range(len(order)))
    for a, (low, high) in enumerate(AREA_RANGES):
        for t, threshold in enumerate(THRESHOLDS):
            for n, d in enumerate(order):
                bits = (int(found.correct[a, n]) >> t & 1, int(found.counted[a, n]) >> t & 1)
                assert bits == {"right": (1, 1), "wrong": (0, 1), "neither": (0, 0)}[fates[low, high, threshold, d]]


def test_ranks_are_of_one_class():
    scores = np.array([0.1, 0.9, 0.5, 0.5, 0.2])
    (found,) = match(
        Objects(np.array([1, 0, 1, 1, 0]), np.ones(5), scores), Objects(np.zeros(0), np.zeros(0)), NO_PAIRS, (0.5,), 2
    ).images
    assert found.class_ids.tolist() == [0, 0, 1, 1] and found.scores.tolist() == [0.9, 0.2, 0.5, 0.5]
    assert found.ranks.tolist() == [0, 1, 0, 1]


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=5))
def test_images_matched_together_are_as_alone(seed, counts):
    generator = np.random.default_rng(seed)
    parts, starts, true_starts = [], [0], [0]
    for count, objects in counts:
        found = Objects(generator.integers(0, 3, count), 2000.0 * generator.random(count), generator.integers(0, 4, count) / 4)
        true = Objects(generator.integers(0, 3, objects), 2000.0 * generator.random(objects))
        overlap = generator.random((count, objects)) * (found.class_ids[:, None] == true.class_ids)
        row, column = np.nonzero(overlap > 0.4)
        parts.append((found, true, (row, column, overlap[row, column])))
        starts.append(starts[-1] + count)
        true_starts.append(true_starts[-1] + objects)
    joined = [
        Objects(
            *(np.concatenate([getattr(part[side], name) for part in parts]) for name in ("class_ids", "areas")),
            scores=None if side else np.concatenate([part[0].scores for part in parts]),
            starts=np.array(ends),
        )
        for side, ends in ((0, starts), (1, true_starts))
    ]
    places = zip(parts, starts, true_starts, strict=False)
    pairs = [np.concatenate(each) for each in zip(*((p[2][0] + a, p[2][1] + b, p[2][2]) for p, a, b in places), strict=True)]
    together = match(*joined, tuple(pairs), THRESHOLDS, 3).images
    alone = [match(*part, THRESHOLDS, 3).images[0] for part in parts]
    for one, other in zip(together, alone, strict=True):
        for name in vars(one):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_what_is_excused_is_not_wrong():
    detections = Objects(np.zeros(2, int), np.ones(2), np.array([0.9, 0.8]), is_excused=np.array([True, True]))
    truth = Objects(np.zeros(1, int), np.ones(1))
    (found,) = match(detections, truth, (np.array([1]), np.array([0]), np.array([0.9])), (0.5,), 100).images
    assert found.counted[0].tolist() == found.correct[0].tolist() == [0, 1]


def test_an_area_may_lie_in_two_ranges():
    truth = Objects(np.zeros(3, int), np.array([32**2, 96**2, 5]), is_crowd=np.array([False, False, True]))
    (found,) = match(Objects(np.zeros(0, int), np.zeros(0), np.zeros(0)), truth, NO_PAIRS, (0.5,), 100).images
    assert found.true_ranges.tolist() == [0b0111, 0b1101, 0]


def test_refuses_nan():
    with pytest.raises(UsageError, match="the score of detection 0 is NaN"):
        match(Objects(np.zeros(1, int), np.ones(1), np.array([np.nan])), Objects(np.zeros(0), np.zeros(0)), NO_PAIRS, (0.5,), 1)
