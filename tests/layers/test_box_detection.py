"""Objects out of what a head says of regions. Axes: B batch, R regions, K classes, M places."""

import torch

from segwright.layers.box_detection import FoundBoxes, as_detections, detect_boxes

ONES = (1.0, 1.0, 1.0, 1.0)
REGIONS = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 60, 60]])


def test_by_hand():
    probs = torch.tensor([[0.9, 0.04], [0.8, 0.3], [0.1, 0.6]])
    found = detect_boxes(probs, torch.zeros(3, 2, 4), REGIONS, (50, 50), weights=ONES, count=10)
    assert found.scores.tolist() == probs[[0, 2, 1, 2], [0, 1, 1, 0]].tolist()  # region 1 is region 0 again, of class 0
    assert found.class_ids.tolist() == [0, 1, 1, 0]
    assert found.boxes.tolist() == [[0, 0, 10, 10], [40, 40, 50, 50], [1, 0, 11, 10], [40, 40, 50, 50]]  # cut off at the border
    found = detect_boxes(probs, torch.zeros(3, 1, 4), REGIONS, (50, 50), weights=ONES, count=2)  # a box for all classes
    assert found.class_ids.tolist() == [0, 1]


def test_each_class_moves_its_own_box():
    deltas = torch.zeros(1, 2, 4)
    deltas[0, 1, 0] = 1  # by its width to the right
    found = detect_boxes(torch.tensor([[0.5, 0.9]]), deltas, REGIONS[:1], (50, 50), weights=ONES, count=2)
    assert found.boxes.tolist() == [[10, 0, 20, 10], [0, 0, 10, 10]]


def test_what_lies_outside_or_is_unsure_is_none():
    found = detect_boxes(torch.tensor([[0.9], [0.05]]), torch.zeros(2, 1, 4), REGIONS[[2, 0]], (30, 30), weights=ONES, count=2)
    assert len(found.boxes) == len(found.scores) == len(found.class_ids) == 0


def test_objects_of_all_images_are_padded_to_one_number():
    found = [
        FoundBoxes(REGIONS[:1], torch.tensor([0.9]), torch.tensor([2])),
        FoundBoxes(REGIONS[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64)),
    ]
    detections = as_detections(found, torch.ones(1, 28, 28), 3)
    assert detections.scores.tolist() == [torch.tensor([0.9, 0, 0]).tolist(), [0, 0, 0]]
    assert detections.class_ids.tolist() == [[2, 0, 0], [0, 0, 0]]
    assert detections.boxes.shape == (2, 3, 4) and torch.equal(detections.boxes, detections.regions)
    assert detections.masks.shape == (2, 3, 28, 28) and detections.masks.sum() == 28 * 28
    assert as_detections(found, None, 3).masks.shape == (2, 3, 0, 0)
