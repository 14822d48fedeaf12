import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_array_equal

from segwright.core import VOID
from segwright.core.errors import ShapeError
from segwright.evaluation.logits import confusion_of_logits


def test_by_hand():
    logits = np.array([[[3.0, 0.0]], [[1.0, 2.0]]], np.float32)  # class 0, then class 1
    truth = np.array([[0, 0, 1, VOID]])
    assert_array_equal(confusion_of_logits(logits, truth), [[2, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("small", "large"), [((7, 9), (28, 36)), ((8, 8), (30, 50)), ((3, 4, 5), (6, 9, 10)), ((6, 6), (6, 6))]
)
def test_equals_interpolation_argmax_and_bincount(small, large):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(5, *small)).astype(np.float32)
    truth = generator.integers(VOID, 5, large).astype(np.int32)
    mode = "bilinear" if len(small) == 2 else "trilinear"
    best = F.interpolate(torch.from_numpy(logits)[None], large, mode=mode, align_corners=False).argmax(1)[0].numpy()
    known = truth >= 0
    expected = np.bincount(truth[known] * 6 + best[known], minlength=30).reshape(5, 6)
    assert_array_equal(confusion_of_logits(logits, truth), expected)


def test_a_padded_image_is_read_from_its_part_of_the_logits():
    logits = np.zeros((2, 2, 4), np.float32)
    logits[1, :, 2:] = 1  # what lies right of the image
    truth = np.zeros((2, 2), np.uint8)
    assert_array_equal(confusion_of_logits(logits, truth, ((0.0, 2.0), (0.0, 2.0))), [[4, 0, 0], [0, 0, 0]])


def test_logits_with_a_batch_are_refused():
    with pytest.raises(ShapeError, match=r"give logits \(K, \*s\)"):
        confusion_of_logits(np.zeros((1, 2, 4, 4), np.float32), np.zeros((4, 4), np.uint8))
