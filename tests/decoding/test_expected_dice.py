"""The Dice to expect of a prediction without truth: what probabilities add up to, and what validation images make of it."""

import numpy as np
import pytest

from segwright.core.errors import SettingError
from segwright.decoding.expected_dice import FAR, LEAST, OverlapSums, QualityCalibration, log_odds_of_dice

PROBS = np.array([[0.9, 0.8, 0.4], [0.1, 0.1, 0.6], [0.0, 0.1, 0.0]])  # (K, n)


def sums_of(probs, missing=None):
    sums = OverlapSums.of_none(len(probs))
    sums.add_classes(probs, probs.argmax(axis=0).astype(np.uint8), missing)
    return sums


def test_by_hand():
    sums = sums_of(PROBS)
    assert sums.predicted.tolist() == [2, 1, 0] and sums.highest.tolist() == [0.9, 0.6, 0.1]
    np.testing.assert_allclose(sums.inside, [1.7, 0.6, 0])
    np.testing.assert_allclose(sums.whole, [2.1, 0.8, 0.1])
    np.testing.assert_allclose(sums.dice(), [2 * 1.7 / 4.1, 1.2 / 1.8, np.nan])


def test_where_all_is_certain_all_is_right():
    assert sums_of(np.eye(3)).dice().tolist() == [1, 1, 1]


def test_what_is_missing_does_not_count():
    some, all_missing = sums_of(PROBS, np.array([False, False, True])), sums_of(PROBS, np.ones(3, bool))
    assert some.predicted.tolist() == [2, 0, 0] and some.whole[0] == pytest.approx(1.7)
    quality = QualityCalibration(always=(0,))(all_missing, np.zeros(3, bool))
    assert np.isnan(all_missing.dice()).all() and np.isnan(quality.expected[-1])
    assert np.isnan(QualityCalibration()(all_missing, np.zeros(3, bool)).expected).all()


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
def test_rows_one_by_one_say_the_same_as_all_at_once(shape):
    probs = np.moveaxis(np.random.default_rng(0).dirichlet([0.3] * 4, shape), -1, 0)
    whole, by_row = sums_of(probs), OverlapSums.of_none(4)
    for row in np.moveaxis(probs, 1, 0):
        by_row.add_classes(row, row.argmax(axis=0))
    for name in ("predicted", "inside", "whole", "highest"):
        np.testing.assert_allclose(getattr(by_row, name), getattr(whole, name))


def test_regions_are_predicted_where_they_are_likely():
    sums = OverlapSums.of_none(2)
    sums.add_regions(np.array([[0.9, 0.8, 0.4], [0.7, 0.2, 0.1]]), np.zeros(3, bool))
    assert sums.predicted.tolist() == [2, 1]
    np.testing.assert_allclose(sums.dice(), [3.4 / 4.1, 1.4 / 2.0])


def test_it_is_the_mean_dice_of_truths_that_are_drawn_by_the_probabilities():
    rng = np.random.default_rng(0)
    probs = np.moveaxis(rng.dirichlet([0.5] * 3, 900), -1, 0)
    labels, found = probs.argmax(axis=0), []
    for _ in range(200):
        truth = (rng.random(900) > probs.cumsum(axis=0)).sum(axis=0)
        found.append([2 * ((labels == k) & (truth == k)).sum() / ((labels == k).sum() + (truth == k).sum()) for k in range(3)])
    np.testing.assert_allclose(sums_of(probs).dice(), np.mean(found, axis=0), atol=0.004)


def test_a_class_that_is_not_predicted_counts_in_the_mean_by_the_chance_that_it_is_there():
    sums, is_found = sums_of(PROBS), np.array([True, True, False])
    first, second, third, mean = QualityCalibration()(sums, is_found).expected
    assert np.isnan(third) and mean == pytest.approx((first + second) / (1 + 1 + 0.1))
    always = QualityCalibration(always=(2,))(sums, is_found)
    assert np.isnan(always.expected[2]) and always.expected[-1] == pytest.approx((first + second) / 3)
    assert np.isnan(always.low).all() and np.isnan(always.high).all()
    ruled_out = QualityCalibration()(sums, np.array([True, False, False])).expected  # by a rule about pieces
    assert np.isnan(ruled_out[1]) and ruled_out[-1] == pytest.approx(first / (1 + 0.6 + 0.1))


def test_background_alone_is_the_worst_where_each_validation_image_holds_an_object():
    confident = np.array([[0.999] * 50, [0.001] * 50])
    quality = QualityCalibration(always=(0, 1))(sums_of(confident), np.array([True, False]))
    assert quality.expected[0] > 0.99 and np.isnan(quality.expected[1]) and quality.expected[-1] < 0.5
    unsure = np.array([[0.6] * 10 + [0.999] * 40, [0.4] * 10 + [0.001] * 40])
    assert QualityCalibration()(sums_of(unsure), np.array([True, False])).expected[-1] < 0.7  # though no image had to hold one


def test_of_an_image_without_a_value_nothing_is_said():
    calibration = QualityCalibration(low=(-1.0,) * 3, middle=(0.0,) * 3, high=(1.0,) * 3, always=(0, 1))
    assert all(np.isnan(each).all() for each in calibration(OverlapSums.of_none(2), np.zeros(2, bool)))


def test_log_odds_move_by_what_validation_images_say():
    calibration = QualityCalibration(low=(-1.0, -FAR, -20.0), middle=(-0.5, 0.0, 0.0), high=(0.0, FAR, FAR))
    probs = np.array([[0.9, 0.9, 0.3], [0.1, 0.1, 0.7]])
    said = QualityCalibration()(sums_of(probs), np.ones(2, bool)).expected
    expected, low, high = calibration(sums_of(probs), np.ones(2, bool))
    odds = said[0] / (1 - said[0])
    np.testing.assert_allclose(expected, [1 / (1 + np.exp(0.5) / odds), said[1], said[2]])
    np.testing.assert_allclose(low, [1 / (1 + np.exp(1) / odds), np.nan, 0])
    np.testing.assert_allclose(high, [said[0], np.nan, 1])  # a lower end alone is an interval up to 1
    assert calibration.has_intervals and not QualityCalibration().has_intervals


def test_ends_reach_0_and_1_where_log_odds_end():
    assert np.isfinite(log_odds_of_dice(np.array([0.0, 1.0]))).all() and np.isnan(log_odds_of_dice(np.array([np.nan])))
    flat = QualityCalibration(low=(0.0, 0.0), middle=(0.0, 0.0), high=(0.0, 0.0))
    sure = OverlapSums(*np.array([[5.0], [5.0], [5.0], [1.0]]))
    quality = flat(sure, np.ones(1, bool))
    assert quality.high.tolist() == [1, 1] and quality.low == pytest.approx(1 - LEAST)
    wrong = OverlapSums(*np.array([[5.0], [0.0], [0.0], [0.0]]))
    assert flat(wrong, np.ones(1, bool)).low.tolist() == [0, 0]


def test_what_does_not_fit_is_told_with_its_remedy():
    with pytest.raises(SettingError, match=r"has \[1, 0, 0\] numbers for low, middle and high; .* leave out all three"):
        QualityCalibration(low=(0.0,))
    for other in (QualityCalibration(low=(0.0,), middle=(0.0,), high=(0.0,)), QualityCalibration(always=(7,))):
        with pytest.raises(SettingError, match="there are 3; leave it out with --set inference.quality={}"):
            other(sums_of(PROBS), np.ones(3, bool))
