"""Intervals of the Dice to expect hold as often as they say, or are not given."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom, spearmanr

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.decoding.expected_dice import FAR, OverlapSums, Quality, QualityCalibration
from segwright.decoding.uncertainty import label_rows_and_uncertainty, rows_of, whole_of
from segwright.evaluation.conformal import (
    FEWEST,
    MOST,
    RATE,
    DiceCases,
    always_held,
    dice_cases,
    fitted_quality,
    looked_at,
    told_of_quality,
)

CLASSES = Classes.of(["background", "cell"])


def cases_of(said, true):
    keys = tuple(f"{n}" for n in range(len(said)))
    return DiceCases(keys, np.asarray(said, float)[:, None], np.asarray(true, float)[:, None])


def covered(calibration, said, true):
    """Whether each true Dice (N,) lies in the interval about what was said."""
    sums = [OverlapSums(*np.array([[1.0], [each], [1.0], [1.0]])) for each in said]  # whose Dice is just what was said
    found = [QualityCalibration(**{n: getattr(calibration, n)[:1] * 2 for n in ("low", "middle", "high")}) for _ in said]
    ends = [one(each, np.ones(1, bool)) for one, each in zip(found, sums, strict=True)]
    return np.array([low[0] <= each <= high[0] for (_, low, high), each in zip(ends, true, strict=True)])


def drawn(rng, count):
    """What is said and what is true: too sure by far, and now and then nothing is right."""
    true = rng.beta(8, 2, count)
    said = np.clip(true + (1 - true) * rng.random(count), 0.01, 0.999)
    true[rng.random(count) < 0.05] = 0
    return said, true


@pytest.mark.parametrize("count", [9, 12, 19, 40])
def test_intervals_hold_as_often_as_they_say(count):
    rng, trials, hits = np.random.default_rng(count), 800, 0
    for _ in range(trials):
        said, true = drawn(rng, count + 1)
        calibration = fitted_quality(cases_of(said[:-1], true[:-1]), range(count))
        hits += int(covered(calibration, said[-1:], true[-1:])[0])
    assert hits >= binom.ppf(0.001, trials, RATE)
    if count in (9, 19):  # ranks that leave out a tenth, to the last
        assert hits <= binom.ppf(0.999, trials, RATE + 0.005)  # log odds that end at 0 are ties
    else:
        assert hits / trials < 0.97


def test_ends_are_ranks():
    errors = np.linspace(-1, 1, 19)
    said = np.full(19, 0.5)
    true = 1 / (1 + np.exp(-errors))
    both = fitted_quality(cases_of(said, true), range(19))
    assert (both.low[0], both.middle[0], both.high[0]) == pytest.approx((-1, 0, 1), abs=1e-4)
    lower = fitted_quality(cases_of(said[:9], true[:9]), range(9))
    assert lower.low[0] == pytest.approx(-1, abs=1e-4) and lower.high[0] == FAR
    assert fitted_quality(cases_of(said[:8], true[:8]), range(8)) == QualityCalibration()
    assert fitted_quality(cases_of([], []), []) == QualityCalibration()


def test_images_of_one_group_count_as_one():
    said, true = np.full(40, 0.5), np.random.default_rng(0).random(40)
    assert not fitted_quality(cases_of(said, true), np.arange(40) // 5).has_intervals  # 8 groups
    twice = fitted_quality(cases_of(np.repeat(said[:19], 2), np.repeat(true[:19], 2)), np.arange(38) // 2)
    once = fitted_quality(cases_of(said[:19], true[:19]), range(19))
    assert twice == once


def test_intervals_of_groups_hold_for_images_of_new_groups():
    rng, trials, hits = np.random.default_rng(0), 600, 0
    for _ in range(trials):
        sizes = rng.integers(1, 6, 20)
        labels = np.repeat(np.arange(20), sizes)
        errors = np.repeat(rng.normal(size=20), sizes) + 0.1 * rng.normal(size=len(labels))  # images of a group are alike
        true, is_new = 1 / (1 + np.exp(-errors)), labels == 19
        calibration = fitted_quality(cases_of(np.full(len(labels), 0.5)[~is_new], true[~is_new]), labels[~is_new])
        hits += int(covered(calibration, [0.5], true[is_new][:1])[0])
    assert hits >= binom.ppf(0.001, trials, RATE)


def scene(rng, difficulty):
    """The truth of a disc, and logits (2, 40, 40) under noise of some size, which are surer than they are right."""
    y, x = np.mgrid[:40, :40]
    distance = rng.uniform(7, 12) - np.hypot(y - rng.uniform(14, 26), x - rng.uniform(14, 26))
    noise = np.kron(rng.normal(size=(20, 20)), np.ones((2, 2)))  # pixels are not independent
    margin = 1.5 / (0.3 + difficulty) * (distance / 2 + difficulty * noise)
    return (distance > 0).astype(int), np.stack([-margin, margin]).astype(np.float32)


def predicted(logits):
    sums = OverlapSums.of_none(2)
    labels, maps = whole_of(label_rows_and_uncertainty([(0, logits)], 2, sums, rows_of(None)), logits.shape[1:])
    return Segmentation.semantic(labels, CLASSES), maps, QualityCalibration()(sums, np.isin([0, 1], labels))


@pytest.fixture(scope="module")
def scenes():
    rng = np.random.default_rng(0)
    found = [scene(rng, difficulty) for difficulty in rng.uniform(0.2, 3, 240)]
    answers = {f"{n}": logits for n, (_, logits) in enumerate(found)}
    truths = {f"{n}": Segmentation.semantic(truth, CLASSES) for n, (truth, _) in enumerate(found)}
    data = Dataset("scenes", CLASSES, tuple(truths), lambda key: Sample.of(key, np.zeros((1, 40, 40), np.uint8), truths[key]))
    return dice_cases(lambda sample: predicted(answers[sample.key]), data)


def test_what_is_expected_follows_what_is_true_and_the_interval_holds_it(scenes):
    said, true = scenes.said[:, 1], scenes.true[:, 1]
    assert np.ptp(true) > 0.5 and spearmanr(said, true).statistic > 0.8
    worst = {*np.argsort(true)[:24].tolist()}
    assert len(worst & {*np.argsort(said)[:48].tolist()}) >= 18  # a fifth of the images holds most of the worst tenth
    half = DiceCases(scenes.keys[:120], scenes.said[:120], scenes.true[:120])
    calibration = fitted_quality(half, range(120), (0, 1))
    hits = covered(replace_first(calibration, 1), said[120:], true[120:]).sum()
    assert hits >= binom.ppf(0.001, 120, RATE - 0.03)  # 0.03: what 120 images let the rate itself vary by
    middle = 1 / (1 + np.exp(-(np.log(said / (1 - said)) + calibration.middle[1])))
    assert np.median(said - true) > 0.05 > abs(np.median(middle - true))


def replace_first(calibration, k):
    """The calibration of class k as that of the first."""
    return QualityCalibration(**{name: getattr(calibration, name)[k:] for name in ("low", "middle", "high")})


def test_what_is_said_and_what_is_true_by_hand():
    truth = Segmentation.semantic(np.array([[0, 1], [1, 1]]), CLASSES)
    found = Segmentation.semantic(np.array([[0, 0], [1, 1]]), CLASSES)
    quality = Quality(np.array([0.6, 0.7, 0.65]), np.zeros(3), np.ones(3))
    samples = {"a": Sample.of("a", np.zeros((1, 2, 2), np.uint8), truth), "b": Sample.of("b", np.zeros((1, 2, 2), np.uint8))}
    cases = dice_cases(lambda sample: (found, {}, quality), Dataset("memory", CLASSES, ("a", "b"), samples.__getitem__))
    assert cases.keys == ("a",)  # that has a truth
    np.testing.assert_allclose(cases.said, [[0.6, 0.7, 0.65]])
    np.testing.assert_allclose(cases.true, [[2 / 3, 4 / 5, (2 / 3 + 4 / 5) / 2]])
    joined = DiceCases.joined([cases, cases])
    assert joined.keys == ("a", "a") and joined.true.shape == (2, 3) and DiceCases.joined([]).keys == ()


def test_an_interval_of_a_class_is_of_images_in_which_it_was_found():
    said, true = np.full((12, 2), 0.5), np.full((12, 2), 0.5)
    said[4:, 0] = np.nan
    true[4:8, 0] = 0  # it is there, and was not found
    true[8:, 0] = np.nan
    found = fitted_quality(DiceCases(tuple("abcdefghijkl"), said, true), range(12))
    assert found.low[0] == -FAR and found.low[1] > -1
    assert "12 validation images" in told_of_quality(found, ["rare"], 12)
    assert "but for rare, which it found in too few" in told_of_quality(found, ["rare"], 12)


def test_too_few_images_are_told():
    told = told_of_quality(QualityCalibration(), ["a"], 4)
    assert "has no interval: 4 validation images" in told and f"{FEWEST} are needed" in told and "--folds" in told


def test_samples_to_look_at_are_few_and_spread():
    assert looked_at(FEWEST - 1) == [] and looked_at(FEWEST) == [*range(FEWEST)]
    some = looked_at(1000)
    assert len({*some}) == MOST and some[0] == 0 and some[-1] == 999 and max(np.diff(some)) <= 11


def test_classes_that_all_images_hold():
    maps = {"a": [[0, 1]], "b": [[1, 1]]}
    truths = {key: Segmentation.semantic(np.array(values), Classes.of(["x", "y", "z"])) for key, values in maps.items()}
    data = Dataset("memory", CLASSES, ("a", "b"), lambda key: SimpleNamespace(truth=truths[key]))
    assert always_held([data]) == (1,) and always_held([data.subset(["a"]), data.subset(["b"])]) == (1,)
    assert always_held([]) == ()
