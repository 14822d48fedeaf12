"""Where objects may be. Axes: B batch, E channels, n anchors, m proposals."""

import pytest
import torch

from segwright.layers.object_truth import ObjectTruth
from segwright.layers.region_proposals import AnchorScores, RegionProposalHead, proposal_losses, propose_regions

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [90, 90, 99, 99]])


def scores_of(*logits: float) -> AnchorScores:
    return AnchorScores(torch.tensor([logits]).float(), torch.zeros(1, len(logits), 4))


def proposed(scores, anchors=ANCHORS, **counts):
    (found,) = propose_regions([scores], [anchors], [(50, 50)], **{"candidates": 4, "count": 4, **counts})
    return found.tolist()


def test_by_hand():
    scores = scores_of(1, 2, 0, 9)
    assert proposed(scores) == [[0, 0, 10, 9], [20, 20, 30, 30]]  # the first overlaps a surer one, the last lies outside
    assert proposed(scores, count=1) == [[0, 0, 10, 9]]
    assert proposed(scores, candidates=2) == [[0, 0, 10, 9]]
    assert proposed(scores_of(1, 2, 0, 9), ANCHORS + 100) == []  # nothing lies inside


def test_maps_do_not_suppress_each_other_and_images_have_their_own_sides():
    scores = AnchorScores(torch.tensor([[1.0], [1.0]]), torch.zeros(2, 1, 4))
    found = propose_regions([scores, scores], [ANCHORS[:1], ANCHORS[1:2]], [(50, 50), (5, 8)], candidates=4, count=4)
    assert [each.tolist() for each in found] == [[[0, 0, 10, 10], [0, 0, 10, 9]], [[0, 0, 8, 5], [0, 0, 8, 5]]]


def test_a_head_tells_of_each_cell_of_each_pixel():
    head = RegionProposalHead(4, 3, 2)
    with torch.no_grad():
        head.objectness.bias.copy_(torch.tensor([1.0, 2, 3]))
        head.deltas.bias.copy_(torch.arange(12.0))
        (scores,) = head([torch.zeros(2, 4, 2, 5)])
    assert torch.equal(scores.objectness, torch.tensor([1.0, 2, 3]).repeat(2, 10))
    assert torch.equal(scores.deltas, torch.arange(12.0).reshape(3, 4).repeat(2, 10, 1))
    with torch.autocast("cpu", torch.bfloat16):
        assert head([torch.zeros(2, 4, 2, 5)])[0].deltas.dtype == torch.float32


def truth_of(boxes: torch.Tensor) -> ObjectTruth:
    return ObjectTruth(boxes, torch.zeros(len(boxes), dtype=torch.int64), torch.zeros(1, 20, 20, dtype=torch.int32))


def test_losses_by_hand():
    scores = scores_of(0, 0, 0, 0)
    objects = [truth_of(torch.tensor([[0.0, 0, 10, 10]]))]
    terms = proposal_losses([scores], [ANCHORS], objects, None, count=4, beta=0.0, divides_by_count=False)
    # anchors 0 and 1 overlap the object by 1 and 0.9, the others by nothing; anchor 1 must grow by a tenth, from y = 4.5 to 5
    torch.testing.assert_close(terms["objectness"], torch.tensor(2.0).log())
    torch.testing.assert_close(terms["proposals"], (torch.tensor(0.5 / 9) + torch.tensor(10 / 9).log()) / 4)
    fewer = proposal_losses([scores], [ANCHORS], objects, None, count=8, beta=0.0, divides_by_count=True)
    torch.testing.assert_close(fewer["objectness"], torch.tensor(2.0).log() / 2)
    bent = proposal_losses([scores], [ANCHORS], objects, None, count=4, beta=1 / 9, divides_by_count=False)
    assert bent["proposals"] < terms["proposals"]


@pytest.mark.parametrize("count", [1, 4])
def test_without_objects_all_anchors_learn_to_say_no(count):
    scores = AnchorScores(torch.zeros(1, 4, requires_grad=True), torch.zeros(1, 4, 4, requires_grad=True))
    terms = proposal_losses(
        [scores], [ANCHORS], [truth_of(torch.zeros(0, 4))], None, count=count, beta=0.0, divides_by_count=False
    )
    sum(terms.values()).backward()
    assert terms["proposals"] == 0 and not scores.deltas.grad.any()
    assert (scores.objectness.grad > 0).sum() == count
