from itertools import permutations

import numpy as np
import pytest

from segwright.core import Sample, Segmentation
from segwright.evaluation.evaluate import evaluate
from segwright.reports.gallery import Gallery, goodness, shown_keys


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


def test_errors_of_all_images_are_gathered(truths, guess):
    gallery = Gallery(worst=1, best=1)
    scores = evaluate(guess, truths, on_image=gallery)
    assert gallery.atlas.images == 6 and len(gallery.examples()) == 2
    pixels, wrong = gallery.atlas.borders.values.sum(axis=(1, 2))
    assert 1 - wrong / pixels == pytest.approx(scores.values["pixel accuracy"])


def test_distances_are_better_when_they_are_smaller():
    assert goodness({"HD95": 3.0, "NSD": 0.5}) == -3.0 and goodness({"PQ": 0.4, "HD95": 9}) == 0.4
    assert np.isnan(goodness({}))


@pytest.mark.parametrize("count", [0, 1, 3, 5, 9])
def test_keys_equal_those_that_a_gallery_keeps(count):
    values = np.random.default_rng(count).permutation(count) / 10
    gallery, per_image = Gallery(worst=3, best=2), {f"k{i}": {"PQ": value} for i, value in enumerate(values)}
    for key, own in per_image.items():
        sample = Sample.of(key, np.zeros((1, 2, 2)), Segmentation.semantic(np.zeros((2, 2), int)))
        gallery(sample, sample.truth, own)
    per_image["unknown"] = {"PQ": float("nan")}
    assert shown_keys(per_image, worst=3, best=2) == [sample.key for sample, _, _ in gallery.examples()]
