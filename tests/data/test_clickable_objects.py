"""Data sets as promptable networks see them: what is an object, and what is none. Axes: P planes, H, W."""

import numpy as np

from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.data.clickable_objects import SMALLEST, clickable_objects
from segwright.formats import synthetic

CLASSES = Classes.of(["background", "road", "car"], is_thing=[False, False, True])


def dataset(truth: Segmentation | None) -> Dataset:
    shape = truth.shape if truth is not None else (8, 30)
    return Dataset("here", CLASSES, ("a",), lambda key: Sample.of(key, np.zeros((1, *shape), np.uint8), truth))


def test_by_hand_things_stay_whole_stuff_falls_into_pieces_and_the_background_is_none():
    segment_map = np.zeros((8, 30), np.int32)
    segment_map[:, :5] = segment_map[:, 8:13] = 1  # road, in two pieces
    segment_map[:4, 15:20] = segment_map[5:, 15:20] = 2  # one car behind something
    segment_map[:, 22:26] = 3  # background
    segment_map[0, 27:] = VOID
    truth = Segmentation.panoptic(segment_map, [1, 2, 0], [0, 7, 0], classes=CLASSES)
    data = clickable_objects(dataset(truth))
    found = data[0].truth
    assert data.classes.names == ("object",) and data.classes.is_thing == (True,)
    wanted = np.zeros((8, 30), np.int32)
    wanted[:4, 15:20] = wanted[5:, 15:20] = 1
    wanted[:, :5], wanted[:, 8:13], wanted[0, 27:] = 2, 3, VOID
    assert found.planes.tolist() == wanted[None].tolist()
    assert found.instance_ids.tolist() == [1, 2, 3] and found.class_ids.tolist() == [0, 0, 0]


def test_pieces_too_small_to_click_on_are_nothing():
    class_map = np.full((8, 30), VOID)
    class_map[0, : SMALLEST - 1] = class_map[3, :SMALLEST] = 1
    found = clickable_objects(dataset(Segmentation.semantic(class_map, CLASSES)))[0].truth
    assert len(found) == 1 and not found.planes[0, 0, : SMALLEST - 1].any() and (found.planes[0, 3, :SMALLEST] == 1).all()


def test_segments_that_overlap_keep_their_pixels():
    masks = np.zeros((2, 8, 30), bool)
    masks[0, :5], masks[1, 3:] = True, True
    truth = Segmentation.instances(masks, [2, 1], instance_ids=[4, 0], classes=CLASSES)
    found = clickable_objects(dataset(truth))[0].truth
    assert (found.masks() == masks).all()


def test_a_second_time_changes_nothing_and_images_need_not_be_read():
    data = clickable_objects(synthetic.streets(1, shape=(48, 64), seed=0))
    first, again = data[0].truth, clickable_objects(data)[0].truth
    assert len(first) > 3 and (first.planes == again.planes).all() and (first.areas() >= SMALLEST).all()
    assert (data.without_images()[0].truth.planes == first.planes).all()


def test_a_sample_without_truth_stays_as_it_is():
    assert clickable_objects(dataset(None))[0].truth is None


def test_a_truth_of_nothing_has_no_objects():
    empty = Segmentation.semantic(np.zeros((8, 30), np.int64), CLASSES)
    assert len(clickable_objects(dataset(empty))[0].truth) == 0
