"""Which boxes a loss looks at. Axes: n boxes."""

import torch
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from segwright.layers.box_matching import NONE, UNCLEAR
from segwright.layers.box_sampling import sample_boxes


def drawn(matches, count, share, seed=0):
    positives, negatives = sample_boxes(matches, count, share, torch.Generator().manual_seed(seed))
    return positives.tolist(), negatives.tolist()


def test_by_hand():
    matches = torch.tensor([3, NONE, UNCLEAR, 0, NONE, NONE, NONE])
    positives, negatives = drawn(matches, 4, 0.25)
    assert len(positives) == 1 and set(positives) <= {0, 3}
    assert len(negatives) == len(set(negatives)) == 3 and set(negatives) <= {1, 4, 5, 6}
    positives, negatives = drawn(matches, 100, 0.5)  # all there are; who is unclear is not asked
    assert sorted(positives) == [0, 3] and sorted(negatives) == [1, 4, 5, 6]
    assert drawn(matches[1:3], 4, 0.5) == ([], [0])
    assert drawn(matches[:0], 4, 0.5) == ([], [])


def test_the_generator_decides():
    matches = torch.randint(-2, 5, (500,), generator=torch.Generator().manual_seed(1))
    assert drawn(matches, 40, 0.5) == drawn(matches, 40, 0.5) != drawn(matches, 40, 0.5, seed=2)


def test_draws_what_torchvision_draws():
    matches = torch.randint(-2, 5, (500,), generator=torch.Generator().manual_seed(1))
    labels = (matches >= 0).float() - (matches == UNCLEAR).float()
    torch.manual_seed(0)
    (positives,), (negatives,) = BalancedPositiveNegativeSampler(64, 0.25)([labels])
    torch.manual_seed(0)
    ours = sample_boxes(matches, 64, 0.25, None)
    assert [sorted(each.tolist()) for each in ours] == [each.nonzero().flatten().tolist() for each in (positives, negatives)]
