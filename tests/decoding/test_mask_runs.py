"""Masks as runs of pixels. Axes: N objects, P planes, H, W sides of the image."""

import numpy as np
import pytest

from segwright.core import Segmentation
from segwright.decoding.mask_runs import MaskRuns, mask_overlaps, surest_masks, union_of_runs


def runs_of(mask: np.ndarray) -> np.ndarray:
    """The runs int32 (r, 3) of a bool mask (H, W)."""
    found = []
    for y, line in enumerate(mask):
        steps = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
        found += [(y, first, stop) for first, stop in steps.reshape(-1, 2)]
    return np.array(found, np.int32).reshape(-1, 3)


def masks_of(runs: MaskRuns, shape: tuple[int, int]) -> np.ndarray:
    """Masks bool (N, H, W)."""
    masks = np.zeros((len(runs), *shape), bool)
    for number in range(len(runs)):
        for y, first, stop in runs[number]:
            masks[number, y, first:stop] = True
    return masks


def random_masks(seed: int, count: int = 20, shape: tuple[int, int] = (17, 23)) -> np.ndarray:
    """Rectangles with holes, bool (N, H, W), none empty."""
    random = np.random.default_rng(seed)
    masks = np.zeros((count, *shape), bool)
    for mask in masks:
        (top, left), (height, width) = random.integers(0, 12, 2), random.integers(1, 10, 2)
        mask[top : top + height, left : left + width] = random.random(mask[top : top + height, left : left + width].shape) > 0.3
        mask[top, left] = True
    return masks


# By hand


def test_runs_areas_and_extents():
    masks = MaskRuns.of([np.array([[1, 2, 4], [2, 0, 1], [2, 3, 9]], np.int32), np.array([[0, 5, 6]], np.int32)])
    assert len(masks) == 2 and masks[1].tolist() == [[0, 5, 6]]
    assert masks.areas().tolist() == [9, 1]
    assert masks.extents().tolist() == [[1, 0, 3, 9], [0, 5, 1, 6]]


def test_nothing():
    for nothing in (MaskRuns.of([]), MaskRuns.joined([]), MaskRuns.of([]).taken(np.array([], int))):
        assert len(nothing) == 0 and nothing.areas().tolist() == [] and nothing.extents().shape == (0, 4)
        assert nothing.planes((3, 4)).tolist() == np.zeros((1, 3, 4)).tolist()


def test_an_object_goes_into_the_first_plane_where_it_is_free():
    masks = MaskRuns.of([np.array([part], np.int32) for part in ([0, 0, 2], [0, 1, 3], [0, 2, 4], [0, 0, 4])])
    assert masks.planes((1, 4)).tolist() == [[[1, 1, 3, 3]], [[0, 2, 2, 0]], [[4, 4, 4, 4]]]


def test_a_union():
    parts = [np.array([[0, 2, 4], [1, 0, 2]], np.int32), np.array([[0, 4, 5], [0, 8, 9], [3, 0, 1]], np.int32)]
    assert union_of_runs(parts).tolist() == [[0, 2, 5], [0, 8, 9], [1, 0, 2], [3, 0, 1]]
    assert union_of_runs(parts).dtype == np.int32


def test_what_two_objects_have_of_a_window():
    masks = MaskRuns.of([np.array([[0, 0, 4], [1, 0, 4]], np.int32), np.array([[1, 2, 8], [5, 0, 2]], np.int32)])
    pairs = mask_overlaps(masks, masks.extents(), range(1), range(1, 2), (0, 1, 6, 6))
    assert pairs.tolist() == [[0, 1, 2, 6, 5]]
    assert mask_overlaps(masks, masks.extents(), range(1), range(1, 2), (2, 0, 6, 6)).tolist() == []


def test_wider_extents_find_pairs_that_are_close():
    masks = MaskRuns.of([np.array([[0, 0, 2]], np.int32), np.array([[0, 3, 4]], np.int32)])
    assert len(mask_overlaps(masks, masks.extents(), range(1), range(1, 2), (0, 0, 9, 9))) == 0
    wider = masks.extents() + [-1, -1, 1, 1]
    assert mask_overlaps(masks, wider, range(1), range(1, 2), (0, 0, 9, 9)).tolist() == [[0, 1, 0, 2, 1]]


# By slow twins


@pytest.mark.parametrize("count", [1, 20, 200])
def test_planes_are_those_of_segmentations(count):
    masks = random_masks(count, count)
    expected = Segmentation.instances(masks, [0] * count).planes
    assert np.array_equal(MaskRuns.of([runs_of(mask) for mask in masks]).planes(masks.shape[1:]), expected)


def test_all_overlaps():
    masks = random_masks(0, 60)
    runs = MaskRuns.of([runs_of(mask) for mask in masks])
    window = (4, 3, 15, 16)
    inside = masks[:, 4:15, 3:16]
    expected = [
        (i, j, (inside[i] & inside[j]).sum(), inside[i].sum(), inside[j].sum())
        for i in range(25)
        for j in range(25, 60)
        if (inside[i] & inside[j]).any()
    ]
    found = mask_overlaps(runs, runs.extents(), range(25), range(25, 60), window)
    assert len(found) > 64  # more than there is room for at first
    assert found[found[:, 2] > 0].tolist() == [list(map(int, pair)) for pair in expected]


def test_all_unions():
    masks = random_masks(1)
    for one, other in zip(masks[:10], masks[10:], strict=True):
        assert np.array_equal(union_of_runs([runs_of(one), runs_of(other)]), runs_of(one | other))


# By a law


def test_parts_joined_and_taken():
    masks = random_masks(2)
    runs = [runs_of(mask) for mask in masks]
    joined = MaskRuns.joined([MaskRuns.of(runs[:7]), MaskRuns.of([]), MaskRuns.of(runs[7:])])
    assert np.array_equal(masks_of(joined, masks.shape[1:]), masks)
    order = np.array([3, 11, 0])
    assert np.array_equal(masks_of(joined.taken(order), masks.shape[1:]), masks[order])
    assert np.array_equal(joined.areas(), masks.sum(axis=(1, 2)))


def test_runs_of_a_map_and_the_map_of_runs():
    segment_map = np.array([[1, 1, 0, 2], [0, -1, 1, 1], [2, 2, 2, 2]], np.int32)
    runs = MaskRuns.of_map(segment_map, 3)
    assert [runs[n].tolist() for n in range(3)] == [[[0, 0, 2], [1, 2, 4]], [[0, 3, 4], [2, 0, 4]], []]
    assert (runs.painted((3, 4)) == np.maximum(segment_map, 0)).all()
    moved = MaskRuns.of_map(segment_map, 3, (10, 20))
    assert moved[1].tolist() == [[10, 23, 24], [12, 20, 24]]


def test_later_objects_are_painted_over_earlier_ones():
    runs = MaskRuns.of([np.array([[0, 0, 3]], np.int32), np.array([[0, 2, 4]], np.int32)])
    assert runs.painted((1, 5)).tolist() == [[1, 1, 2, 2, 0]]


def test_the_surest_of_masks_that_are_alike_stays():
    strip = [np.array([[0, 0, stop]], np.int32) for stop in (10, 8, 7, 0)] + [np.array([[1, 0, 10]], np.int32)]
    masks = MaskRuns.of([part if part[0, 2] else part[:0] for part in strip])
    assert surest_masks(masks, np.arange(5), 0.7).tolist() == [0, 2, 4]  # 8 of 10 go, 7 of 10 stay; an empty one goes
    assert surest_masks(masks, np.array([4, 2, 3, 1, 0]), 0.7).tolist() == [4, 2, 0]


def test_the_surest_equal_a_slow_twin():
    masks = np.concatenate([random_masks(seed, 30) for seed in range(3)])
    masks[30:60] = masks[:30] ^ (np.random.default_rng(9).random(masks[:30].shape) > 0.98)
    order = np.random.default_rng(5).permutation(90)
    kept: list[int] = []
    for n in order:
        ious = [(masks[n] & masks[k]).sum() / (masks[n] | masks[k]).sum() for k in kept]
        if not any(iou > 0.6 for iou in ious):
            kept.append(int(n))
    found = surest_masks(MaskRuns.of([runs_of(mask) for mask in masks]), order, 0.6)
    assert found.tolist() == kept and len(kept) < 85
