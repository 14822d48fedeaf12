"""Rare classes weigh more, by three rules, and the mean weight over all pixels stays 1."""

import statistics

import numpy as np
import pytest

from segwright.data.class_weights import class_weights

RULES = ["root", "inverse_frequency", "median_frequency"]


# By hand


def test_by_hand():
    fractions, images = (0.64, 0.32, 0.04), (4, 4, 1)
    assert class_weights(fractions, images, "inverse_frequency") == (0.5208, 1.0417, 8.3333)  # 1 / (3 * share)
    assert class_weights(fractions, images, "root") == (
        0.7984,
        1.1291,
        3.1935,
    )  # over 0.8 + 0.5657 + 0.2, the roots of the shares
    # parts of the images that hold them: 0.64, 0.32 and 0.16, so 1 : 2 : 4, over 0.64 + 2 * 0.32 + 4 * 0.04
    assert class_weights(fractions, images, "median_frequency") == (0.6944, 1.3889, 2.7778)


@pytest.mark.parametrize("rule", RULES)
def test_classes_alike_weigh_one(rule):
    assert class_weights((0.25,) * 4, (7,) * 4, rule) == (1.0,) * 4


@pytest.mark.parametrize("rule", RULES)
def test_a_class_that_was_not_seen_gets_a_finite_weight_and_changes_no_other(rule):
    *seen, unseen = class_weights((0.9, 0.1, 0.0), (5, 5, 0), rule)
    assert tuple(seen) == class_weights((0.9, 0.1), (5, 5), rule) and max(seen) < unseen < 1e6


@pytest.mark.parametrize("rule", RULES)
def test_without_any_truth_no_class_weighs_more(rule):
    assert class_weights((0.0, 0.0), (0, 0), rule) == (1.0, 1.0)


# By a slow twin


def test_the_median_frequency_is_that_of_the_paper_but_for_a_factor():
    """freq(c) is the number of pixels of c over that of the images where c is present; a weight is median freq / freq(c)."""
    maps = np.random.default_rng(0).choice(4, p=(0.7, 0.2, 0.08, 0.02), size=(9, 6, 8))
    maps[::2][maps[::2] == 3] = 0  # a class that few images show
    counts = np.stack([(maps == c).sum(axis=(1, 2)) for c in range(4)])  # (K, images)
    frequency = [counts[c].sum() / (48 * (counts[c] > 0).sum()) for c in range(4)]
    paper = np.array([statistics.median(frequency) / each for each in frequency])
    ours = class_weights(counts.sum(axis=1) / maps.size, (counts > 0).sum(axis=1), "median_frequency")
    np.testing.assert_allclose(np.array(ours) / ours[0], paper / paper[0], rtol=1e-3)


# By a law


@pytest.mark.parametrize("rule", RULES)
def test_the_mean_weight_over_all_pixels_is_one_and_rarer_classes_weigh_more(rule):
    fractions = (0.6, 0.3, 0.09, 0.01)
    weights = class_weights(fractions, (3,) * 4, rule)
    assert np.dot(fractions, weights) == pytest.approx(1, abs=1e-3) and list(weights) == sorted(weights)


def test_the_inverse_frequency_gives_each_class_the_same_part():
    fractions = (0.6, 0.3, 0.09, 0.01)
    parts = np.multiply(fractions, class_weights(fractions, (3,) * 4, "inverse_frequency"))
    np.testing.assert_allclose(parts, 1 / 4, rtol=1e-3)
