"""Which regions heads learn from. Axes: R regions, N objects, K classes."""

import pytest
import torch

from segwright.layers.object_truth import ObjectTruth
from segwright.layers.region_sampling import RegionSample, box_head_losses, label_regions, sample_regions

OBJECTS = torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]])
TRUTH = ObjectTruth(OBJECTS, torch.tensor([1, 0]), torch.zeros(1, 50, 60, dtype=torch.int32))
NOTHING = ObjectTruth(OBJECTS[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(1, 50, 60, dtype=torch.int32))
PROPOSALS = torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 4], [30, 30, 50, 50]])  # overlaps of 0.6, 0.4 and 1 / 7


def test_by_hand():
    (sample,) = sample_regions([PROPOSALS], [TRUTH], None, count=100, overlap=0.5, num_classes=2)
    assert sorted(sample.positives.tolist()) == sorted([[0, 0, 10, 6], *OBJECTS.tolist()])  # objects are regions too
    assert sorted(sample.class_ids.tolist()) == [0, 1, 1, 2, 2]
    assert [OBJECTS[n].tolist() for n in sample.objects] == [OBJECTS[int(r[0] > 15)].tolist() for r in sample.positives]
    (sample,) = sample_regions([PROPOSALS], [TRUTH], None, count=4, overlap=0.5, num_classes=2)
    assert len(sample.regions) == 3 and len(sample.objects) == 1  # a quarter at most


def test_all_regions_are_labelled_by_a_stricter_rule():
    (sample,) = label_regions([PROPOSALS], [TRUTH], overlap=0.6, num_classes=2)
    assert sample.regions.tolist() == PROPOSALS.tolist() and sample.class_ids.tolist() == [1, 2, 2]
    (sample,) = label_regions([PROPOSALS], [TRUTH], overlap=0.7, num_classes=2)
    assert sample.class_ids.tolist() == [2, 2, 2] and len(sample.objects) == 0


def test_regions_in_void_are_not_asked_about():
    planes = torch.zeros(1, 50, 60, dtype=torch.int32)
    planes[0, 28:] = -1  # below the row 28 nobody knows
    truth = TRUTH._replace(planes=planes)
    (sample,) = label_regions([PROPOSALS], [truth], overlap=0.6, num_classes=2)
    assert sample.regions.tolist() == PROPOSALS[:2].tolist() and sample.class_ids.tolist() == [1, 2]
    (sample,) = label_regions([OBJECTS], [truth], overlap=0.6, num_classes=2)
    assert sample.class_ids.tolist() == [1, 0]  # what has an object is known


def test_an_image_without_proposals_and_objects_is_looked_at_as_a_whole():
    (sample,) = sample_regions([PROPOSALS[:0]], [NOTHING], None, count=4, overlap=0.5, num_classes=2)
    assert sample.regions.tolist() == [[0, 0, 60, 50]] and sample.class_ids.tolist() == [2]


def test_losses_by_hand():
    (sample,) = label_regions([PROPOSALS], [TRUTH], overlap=0.5, num_classes=2)
    deltas = torch.zeros(3, 2, 4)
    deltas[0, 1] = torch.tensor([0, 2 / 6, 0, torch.tensor(10 / 6).log()])  # of its class: where its object lies
    given = {"weights": (1.0, 1.0, 1.0, 1.0), "beta": 0.0}
    classes, boxes = box_head_losses(torch.zeros(3, 3), deltas, [sample], [TRUTH], **given)
    torch.testing.assert_close(classes, torch.tensor(3.0).log())
    torch.testing.assert_close(boxes, torch.tensor(0.0), atol=1e-6, rtol=0)
    deltas[0, 1, 0] += 0.6
    deltas[0, 0] = 7  # of another class, and of regions without an object, nothing is asked
    deltas[1:] = 7
    torch.testing.assert_close(box_head_losses(torch.zeros(3, 3), deltas, [sample], [TRUTH], **given)[1], torch.tensor(0.2))


@pytest.mark.parametrize("boxes_each", [1, 3])
def test_nothing_to_learn_from_gives_losses_of_nothing(boxes_each):
    logits, deltas = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, boxes_each, 4, requires_grad=True)
    sample = RegionSample(OBJECTS[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    losses = box_head_losses(logits, deltas, [sample], [NOTHING], weights=(1.0,) * 4, beta=0.1)
    assert [loss.item() for loss in losses] == [0, 0]
    sum(losses).backward()
