"""What several mirror images show, averaged."""

import numpy as np
import pytest

from segwright.decoding.average_detections import average_detections
from segwright.decoding.image_detections import ImageDetections

SHAPE = (20, 30)


def view(boxes, scores, class_ids=None, values=1.0) -> ImageDetections:
    """Objects whose masks have the same value everywhere."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    masks = np.full((len(boxes), 4, 4), values, np.float32)
    ids = np.zeros(len(boxes), np.int64) if class_ids is None else np.array(class_ids)
    return ImageDetections(boxes, np.array(scores, np.float32), ids, masks, boxes.copy())


def test_one_view_is_left_alone():
    one = view([[0, 0, 5, 5]], [0.5])
    assert average_detections([one], SHAPE) is one


def test_the_mean_of_two():
    one, other = view([[0, 0, 8, 8]], [0.9], values=1.0), view([[2, 0, 10, 8]], [0.5], values=0.8)
    found = average_detections([one, other], SHAPE)
    assert found.boxes.tolist() == found.regions.tolist() == [[1, 0, 9, 8]]
    assert found.scores.tolist() == pytest.approx([0.7]) and found.masks == pytest.approx(0.9)
    assert one.boxes.tolist() == [[0, 0, 8, 8]] and one.scores.tolist() == pytest.approx([0.9])  # arguments stay


def test_what_one_of_two_does_not_show_keeps_half_of_its_score():
    found = average_detections([view([[0, 0, 8, 8]], [0.6]), view([[20, 0, 28, 8], [0, 0, 8, 8]], [0.9, 0.4])], SHAPE)
    assert found.scores.tolist() == pytest.approx([0.5, 0.45]) and found.boxes.tolist() == [[0, 0, 8, 8], [20, 0, 28, 8]]
    assert (found.masks == 1).all()


def test_classes_are_not_mixed_and_each_object_has_one_partner():
    one = view([[0, 0, 8, 8]], [0.6], [0])
    found = average_detections([one, view([[0, 0, 8, 8], [0, 0, 8, 7], [0, 0, 8, 8]], [0.8, 0.8, 0.8], [1, 0, 0])], SHAPE)
    assert found.class_ids.tolist() == [0, 1, 0] and found.scores.tolist() == pytest.approx([0.7, 0.4, 0.4])
    assert found.boxes[0].tolist() == [0, 0, 8, 8]  # the most alike


def test_no_objects_anywhere_and_objects_without_pixels():
    nothing = view([], [])
    assert len(average_detections([nothing, nothing], SHAPE).scores) == 0
    found = average_detections([nothing, view([[0, 0, 0.2, 0.2], [3, 3, 9, 9]], [0.9, 0.8])], SHAPE)
    assert found.scores.tolist() == pytest.approx([0.4])


def test_the_order_of_many_views_does_not_matter():
    random = np.random.default_rng(0)
    boxes = np.array([[1, 1, 9, 9], [12, 2, 20, 12], [22, 8, 29, 19]])
    views = [view(boxes + random.uniform(-0.5, 0.5, boxes.shape), random.uniform(0.4, 0.9, 3), [0, 1, 1]) for _ in range(4)]
    one, other = average_detections(views, SHAPE), average_detections(views[::-1], SHAPE)
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)
    assert one.scores.tolist() == pytest.approx(sorted(np.mean([part.scores for part in views], axis=0), reverse=True))
