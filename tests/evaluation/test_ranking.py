"""Variants by their scores over images and seeds: by hand, beside tests of others, and by how often chance is claimed."""

import numpy as np
import pytest
from scipy import stats

from segwright.core import Classes
from segwright.core.errors import UsageError
from segwright.evaluation.ranking import CLAIM, p_text, ranked
from segwright.metrics.accumulators import Sums, ratio
from segwright.metrics.confusion import Confusion, class_sums


class Average:
    """The mean of one value per image, from `Sums` (2,) of value and 1, in all and of the one class there is."""

    SCORES = ("mscore",)
    convention = "The mean over images."

    def count(self, prediction, truth):
        raise NotImplementedError

    def score(self, state):
        average = ratio(state.values[..., 0], state.values[..., 1])
        return {"mscore": average, "other": average, "score/one": average, "third/one": average}

    def limits(self, states):
        return {title: (-np.inf, np.inf) for title in ("mscore", "other", "score", "third")}


def runs_of(*tables, images=8):
    """States of runs with these scores (S,) each, on images that are all alike."""
    return [[[Sums(np.array([value, 1.0]))] * images for value in own] for own in tables]


def noisy(means, *, images, seeds, between, within, seed):
    """Runs of variants whose scores differ from seed to seed by `between`, and from image to image by `within` for all."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 3 * within, images)
    found = []
    for mean in means:
        luck = rng.normal(mean, between, seeds)
        values = luck[:, None] + hard + rng.normal(0, within, (seeds, images))
        found.append([[Sums(np.array([value, 1.0])) for value in own] for own in values])
    return dict(zip("abcdefg", found, strict=False))


def test_by_hand():
    low, high, middle = runs_of([0.2, 0.3], [0.6, 0.7], [0.5, 0.4])
    found = ranked(Average(), {"low": low, "high": high, "middle": middle}, "mscore", resamples=50)
    assert [each.name for each in found.standings] == ["high", "middle", "low"]
    assert found.standings[0].values["mscore"] == pytest.approx(0.65) and found.standings[0].by_seed["mscore"] == (0.6, 0.7)
    assert [(p.first, p.second) for p in found.pairings] == [("high", "middle"), ("high", "low"), ("middle", "low")]
    assert found.pairings[1].differences[0].difference == pytest.approx(-0.4)
    assert found.against_best["low"].differences[0].difference == pytest.approx(0.4)
    assert found.class_scores == ("score/one",) and [d.score for d in found.pairings[0].differences] == ["mscore", "score/one"]
    error, (low_end, high_end) = np.sqrt(0.005 / 2), found.standings[0].intervals["mscore"]  # 0.005: the variance of 0.6, 0.7
    reach = stats.t.ppf(0.975, 3) * error  # three variants, a degree of freedom each
    assert (low_end, high_end) == pytest.approx((0.65 - reach, 0.65 + reach))


def test_seeds_alone_are_a_paired_t_test():
    """Of two variants on images that are all alike, nothing but the seeds is unsure."""
    a, b = [0.50, 0.54, 0.47, 0.55], [0.56, 0.58, 0.55, 0.57]
    found = ranked(Average(), dict(zip("ab", runs_of(a, b, images=12), strict=True)), "mscore", resamples=4000)
    row, theirs = found.against_best["a"].differences[0], stats.ttest_rel(b, a)
    assert row.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert row.interval == pytest.approx(tuple(theirs.confidence_interval()), abs=1e-9)
    assert row.p == pytest.approx(theirs.pvalue)  # that of the swaps is 1 / 2048


def test_of_one_seed_the_images_alone_count():
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, 30)
    runs = {"a": first, "b": first + rng.normal(0.5, 0.3, 30)}
    states = {name: [[Sums(np.array([value, 1.0])) for value in values]] for name, values in runs.items()}
    found = ranked(Average(), states, "mscore", resamples=1000)
    assert found.pairings[0].is_claimed and found.pairings[0].differences[0].p == pytest.approx(1 / 1001)
    assert "of one seed" in found.convention(30, 1) and "t test" not in found.convention(30, 1)


def test_law_runs_that_are_alike_do_not_differ():
    (same,) = runs_of([0.4, 0.6])
    found = ranked(Average(), {"a": same, "b": same, "c": same}, "mscore", resamples=30)
    assert all(row.p == row.p_holm == 1 and row.difference == 0 for p in found.pairings for row in p.differences)
    text = " ".join(found.sentences())
    assert "No difference can be claimed between any two of a, b and c." in text and "better" not in text
    assert "No difference can be claimed between a and b (0.0000, 95 % interval 0.0000 to 0.0000, p 1.00)." in text


@pytest.mark.parametrize(("between", "gain", "low", "high"), [(0.02, 0.0, 0.0, 0.09), (0.02, 0.12, 0.8, 1.0)])
def test_law_luck_with_seeds_is_seldom_claimed_and_a_gain_mostly(between, gain, low, high):
    """With 60 images alike for all, swaps would call any two seeds different; what counts is whether other seeds would be."""
    trials = 60
    found = 0
    for seed in range(trials):
        runs = noisy([0.5, 0.5, 0.5 + gain], images=60, seeds=3, between=between, within=0.02, seed=seed)
        ranking = ranked(Average(), runs, "mscore", resamples=150)
        found += any(p.is_claimed for p in ranking.pairings if gain == 0 or "c" in (p.first, p.second))
    assert low <= found / trials <= high


def test_what_is_claimed_is_said():
    runs = noisy([0.3, 0.8, 0.305], images=40, seeds=3, between=0.01, within=0.01, seed=1)
    found = ranked(Average(), runs, "mscore", resamples=2000)
    sentences = found.sentences()
    assert len(sentences) == 2 and all(each.startswith("b is better than ") for each in sentences)
    assert "mscore (95 % interval 0." in sentences[0] and "p below 0.0" in sentences[0] or ", p 0.00" in sentences[0]
    text = found.convention(40, 3)
    assert "mean over 3 seeds" in text and "all 3 pairs" in text and f"up to {CLAIM:.2f}" in text


def test_holm_allows_for_all_pairs():
    runs = noisy([0.5, 0.53, 0.51, 0.52], images=30, seeds=3, between=0.01, within=0.01, seed=3)
    found = ranked(Average(), runs, "mscore", resamples=500)
    smallest = min(found.pairings, key=lambda p: p.differences[0].p).differences[0]
    assert len(found.pairings) == 6 and smallest.p_holm == pytest.approx(min(1.0, 6 * smallest.p))


def test_classes_of_a_confusion_matrix():
    metric = Confusion(Classes.of(["sky", "car"]))
    rng = np.random.default_rng(0)

    def run(right):
        tables = [np.array([[90, 10, 0], [100 - right, right, 0]]) + rng.integers(0, 3, (2, 3)) for _ in range(10)]
        return [class_sums(table) for table in tables]

    found = ranked(metric, {"poor": [run(40), run(45)], "good": [run(90), run(88)]}, "mIoU", resamples=100)
    assert found.class_scores == ("IoU/sky", "IoU/car")
    good = found.standings[0]
    assert good.name == "good" and good.values["mIoU"] == pytest.approx(np.mean([good.values[n] for n in found.class_scores]))
    assert good.intervals["IoU/car"][0] < good.values["IoU/car"] < good.intervals["IoU/car"][1]


def test_p_as_it_is_written():
    assert [p_text(p) for p in (0.5, 0.049, 0.0123, 0.0004, float("nan"))] == [
        "0.50",
        "0.049",
        "0.012",
        "below 0.001",
        "unknown",
    ]


def test_refuses_runs_that_do_not_match():
    a, b = runs_of([0.1, 0.2], [0.3])
    with pytest.raises(UsageError, match=r"a has runs of \[8, 8\] images, b has runs of \[8\] images; give as many runs"):
        ranked(Average(), {"a": a, "b": b}, "mscore")
    assert ranked(Average(), {"a": a}, "mscore", resamples=20).sentences() == []
