"""Rules are kept where they help for certain, and nowhere else."""

import numpy as np
import pytest

from segwright.core import Classes, Sample, Segmentation
from segwright.decoding.postprocess import Postprocess
from segwright.evaluation.postprocess_choice import PostprocessTrial

CLASSES = Classes.of(["background", "organ"])


def sample_of(number, rng, specks):
    """A disc, and a prediction of it that is a little wrong at its border, and has some specks elsewhere."""
    y, x = np.mgrid[:48, :48]
    truth = ((y - 24) ** 2 + (x - 24) ** 2 < 150 + 40 * rng.random()).astype(np.int64)
    guess = ((y - 24) ** 2 + (x - 24) ** 2 < 150 + 40 * rng.random()).astype(np.int64)
    for _ in range(specks):
        row, column = rng.integers(0, 6, 2)
        guess[row : row + 2, column : column + 2] = 1
    sample = Sample.of(f"s{number}", np.zeros((1, 48, 48), np.uint8), Segmentation.semantic(truth, CLASSES))
    return sample, Segmentation.semantic(guess, CLASSES)


def choice_of(count, specks, labels=None):
    rng, trial = np.random.default_rng(0), PostprocessTrial("mIoU", count)
    for number in range(count):
        trial(*sample_of(number, rng, specks), {})
    return trial.choice(list(range(count)) if labels is None else labels)


def test_what_helps_on_all_images_is_kept_and_told():
    rule, told = choice_of(12, specks=3)
    assert rule.largest == (1,) and not rule.filled
    assert any(text.startswith("Keeping the largest piece of organ raises mIoU on these images from 0.") for text in told)
    assert all("allowing for the 5 rules that were tried" in text for text in told)
    rng = np.random.default_rng(0)
    sample, guess = sample_of(0, rng, 3)
    assert (rule(guess).class_map() == sample.truth.class_map()).mean() > (guess.class_map() == sample.truth.class_map()).mean()


def test_what_changes_nothing_is_left_out():
    assert choice_of(12, specks=0) == (Postprocess(), ())


def test_too_few_images_or_groups_prove_nothing():
    assert choice_of(5, specks=3) == (Postprocess(), ())
    assert choice_of(12, specks=3, labels=[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]) == (Postprocess(), ())


def test_chance_alone_seldom_gives_a_rule():
    """Where a speck is as often there in the truth as not, rules help as often as they harm."""
    found = 0
    for seed in range(20):
        rng, trial = np.random.default_rng(seed), PostprocessTrial("mIoU", 10)
        for number in range(10):
            sample, guess = sample_of(number, rng, specks=1)
            if rng.random() < 0.5:
                both = np.maximum(sample.truth.class_map(), guess.class_map())
                sample = Sample.of(sample.key, sample.image, Segmentation.semantic(both, CLASSES))
            trial(sample, guess, {})
        found += trial.choice(list(range(10)))[0] != Postprocess()
    assert found <= 3  # 1 is expected


@pytest.mark.parametrize("names", [["sky", "road"], ["background", *map(str, range(9))]])
def test_without_a_background_or_with_many_classes_nothing_is_tried(names):
    classes = Classes.of(names)
    trial = PostprocessTrial("mIoU", 100)
    truth = Segmentation.semantic(np.zeros((8, 8), np.int64), classes)
    trial(Sample.of("a", np.zeros((1, 8, 8), np.uint8), truth), truth, {})
    assert trial.rules == [] and trial.choice([0]) == (Postprocess(), ())
