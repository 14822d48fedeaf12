"""Objects of overlapping tiles, put together. Boxes are (top, left, bottom, right) here, the last two outside."""

import numpy as np
import pytest

from segwright.decoding.mask_runs import MaskRuns
from segwright.decoding.stitch import FoundObjects, TileGrid, stitched

SHAPE = (40, 100)
STARTS = [np.array([0]), np.array([0, 40])]
TWO = TileGrid.over(STARTS, (40, 60), (1.0, 1.0), SHAPE)  # columns 0 to 60 and 40 to 100


def seen(*objects: tuple[tuple[int, int, int, int], float], class_id: int = 0) -> FoundObjects:
    """Rectangles with their scores."""
    runs = [np.array([[y, left, right] for y in range(top, bottom)], np.int32) for (top, left, bottom, right), _ in objects]
    scores = np.array([score for _, score in objects], np.float32)
    return FoundObjects(MaskRuns.of(runs), scores, np.full(len(objects), class_id))


def boxes(found: FoundObjects) -> list[list[int]]:
    return found.masks.extents().tolist()


# By hand


def test_tiles_and_where_they_overlap():
    assert TWO.edges.tolist() == [[0, 0, 40, 60], [0, 40, 40, 100]] and TWO.pairs == [(0, 1)]
    assert TWO.is_inner.tolist() == [[False, False, False, True], [False, True, False, False]]
    assert TWO.window(0, 1) == (0, 40, 40, 60)
    four = TileGrid.over([np.array([0, 30]), np.array([0, 40])], (50, 60), (0.5, 2.0), (40, 200))
    assert four.edges.tolist() == [[0, 0, 25, 120], [0, 80, 25, 200], [15, 0, 40, 120], [15, 80, 40, 200]]
    assert sorted(four.pairs) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] and four.window(1, 2) == (15, 80, 25, 120)
    assert four.near.tolist() == [1, 4, 1, 4]


def test_tiles_that_overlap_across_one_between_are_compared():
    three = TileGrid.over([np.array([0]), np.array([0, 20, 40])], (40, 60), (1.0, 1.0), SHAPE)
    assert sorted(three.pairs) == [(0, 1), (0, 2), (1, 2)]
    far = TileGrid.over([np.array([0]), np.array([0, 30, 60])], (40, 40), (1.0, 1.0), SHAPE)
    assert sorted(far.pairs) == [(0, 1), (1, 2)]


def test_an_object_seen_twice_comes_out_once():
    found = stitched(TWO, [seen(((5, 44, 15, 54), 0.8)), seen(((5, 45, 15, 55), 0.9))])
    assert found.scores.tolist() == pytest.approx([0.9]) and len(found.masks) == 1


def test_of_two_views_of_an_object_that_far_from_the_border_stays():
    found = stitched(TWO, [seen(((5, 43, 15, 50), 0.8)), seen(((5, 43, 15, 51), 0.81))])  # near the left border of the second
    assert boxes(found) == [[5, 43, 15, 50]] and found.scores.tolist() == pytest.approx([0.81])


def test_a_cut_object_is_taken_from_the_tile_that_sees_it_whole():
    found = stitched(TWO, [seen(((5, 50, 15, 60), 0.9)), seen(((5, 50, 15, 70), 0.7))])
    assert boxes(found) == [[5, 50, 15, 70]] and found.scores.tolist() == pytest.approx([0.7])


def test_an_object_that_no_tile_sees_whole_is_the_union():
    found = stitched(TWO, [seen(((5, 20, 15, 60), 0.6)), seen(((5, 40, 15, 90), 0.9))])
    assert boxes(found) == [[5, 20, 15, 90]] and found.masks.areas().tolist() == [700]
    assert found.scores.tolist() == pytest.approx([0.9])


def test_a_piece_that_a_whole_object_covers_vanishes():
    found = stitched(TWO, [seen(((5, 20, 25, 50), 0.9)), seen(((5, 40, 10, 51), 0.8))])  # 0.25 of what the first has there
    assert boxes(found) == [[5, 20, 25, 50]]


def test_a_sliver_beside_a_whole_object_vanishes():
    found = stitched(TWO, [seen(((5, 10, 25, 40), 0.9)), seen(((8, 40, 20, 43), 0.8))])
    assert boxes(found) == [[5, 10, 25, 40]]


def test_an_object_close_to_a_cut_one_that_another_tile_does_not_show_leaves_it_alone():
    four = TileGrid.over([np.array([0, 15]), np.array([0, 40])], (25, 60), (1.0, 1.0), SHAPE)
    close = ((16, 20, 20, 24), 0.7)
    found = stitched(four, [seen(((3, 10, 14, 60), 0.9)), seen(((3, 40, 14, 90), 0.8)), seen(close), seen()])
    assert boxes(found) == [[3, 10, 14, 90], [16, 20, 20, 24]]


def test_neighbours_stay_apart():
    one = seen(((5, 40, 15, 49), 0.9), ((5, 49, 15, 58), 0.8), ((20, 20, 30, 39), 0.7))
    other = seen(((5, 40, 15, 49), 0.85), ((5, 49, 15, 57), 0.75), ((20, 61, 30, 80), 0.65))
    assert boxes(stitched(TWO, [one, other])) == [[5, 40, 15, 49], [5, 49, 15, 57], [20, 20, 30, 39], [20, 61, 30, 80]]


def test_objects_of_two_classes_are_two():
    found = stitched(TWO, [seen(((5, 44, 15, 54), 0.8)), seen(((5, 44, 15, 54), 0.9), class_id=1)])
    assert found.class_ids.tolist() == [1, 0] and found.scores.tolist() == pytest.approx([0.9, 0.8])


def test_what_a_network_is_unsure_of_neither_replaces_nor_prolongs():
    found = stitched(TWO, [seen(((5, 20, 15, 60), 0.9)), seen(((5, 42, 15, 70), 0.2), ((5, 50, 15, 58), 0.1))])
    assert [5, 20, 15, 60] in boxes(found) and len(found.scores) == 3


def test_a_cut_object_that_nobody_else_sees_stays():
    found = stitched(TWO, [seen(((5, 20, 15, 60), 0.9)), seen()])
    assert boxes(found) == [[5, 20, 15, 60]]


def test_two_arms_of_an_object_in_one_tile_are_joined_by_its_body_in_another():
    arms = seen(((5, 20, 15, 60), 0.9), ((25, 20, 35, 60), 0.8))
    body = np.array(
        [[y, 40, 99] for y in range(5, 15)] + [[y, 60, 99] for y in range(15, 25)] + [[y, 40, 99] for y in range(25, 35)]
    )
    other = FoundObjects(MaskRuns.of([body.astype(np.int32)]), np.array([0.7], np.float32), np.array([0]))
    found = stitched(TWO, [arms, other])
    assert boxes(found) == [[5, 20, 35, 99]] and found.masks.areas().tolist() == [2 * 10 * 79 + 10 * 39]


def test_nothing():
    assert len(stitched(TWO, [seen(), seen()]).scores) == 0


# By a law


def test_objects_are_those_of_the_scene_whatever_the_tiles():
    """Rectangles of all sizes, which every tile answers with what it shows of them."""
    random = np.random.default_rng(0)
    shape, side = (400, 500), 100
    free, true = np.ones(shape, bool), []
    for length in [260, 150, *[40] * 30, *[12] * 200, *[3] * 50]:
        height, width = (random.permutation([length, length // 2 + 1])).tolist()
        top, left = random.integers(0, 400 - height), random.integers(0, 500 - width)
        if free[top : top + height, left : left + width].all():
            free[max(0, top - 2) : top + height + 2, max(0, left - 2) : left + width + 2] = False
            true.append((top, left, top + height, left + width))
    starts = [np.rint(np.linspace(0, size - side, count)).astype(int) for size, count in zip(shape, (5, 7), strict=True)]
    grid = TileGrid.over(starts, (side, side), (1.0, 1.0), shape)
    parts = []
    for top, left, bottom, right in grid.edges.tolist():
        cut = [(max(a, top), max(b, left), min(c, bottom), min(d, right)) for a, b, c, d in true]
        parts.append(seen(*((box, 0.9) for box in cut if box[0] < box[2] and box[1] < box[3])))
    found = stitched(grid, parts)
    assert len(true) > 80 and sorted(boxes(found)) == sorted(map(list, true))
    assert sum(found.masks.areas()) == sum((c - a) * (d - b) for a, b, c, d in true)
