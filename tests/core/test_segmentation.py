"""What is where. Axes: P planes, N segments, *S spatial axes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segwright.core import VOID, Classes, Segmentation, segmentation
from segwright.core.errors import ShapeError

TWO = Classes.of(["road", "car"])
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]

shapes = array_shapes(min_dims=2, max_dims=3, max_side=6)
class_maps = shapes.flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(-1, 5)))
stacks = st.tuples(st.integers(0, 6), shapes).flatmap(lambda s: arrays(bool, (s[0], *s[1])))


def circle_pair():
    """Two bool masks (2, 3, 3) that share the middle pixel."""
    masks = np.zeros((2, 3, 3), bool)
    masks[0, :2, :2] = True
    masks[1, 1:, 1:] = True
    return masks


# By hand


def test_semantic():
    segmentation = Segmentation.semantic(np.array([[0, 2, VOID], [2, 2, 0]]), Classes.of("abcd"))
    assert len(segmentation) == 2
    assert segmentation.shape == (2, 3)
    np.testing.assert_array_equal(segmentation.planes, [[[1, 2, VOID], [2, 2, 1]]])
    np.testing.assert_array_equal(segmentation.class_ids, [0, 2])
    np.testing.assert_array_equal(segmentation.instance_ids, [0, 0])
    np.testing.assert_array_equal(segmentation.scores, [1, 1])
    np.testing.assert_array_equal(segmentation.areas(), [2, 3])
    np.testing.assert_array_equal(segmentation.boxes_xyxy(), [[0, 0, 3, 2], [0, 0, 2, 2]])
    assert segmentation.planes.dtype == segmentation.class_ids.dtype == segmentation.instance_ids.dtype == np.int32
    assert segmentation.scores.dtype == np.float32


def test_all_void():
    segmentation = Segmentation.semantic(np.full((2, 3), VOID), TWO)
    assert len(segmentation) == 0
    assert (segmentation.class_map() == VOID).all()
    assert segmentation.masks().shape == (0, 2, 3)
    assert segmentation.areas().shape == (0,)
    assert segmentation.boxes_xyxy().shape == (0, 4)


@pytest.mark.parametrize("shape", [(1, 1), (0, 3), (1, 1, 1)])
def test_one_pixel_and_none(shape):
    segmentation = Segmentation.semantic(np.ones(shape, np.uint8), TWO)
    np.testing.assert_array_equal(segmentation.class_map(), np.ones(shape))
    assert len(segmentation) == (np.prod(shape) > 0)


def test_classes_are_named_by_number_where_nobody_names_them():
    segmentation = Segmentation.semantic(np.array([[0, 2]]))
    assert segmentation.classes.names == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_a_class_map_of_any_integers(dtype):
    class_map = np.array([[0, 1], [1, 1]], dtype)
    np.testing.assert_array_equal(Segmentation.semantic(class_map, TWO).class_map(), class_map)
    assert Segmentation.semantic(class_map, TWO).class_map().dtype == np.int32


def test_instances_that_overlap_lie_in_two_planes():
    masks = circle_pair()
    segmentation = Segmentation.instances(masks, [1, 1], scores=[0.9, 0.5], classes=TWO)
    assert segmentation.planes.shape == (2, 3, 3)
    np.testing.assert_array_equal(segmentation.masks(), masks)
    np.testing.assert_array_equal(segmentation.instance_ids, [1, 2])
    np.testing.assert_array_equal(segmentation.areas(), [4, 4])
    np.testing.assert_array_equal(segmentation.boxes_xyxy(), [[0, 0, 2, 2], [1, 1, 3, 3]])
    np.testing.assert_allclose(segmentation.scores, [0.9, 0.5])


def test_instances_apart_share_one_plane_and_a_third_fills_the_gaps():
    masks = circle_pair()
    masks[1, 1, 1] = False
    assert Segmentation.instances(masks, [0, 1], classes=TWO).planes.shape == (1, 3, 3)
    three = np.concatenate([circle_pair(), np.zeros((1, 3, 3), bool)])
    three[2, 0, 2] = True
    segmentation = Segmentation.instances(three, [0, 0, 1], instance_ids=[7, 8, 9], classes=TWO)
    assert segmentation.planes.shape == (2, 3, 3)  # as deep as the deepest overlap, not as the number of objects
    np.testing.assert_array_equal(segmentation.instance_ids, [7, 8, 9])


def test_where_objects_overlap_the_later_plane_gives_the_class():
    class_map = Segmentation.instances(circle_pair(), [0, 1], classes=TWO).class_map()
    np.testing.assert_array_equal(class_map, [[0, 0, VOID], [0, 1, 1], [VOID, 1, 1]])


def test_no_objects():
    segmentation = Segmentation.instances(np.zeros((0, 2, 3), bool), [], classes=TWO)
    assert len(segmentation) == 0
    assert segmentation.planes.shape == (1, 2, 3)
    assert (segmentation.class_map() == VOID).all()


def test_an_object_without_pixels_keeps_its_place():
    masks = np.zeros((2, 2, 2), bool)
    masks[1] = True
    segmentation = Segmentation.instances(masks, [0, 1], classes=TWO)
    np.testing.assert_array_equal(segmentation.areas(), [0, 4])
    np.testing.assert_array_equal(segmentation.boxes_xyxy(), [[0, 0, 0, 0], [0, 0, 2, 2]])


def test_panoptic_has_stuff_and_things():
    segmentation = Segmentation.panoptic(np.array([[1, 2, 3], [0, -1, 3]]), [0, 1, 1], [0, 1, 2], classes=TWO)
    np.testing.assert_array_equal(segmentation.class_map(), [[0, 1, 1], [VOID, VOID, 1]])
    np.testing.assert_array_equal(segmentation.mask(2), [[False, False, True], [False, False, True]])
    np.testing.assert_array_equal(segmentation.instance_ids, [0, 1, 2])


def test_void_of_the_first_plane_is_covered_by_an_object_above():
    planes = np.array([[[-1, 1]], [[2, 0]]], np.int32)
    both = Segmentation(planes, np.array([0, 1], np.int32), np.array([1, 2], np.int32), np.ones(2, np.float32), TWO)
    np.testing.assert_array_equal(both.class_map(), [[1, 0]])


def test_what_is_made_void_takes_segments_with_it_that_have_no_pixel_left():
    masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 0, 0, 1]], [[0, 0, 0, 0]]], bool)
    objects = Segmentation.instances(masks, [0, 1, 2, 0])
    left = objects.with_void(np.array([[False, True, False, True]]))
    assert left.masks().tolist() == [[[True, False, False, False]], [[False, False, True, False]], [[False] * 4]]
    assert left.planes[0].tolist() == [[1, -1, 0, -1]] or left.planes[0].tolist() == [[1, -1, 2, -1]]
    assert (left.planes[1:] >= 0).all()  # void is said once
    assert left.instance_ids.tolist() == [1, 2, 4] and left.class_ids.tolist() == [0, 1, 0]
    assert objects.areas().tolist() == [2, 2, 1, 0]  # the argument stays


def test_some_of_the_segments_stay_with_void_and_in_their_order():
    planes = np.array([[[-1, 1, 2]], [[0, 3, 3]]], np.int32)
    scores = np.array([0.9, 0.5, 0.7], np.float32)
    objects = Segmentation(planes, np.array([0, 1, 0], np.int32), np.array([1, 2, 5], np.int32), scores, TWO)
    kept = objects.those(np.array([False, True, True]))
    assert kept.planes.tolist() == [[[-1, 0, 1]], [[0, 2, 2]]] and kept.class_ids.tolist() == [1, 0]
    assert kept.instance_ids.tolist() == [2, 5] and kept.scores.tolist() == scores[1:].tolist()
    assert objects.those(np.ones(3, bool)) is objects and len(objects.those(np.zeros(3, bool))) == 0


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_a_notebook_shows_the_picture_and_the_classes_that_occur(shape):
    html = Segmentation.semantic(np.ones(shape, np.int32), Classes.of(["unseen", "<b>bold"]))._repr_html_()
    assert "data:image/png;base64," in html
    assert "&lt;b&gt;bold" in html
    assert "unseen" not in html


def slow_instances(masks):
    """The planes of masks, each in the first where it is free: what is obvious, and slow."""
    planes = np.zeros((1, *masks.shape[1:]), dtype=np.int32)
    for index, mask in enumerate(masks):
        free = next((plane for plane in planes if not plane[mask].any()), None)
        if free is None:
            planes = np.concatenate([planes, np.zeros_like(planes[:1])])
            free = planes[-1]
        free[mask] = index + 1
    return planes


def slow_boxes(segmentation):
    boxes = np.zeros((len(segmentation), 4), dtype=np.float32)
    for index in range(len(segmentation)):
        rows, columns = np.nonzero((segmentation.planes == index + 1).any(axis=0))
        if len(rows):
            boxes[index] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return boxes


def slow_class_map(segmentation):
    class_of = np.concatenate([[VOID, VOID], segmentation.class_ids]).astype(np.int32)
    result = class_of[segmentation.planes[0] + 1]
    for plane in segmentation.planes[1:]:
        result = np.where(plane > 0, class_of[plane + 1], result)
    return result


def random_boxes(count, shape, seed=0):
    """Bool masks (N, *S) of boxes that overlap."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((count, *shape), bool)
    for mask in masks:
        sides = [np.sort(generator.integers(0, side + 1, 2)) for side in shape]
        mask[tuple(slice(*side) for side in sides)] = True
    return masks


# By a slow twin


@pytest.mark.parametrize(
    ("count", "shape"), [(0, (5, 6)), (1, (1, 1)), (100, (90, 160)), (300, (40, 300)), (40, (9, 20, 70)), (3, (0, 4))]
)
def test_views_equal_their_slow_twins(count, shape):
    masks = random_boxes(count, shape)
    segmentation = Segmentation.instances(masks, np.arange(count) % 2, classes=TWO)
    slow = slow_instances(masks)
    np.testing.assert_array_equal(segmentation.planes, slow)
    assert segmentation.planes.dtype == np.int32
    np.testing.assert_array_equal(segmentation.masks(), masks)
    np.testing.assert_array_equal(segmentation.areas(), np.bincount(np.maximum(slow, 0).ravel(), minlength=count + 1)[1:])
    np.testing.assert_array_equal(segmentation.class_map(), slow_class_map(segmentation))
    assert (segmentation.masks().dtype, segmentation.areas().dtype) == (bool, np.int64)
    if len(shape) == 2:
        np.testing.assert_array_equal(segmentation.boxes_xyxy(), slow_boxes(segmentation))
        assert segmentation.boxes_xyxy().dtype == np.float32


def test_more_than_eight_and_sixteen_planes():
    masks = np.ones((20, 2, 3), bool)
    masks[[3, 17], :, 1:] = False
    segmentation = Segmentation.instances(masks, np.zeros(20, int), classes=TWO)
    np.testing.assert_array_equal(segmentation.planes, slow_instances(masks))
    assert len(segmentation.planes) == 20
    gap = np.concatenate([masks, np.zeros((1, 2, 3), bool)])
    gap[20, :, 1:] = True  # beside mask 3, in the plane of that
    np.testing.assert_array_equal(Segmentation.instances(gap, np.zeros(21, int)).planes, slow_instances(gap))


def test_views_of_arrays_that_are_not_in_the_order_of_memory():
    masks = random_boxes(12, (30, 80))
    turned = Segmentation.instances(masks.transpose(0, 2, 1), np.zeros(12, int), classes=TWO)
    np.testing.assert_array_equal(turned.planes, slow_instances(masks.transpose(0, 2, 1)))
    straight = Segmentation.instances(masks, np.zeros(12, int), classes=TWO)
    flipped = replace(straight, planes=straight.planes[:, ::-1, ::2])
    np.testing.assert_array_equal(flipped.masks(), masks[:, ::-1, ::2])
    np.testing.assert_array_equal(flipped.areas(), masks[:, :, ::2].sum(axis=(1, 2)))
    np.testing.assert_array_equal(flipped.boxes_xyxy(), slow_boxes(flipped))
    np.testing.assert_array_equal(flipped.class_map(), slow_class_map(flipped))


@given(stacks)
def test_areas_boxes_and_masks_equal_loops_over_dense_masks(masks):
    segmentation = Segmentation.instances(masks, np.zeros(len(masks), int))
    np.testing.assert_array_equal(segmentation.areas(), [mask.sum() for mask in masks])
    for index, mask in enumerate(masks):
        np.testing.assert_array_equal(segmentation.mask(index), mask)
        if mask.any() and mask.ndim == 2:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_array_equal(segmentation.boxes_xyxy()[index], expected)


@given(stacks)
def test_class_map_equals_a_loop_from_the_first_plane_to_the_last(masks):
    segmentation = Segmentation.instances(masks, np.arange(len(masks)))
    expected = np.full(segmentation.shape, VOID)
    for plane in segmentation.planes:
        expected = np.where(plane > 0, plane - 1, expected)  # object i has class i
    np.testing.assert_array_equal(segmentation.class_map(), expected)


# By a law


@given(class_maps)
def test_a_class_map_comes_back(class_map):
    segmentation = Segmentation.semantic(class_map, Classes.of("abcdef"))
    np.testing.assert_array_equal(segmentation.class_map(), class_map)
    assert (segmentation.areas() > 0).all()
    assert segmentation.areas().sum() == (class_map >= 0).sum()


@given(stacks)
def test_masks_come_back_and_take_as_few_planes_as_they_can_in_turn(masks):
    segmentation = Segmentation.instances(masks, np.zeros(len(masks), int))
    np.testing.assert_array_equal(segmentation.masks(), masks)
    deepest = int(masks.sum(axis=0).max(initial=1))
    assert deepest <= len(segmentation.planes) <= max(len(masks), 1)


def test_masks_in_threads_and_masks_of_any_order_in_memory(monkeypatch):
    masks = np.random.default_rng(0).random((40, 9, 13)) < 0.1
    planes = slow_instances(masks)
    backwards = np.ascontiguousarray(np.moveaxis(masks, 0, -1))
    shifted = np.concatenate([[False], masks.ravel()])[1:].reshape(masks.shape)  # begins within a word
    for pixels in (segmentation.MANY_PIXELS, 1):
        monkeypatch.setattr(segmentation, "MANY_PIXELS", pixels)
        for given_masks in (masks, np.moveaxis(backwards, -1, 0), shifted, np.flip(np.flip(masks, 1).copy(), 1)):
            result = Segmentation.instances(given_masks, np.zeros(40, int))
            np.testing.assert_array_equal(result.planes, planes)
            np.testing.assert_array_equal(result.masks(), masks)


@given(class_maps)
def test_flipping_the_map_flips_the_answer(class_map):
    flipped = Segmentation.semantic(np.flip(class_map, -1), Classes.of("abcdef"))
    straight = Segmentation.semantic(class_map, Classes.of("abcdef"))
    np.testing.assert_array_equal(flipped.masks(), np.flip(straight.masks(), -1))


@given(class_maps)
def test_the_argument_is_left_as_it_was(class_map):
    before = class_map.copy()
    Segmentation.semantic(class_map, Classes.of("abcdef")).class_map()[...] = 0
    np.testing.assert_array_equal(class_map, before)


# By its messages


def test_planes_with_a_segment_that_there_is_not():
    one = Segmentation.panoptic(np.ones((2, 3), np.int32), [0], classes=TWO)
    wrong = replace(one, planes=one.planes + 1)
    with pytest.raises(ShapeError, match=r"planes hold 2..2, but there are 1 segments; 0..1 and -1 for void are what they may"):
        wrong.class_map()


def test_probabilities_are_no_class_map():
    probabilities = np.full((2, 3, 3), 0.5, np.float32)
    with pytest.raises(ShapeError, match="integers, not float32; take the argmax of probabilities first"):
        Segmentation.semantic(probabilities)
    Segmentation.semantic(probabilities.argmax(axis=0))


@pytest.mark.parametrize(
    ("value", "dtype"), [(2, np.uint8), (255, np.uint8), (-2, np.int16), (2**31 - 1, np.int32), (2**63, np.uint64)]
)
def test_a_value_outside_the_classes(value, dtype):
    """Also the largest values are refused at once: no table as long as the value is made."""
    class_map = np.array([[0, value]], dtype)
    with pytest.raises(ShapeError, match=rf"{value}.*but there are 2 classes \(0..1\); mark .* as void \(-1\)"):
        Segmentation.semantic(class_map, TWO)
    Segmentation.semantic(np.where(class_map == value, VOID, class_map.astype(np.int64)), TWO)


def test_more_classes_than_possible_without_names():
    with pytest.raises(ShapeError, match="there are 65535 classes"):
        Segmentation.semantic(np.array([[65_535]]))
    assert len(Segmentation.semantic(np.array([[65_534]])).classes) == 65_535


@pytest.mark.parametrize("value", [3, -2])
def test_a_segment_without_a_class(value):
    with pytest.raises(ShapeError, match="the segment map holds .*; 2 class ids allow -1..2"):
        Segmentation.panoptic(np.array([[0, value]]), [0, 1], classes=TWO)


@pytest.mark.parametrize("class_ids", [[0, 2], [-1, 0]])
def test_a_class_id_outside_the_classes(class_ids):
    with pytest.raises(ShapeError, match=r"class ids reach from .*, but there are 2 classes \(0..1\)"):
        Segmentation.panoptic(np.array([[1, 2]]), class_ids, classes=TWO)


def test_one_of_each_per_segment():
    with pytest.raises(ShapeError, match="2 class ids, 1 instance ids and 2 scores were given; give one of each per segment"):
        Segmentation.panoptic(np.array([[1, 2]]), [0, 1], [1], classes=TWO)
    with pytest.raises(ShapeError, match="2 class ids, 2 instance ids and 1 scores"):
        Segmentation.panoptic(np.array([[1, 2]]), [0, 1], scores=[0.5], classes=TWO)


def test_masks_of_bytes_are_refused_because_they_would_index():
    masks = circle_pair().astype(np.uint8)
    with pytest.raises(ShapeError, match="masks are uint8, bool is needed; compare them with a threshold, such as masks > 0"):
        Segmentation.instances(masks, [0, 1], classes=TWO)
    Segmentation.instances(masks > 0, [0, 1], classes=TWO)


def test_one_class_id_per_mask():
    with pytest.raises(ShapeError, match="2 masks and 1 class ids were given; give one class id per mask"):
        Segmentation.instances(circle_pair(), [0], instance_ids=[1], classes=TWO)


@pytest.mark.parametrize("shape", [(5,), (2, 2, 2, 2)])
def test_planes_of_another_number_of_axes(shape):
    with pytest.raises(ShapeError, match=r"\(P, H, W\) or \(P, D, H, W\) is needed"):
        Segmentation.semantic(np.zeros(shape, int), TWO)


def test_boxes_are_two_dimensional():
    volume = Segmentation.semantic(np.zeros((2, 3, 4), int), TWO)
    with pytest.raises(ShapeError, match=r"boxes are for 2D grids, this one is \(2, 3, 4\); take one slice, or use masks"):
        volume.boxes_xyxy()
    assert Segmentation.semantic(volume.class_map()[0], TWO).boxes_xyxy().shape == (1, 4)


def test_regions_have_planes_in_the_order_of_classes():
    classes = Classes.of(["whole", "absent", "core"])
    masks = np.array([[[1, 1, 0]], [[0, 0, 0]], [[0, 1, 1]]], bool)
    found = Segmentation.regions(masks, classes)
    assert found.planes.tolist() == [[[1, 1, 0]], [[0, 2, 2]]] and found.class_ids.tolist() == [0, 2]
    assert not found.instance_ids.any() and found.class_map().tolist() == [[0, 2, 2]]
    nothing = Segmentation.regions(np.zeros((3, 1, 3), bool), classes)
    assert len(nothing) == 0 and nothing.planes.tolist() == [[[0, 0, 0]]]
