from itertools import permutations

import numpy as np
import pytest

from segwright.core import Sample, Segmentation
from segwright.evaluation.gallery import Gallery


def show(gallery, key, score):
    sample = Sample.of(key, np.zeros((1, 2, 2)), Segmentation.semantic(np.zeros((2, 2), int)))
    gallery(sample, sample.truth, {"mIoU": score})


@pytest.mark.parametrize("order", list(permutations(range(5)))[::17])
def test_by_hand_the_order_of_coming_does_not_matter(order):
    gallery = Gallery(worst=2, best=1)
    for index in order:
        show(gallery, f"k{index}", index / 10)
    assert [sample.key for sample, _, _ in gallery.examples()] == ["k0", "k1", "k4"]


def test_few_images_appear_once_and_those_without_a_score_not():
    gallery = Gallery(worst=3, best=3)
    for key, score in (("a", 0.5), ("b", float("nan")), ("c", 0.2)):
        show(gallery, key, score)
    assert [sample.key for sample, _, _ in gallery.examples()] == ["c", "a"]
    assert Gallery().examples() == []
