"""The loss of logits at a coarser grid is that of their upsampled copy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segwright.core import Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.losses.cross_entropy import CrossEntropy
from segwright.tasks.semantic import Semantic


def test_the_target_is_the_class_map():
    class_map = np.array([[0, 1], [-1, 1]])
    sample = Sample.of("a", np.zeros((1, 2, 2), np.uint8), Segmentation.semantic(class_map))
    target = Semantic(CrossEntropy()).target(sample)
    assert target.dtype == np.int64 and (target == class_map).all()


@pytest.mark.parametrize(("size", "mode"), [((8, 12), "bilinear"), ((4, 8, 8), "trilinear")])
def test_coarse_logits_are_upsampled(size, mode):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2, 3, *(side // 4 for side in size), generator=generator)
    target = torch.randint(-1, 3, (2, *size), generator=generator)
    expected = F.cross_entropy(F.interpolate(coarse, size=size, mode=mode), target, ignore_index=-1)
    torch.testing.assert_close(Semantic(CrossEntropy()).loss(coarse, target), expected)


def test_a_sample_without_truth_is_named():
    with pytest.raises(UsageError, match="sample 'a' has no truth"):
        Semantic(CrossEntropy()).target(Sample.of("a", np.zeros((1, 2, 2), np.uint8)))
