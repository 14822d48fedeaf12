"""Samples are decoded and resampled once, as far as memory allows."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.data import store
from segwright.data.store import ClassIndex, Store, StoredSample
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


def test_the_index_says_which_classes_each_sample_holds(truths):
    index = Store(truths, Preprocess(scale=(0.5, 0.5))).index
    assert index.holds.tolist() == [[True, True, k > 0] for k in range(6)]
    assert index.frequency.tolist() == [1, 1, 5 / 6] and index.images[2].tolist() == [1, 2, 3, 4, 5]
    class_maps = [truths.load(key).truth.class_map() for key in truths.keys]
    assert index.pixels.tolist() == [sum((found == k).sum() for found in class_maps) for k in range(3)]


def test_the_index_takes_one_pass_and_keeps_no_sample(truths):
    loaded = []
    data = replace(truths, load=lambda key: loaded.append(key) or truths.load(key))
    kept = Store(data, Preprocess())
    with ThreadPoolExecutor(4) as pool:
        indices = list(pool.map(lambda _: kept.index, range(8)))
    assert loaded == list(truths.keys) and not kept.items and all(index is indices[0] for index in indices)


def test_the_index_asks_for_masks_alone_where_they_can_be_had_without_images(truths):
    class Load:
        def __call__(self, key):
            raise UsageError("has an image that nobody needs")

        def without_image(self, key):
            return truths.load(key)

    assert Store(replace(truths, load=Load()), Preprocess()).index.holds.shape == (6, 3)
    broken = replace(truths, load=Load().__call__)
    with pytest.raises(UsageError, match="sample 's0': has an image"):
        _ = Store(broken, Preprocess()).index


def test_samples_without_truth_and_segments_of_one_class_count_right():
    two = Segmentation.instances(np.eye(2, dtype=bool)[:, None, :], [0, 0])
    index = ClassIndex.of([None, two], 1)
    assert index.holds.tolist() == [[False], [True]] and index.pixels.tolist() == [2]
    assert ClassIndex.of([], 2).holds.shape == (0, 2) and ClassIndex.of([], 2).frequency.tolist() == [0, 0]
