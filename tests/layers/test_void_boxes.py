"""Boxes in void are not asked about. Axes: n boxes, P planes, H, W."""

import torch

from segwright.layers.box_matching import NONE, UNCLEAR
from segwright.layers.object_truth import ObjectTruth
from segwright.layers.region_proposals import AnchorScores, proposal_losses
from segwright.layers.region_sampling import sample_regions
from segwright.layers.void_boxes import unclear_in_void

PLANES = torch.zeros(2, 8, 8, dtype=torch.int32)
PLANES[:, :, 4:] = -1  # the right half
BOXES = torch.tensor([[0.0, 0, 4, 4], [4, 0, 8, 4], [2, 0, 6, 4], [1, 0, 6, 4], [3, 0, 6, 4], [4, 4, 20, 20], [9, 9, 12, 12]])


def test_what_is_void_by_more_than_half_is_unclear():
    matches = torch.full((7,), NONE)
    assert unclear_in_void(matches, BOXES, PLANES).tolist() == [NONE, UNCLEAR, NONE, NONE, UNCLEAR, UNCLEAR, NONE]
    assert (matches == NONE).all()  # what was given stays as it is


def test_boxes_with_an_object_and_unclear_ones_stay():
    matches = torch.tensor([0, 3, NONE, UNCLEAR, 1, UNCLEAR, 0])
    assert (unclear_in_void(matches, BOXES, PLANES) == matches).all()


def test_without_void_nothing_changes():
    matches = torch.full((7,), NONE)
    assert unclear_in_void(matches, BOXES, PLANES.clamp(min=0)) is matches


def test_regions_and_anchors_in_void_teach_nothing():
    truth = ObjectTruth(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([0]), PLANES)
    (sample,) = sample_regions([BOXES[:2]], [truth], None, count=10, overlap=0.5, num_classes=1)
    assert sample.regions.tolist() == [[0, 0, 4, 4], [0, 0, 4, 4]]  # the proposal and the object; not the one in void
    logits = torch.zeros(1, 2, requires_grad=True)
    scores = AnchorScores(logits, torch.zeros(1, 2, 4))
    terms = proposal_losses([scores], [BOXES[:2]], [truth], None, count=4, beta=0.0, divides_by_count=False)
    terms["objectness"].backward()
    assert logits.grad[0, 0] != 0 and logits.grad[0, 1] == 0
