"""What a network says of one image, out of its outputs for several."""

import numpy as np
import pytest

from segwright.core.errors import ShapeError
from segwright.decoding.image_detections import ImageDetections
from segwright.layers.detections import Detections


def outputs() -> tuple[np.ndarray, ...]:
    """Two images, three places; of the second image two are taken."""
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    scores, class_ids = np.array([[0.9, 0.5, 0.2], [0.8, 0.1, 0]], np.float32), np.array([[0, 1, 2], [1, 0, 7]])
    return boxes, scores, class_ids, np.arange(36, dtype=np.float32).reshape(2, 3, 2, 3), boxes + 1


def test_fields_are_those_of_detections():
    assert ImageDetections._fields == Detections._fields


def test_places_that_are_left_over_are_no_objects():
    found = ImageDetections.of(outputs(), 1, 3)  # class 7 is in such a place
    assert found.scores.tolist() == pytest.approx([0.8, 0.1]) and found.class_ids.tolist() == [1, 0]
    assert found.boxes[0].tolist() == [12, 13, 14, 15] and found.masks[1].tolist() == [[24, 25, 26], [27, 28, 29]]


def test_some():
    found = ImageDetections.of(outputs(), 0, 3)
    assert found.those(found.scores >= 0.5).class_ids.tolist() == [0, 1]
    assert found.those(np.array([2, 0])).class_ids.tolist() == [2, 0]


def test_a_mirror_image_by_hand():
    box = np.array([[1, 2, 4, 8]], np.float32)
    found = ImageDetections(box, np.ones(1), np.zeros(1, int), np.array([[[1, 2], [3, 4]]], np.float32), box.copy())
    across = found.mirrored((-1,), (10, 20))
    assert across.boxes.tolist() == across.regions.tolist() == [[16, 2, 19, 8]] and across.masks[0].tolist() == [[2, 1], [4, 3]]
    down = found.mirrored((-2,), (10, 20))
    assert down.boxes.tolist() == [[1, 2, 4, 8]] and down.masks[0].tolist() == [[3, 4], [1, 2]]
    assert box.tolist() == [[1, 2, 4, 8]]


@pytest.mark.parametrize("axes", [(), (-1,), (-2, -1)])
def test_mirrored_twice_is_as_before(axes):
    found = ImageDetections.of(outputs(), 0, 3)
    again = found.mirrored(axes, (30, 40)).mirrored(axes, (30, 40))
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))


def test_outputs_of_another_kind_of_network_are_told():
    with pytest.raises(
        ShapeError, match=r"arrays of \[\(1, 2, 8, 8\)\], but one that finds objects gives boxes, scores, .*task"
    ):
        ImageDetections.of((np.zeros((1, 2, 8, 8), np.float32),), 0, 3)


def test_a_class_without_a_name_is_told():
    with pytest.raises(ShapeError, match=r"finds class 2, but there are names for 2 \(0..1\); build it with num_classes"):
        ImageDetections.of(outputs(), 0, 2)
