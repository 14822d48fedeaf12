"""Samples are decoded and resampled once, as far as memory allows."""

from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Sample
from segwright.core.errors import UsageError
from segwright.data import store
from segwright.data.store import Store, StoredSample
from segwright.transforms.prepare import Preprocess


def test_each_sample_is_decoded_once(truths):
    loaded = []
    data = replace(truths, load=lambda key: loaded.append(key) or truths.load(key))
    kept = Store(data, Preprocess(scale=(0.5, 0.5)))
    for _ in range(3):
        assert kept.read("s1").sample.image.shape == (3, 6, 8)
    assert loaded == ["s1"]


def test_a_full_store_changes_nothing_but_time(truths, monkeypatch):
    expected = Store(truths, Preprocess()).read("s1").sample
    monkeypatch.setattr(store, "CACHE_BYTES", 0)
    kept = Store(truths, Preprocess())
    assert np.array_equal(kept.read("s1").sample.image, expected.image) and not kept.items


def test_positions_are_those_of_the_class_map(truths):
    item = Store(truths, Preprocess()).read("s2")
    for k in range(3):
        np.testing.assert_array_equal(item.positions.of(k), np.flatnonzero(item.sample.truth.class_map() == k))
    assert item.positions is item.positions


def test_a_sample_without_truth_has_no_positions():
    with pytest.raises(UsageError, match="sample 'a' has no truth"):
        _ = StoredSample(Sample.of("a", np.zeros((1, 2, 2), np.uint8))).positions
