"""Entropy and disagreement of pixels, from logits that come in rows."""

import numpy as np
import pytest

from segwright.decoding.expected_dice import OverlapSums
from segwright.decoding.uncertainty import label_rows_and_uncertainty, region_rows_and_uncertainty, rows_of, whole_of


def whole(of_rows, parts, shape, num_classes, missing=None):
    """What is found, maps and sums of all rows."""
    sums = OverlapSums.of_none(num_classes)
    return *whole_of(of_rows(parts, num_classes, sums, rows_of(missing)), shape), sums


def labels_and_uncertainty(*given):
    return whole(label_rows_and_uncertainty, *given)


def regions_and_uncertainty(*given):
    return whole(region_rows_and_uncertainty, *given)


def entropy(probs):
    return -(probs * np.log(np.maximum(probs, 1e-30))).sum(axis=0)


def test_by_hand():
    probs = np.array([[1.0, 0.5, 0.25], [0.0, 0.5, 0.75]])[:, None]  # (K, 1, 3)
    logits = np.log(np.maximum(probs, 1e-30)).astype(np.float32)
    labels, maps, sums = labels_and_uncertainty([(0, logits)], (1, 3), 2)
    assert labels.tolist() == [[0, 0, 1]] and labels.dtype == np.uint8
    assert [*maps] == ["uncertainty"] and maps["uncertainty"].dtype == np.float32
    np.testing.assert_allclose(maps["uncertainty"][0], [0, 1, entropy(probs)[0, 2] / np.log(2)], atol=1e-6)
    assert sums.predicted.tolist() == [2, 1]
    np.testing.assert_allclose([sums.inside, sums.whole], [[1.5, 0.75], [1.75, 1.25]], atol=1e-6)
    _, _, without = labels_and_uncertainty([(0, logits)], (1, 3), 2, np.array([[True, False, False]]))
    assert without.predicted.tolist() == [1, 1]


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
def test_rows_one_by_one_say_the_same_and_equal_numpy(shape):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([0.3] * 4, (3, *shape)).transpose(0, -1, *range(1, len(shape) + 1))  # (N, K, *S) of three networks
    mean, inner = probs.mean(axis=0), np.mean([entropy(each) for each in probs], axis=0)
    logits = np.concatenate([np.log(mean) + 7, inner[None]]).astype(np.float32)  # what is added to all classes says nothing
    labels, maps, sums = labels_and_uncertainty([(0, logits)], shape, 4)
    assert (labels == mean.argmax(axis=0)).all()
    np.testing.assert_allclose(maps["uncertainty"], entropy(mean) / np.log(4), atol=1e-5)
    np.testing.assert_allclose(maps["disagreement"], (entropy(mean) - inner) / np.log(4), atol=1e-5)
    assert (maps["disagreement"] <= maps["uncertainty"]).all() and maps["disagreement"].max() > 0.1
    rows = ((first, logits[:, first : first + 1]) for first in range(shape[0]))
    again, same, others = labels_and_uncertainty(rows, shape, 4)
    assert (again == labels).all() and all((same[name] == maps[name]).all() for name in maps)
    for each, other in zip(sums.dice(), others.dice(), strict=True):
        assert each == pytest.approx(other, abs=1e-6)
    assert sums.whole == pytest.approx(mean.reshape(4, -1).sum(axis=1), rel=1e-5)


def test_networks_that_say_the_same_do_not_disagree():
    probs = np.full((3, 2, 2), 1 / 3)
    logits = np.concatenate([np.log(probs), entropy(probs)[None]]).astype(np.float32)
    _, maps, _ = labels_and_uncertainty([(0, logits)], (2, 2), 3)
    np.testing.assert_allclose(maps["uncertainty"], 1, atol=1e-6)
    assert (maps["disagreement"] <= 1e-6).all()


def test_rounding_leaves_no_map_beyond_its_ends():
    rng = np.random.default_rng(0)
    for size in (1e-4, 1.0, 40.0):
        logits = (size * rng.normal(size=(3, 50, 60))).astype(np.float32)
        entropy = labels_and_uncertainty([(0, logits)], (50, 60), 3)[1]["uncertainty"]
        assert entropy.min() >= 0 and entropy.max() <= 1


def test_one_class_is_certain():
    assert (labels_and_uncertainty([(0, np.ones((1, 2, 2), np.float32))], (2, 2), 1)[1]["uncertainty"] == 0).all()


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
def test_regions_are_there_or_not(shape):
    rng = np.random.default_rng(0)
    probs = rng.beta(0.3, 0.3, (3, 4, *shape)).clip(1e-4, 1 - 1e-4)  # (N, K, *S) of three networks
    mean = probs.mean(axis=0)
    inner = np.mean([[entropy(np.stack([each, 1 - each])) for each in one] for one in probs], axis=(0, 1))
    logits = np.concatenate([np.log(mean) - np.log(1 - mean), inner[None]]).astype(np.float32)
    rows = ((first, logits[:, first : first + 1]) for first in range(shape[0]))
    is_inside, maps, sums = regions_and_uncertainty(rows, shape, 4)
    assert np.array_equal(is_inside, mean > 0.5)
    np.testing.assert_allclose(sums.inside, np.where(mean > 0.5, mean, 0).reshape(4, -1).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(sums.whole, mean.reshape(4, -1).sum(axis=1), rtol=1e-5)
    outer = np.mean([entropy(np.stack([each, 1 - each])) for each in mean], axis=0)
    np.testing.assert_allclose(maps["uncertainty"], outer / np.log(2), atol=1e-5)
    np.testing.assert_allclose(maps["disagreement"], (outer - inner) / np.log(2), atol=1e-5)
