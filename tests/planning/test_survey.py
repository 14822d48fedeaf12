"""Samples are looked at once, for their fingerprint and for the check."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Sample
from segwright.core.errors import FormatError, ShapeError, UsageError
from segwright.planning.survey import Survey


def counted(data, loaded: list[str]):
    return replace(data, load=lambda key: loaded.append(key) or data.load(key))


def test_no_sample_is_decoded_twice(truths):
    loaded, loaded_val = [], []
    survey = Survey.of(counted(truths, loaded), counted(truths.subset(["s1", "s2"]), loaded_val))
    survey.check(3, 60)
    assert sorted(loaded) == sorted(truths.keys) and loaded_val == ["s1", "s2"]
    assert survey.found.count == 6


def test_the_check_ends_with_its_time_and_says_so(truths, caplog):
    caplog.set_level(logging.INFO)
    survey = Survey.of(truths, truths)
    survey.check(3, 0)
    assert "looked through 6 of 12 samples" in caplog.text


def test_channels_that_do_not_fit_are_named(truths):
    with pytest.raises(ShapeError, match="sample 's0': the image has 3 channels, 5 are needed"):
        Survey.of(truths, truths).check(5, 60)


def test_what_nobody_can_learn_from_is_named(truths):
    blank = replace(truths, load=lambda key: replace(truths.load(key), truth=None))
    with pytest.raises(UsageError, match="sample 's0' has no mask to learn from"):
        Survey.of(blank, truths)

    def without_values(key):
        sample = truths.load(key)
        return Sample(key, np.full(sample.image.shape, np.nan, np.float32), sample.grid, sample.truth)

    with pytest.raises(FormatError, match="channel 0 holds no value in 6 images"):
        Survey.of(replace(truths, load=without_values), truths)


def test_what_looks_like_nodata_is_told(truths, caplog):
    def with_strip(key):
        sample = truths.load(key)
        image = np.random.default_rng(0).uniform(300, 310, sample.image.shape).astype(np.float32)
        image[:, :, :3] = -9999
        return replace(sample, image=image)

    Survey.of(replace(truths, load=with_strip), truths)
    assert "6 of 6 images have areas of one number far off all their others, such as -9999 in s0" in caplog.text
    caplog.clear()
    Survey.of(truths, truths)
    assert not caplog.text
