"""Samples are decoded and resampled once, as far as memory allows."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from segwright.core import Segmentation
from segwright.core.errors import UsageError
from segwright.data import store
from segwright.data.disk_samples import DiskSamples
from segwright.data.store import ClassIndex, Store
from segwright.transforms.normalise import Normalise
from segwright.transforms.prepare import Preprocess


def test_each_sample_is_decoded_once(truths):
    loaded = []
    data = replace(truths, load=lambda key: loaded.append(key) or truths.load(key))
    kept = Store(data, Preprocess(scale=(0.5, 0.5)))
    for _ in range(3):
        assert kept.read("s1").image.shape == (3, 6, 8)
    assert loaded == ["s1"]


def test_a_full_store_changes_nothing_but_time(truths, monkeypatch):
    expected = Store(truths, Preprocess()).read("s1")
    monkeypatch.setattr(store, "CACHE_BYTES", 0)
    kept = Store(truths, Preprocess())
    assert np.array_equal(kept.read("s1").image, expected.image) and not kept.items


@pytest.fixture
def counted(truths, monkeypatch, tmp_path):
    """A store that keeps all it can on disk, and the keys that were decoded for it."""
    monkeypatch.setattr(store, "CACHE_BYTES", 0)
    monkeypatch.setattr(store, "LARGE", 0)
    loaded = []
    data = replace(truths, load=lambda key: loaded.append(key) or truths.load(key))
    return Store(data, Preprocess(), DiskSamples((8, 8), tmp_path)), loaded


def test_what_memory_does_not_hold_is_decoded_once_and_read_from_disk(counted, truths):
    kept, loaded = counted
    item = [kept.read("s1") for _ in range(3)][-1]
    assert loaded == ["s1"] and item.folder is not None and not kept.bytes
    assert np.array_equal(item.whole().image, Store(truths, Preprocess()).read("s1").image)


def test_what_was_removed_from_disk_is_made_again(counted):
    kept, loaded = counted
    shutil.rmtree(kept.read("s1").folder)
    assert kept.read("s1").whole().image.shape == (3, 12, 16) and loaded == ["s1", "s1"]


def test_threads_that_ask_for_one_sample_wait_for_one_of_them(counted):
    kept, loaded = counted
    with ThreadPoolExecutor(4) as pool:
        items = list(pool.map(kept.read, ["s1", "s2"] * 8))
    assert sorted(loaded) == ["s1", "s2"] and len(set(map(id, items))) == 2


def test_small_samples_are_not_worth_a_place_on_disk(counted, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "LARGE", 1 << 20)
    assert counted[0].read("s1").folder is None and not list(tmp_path.iterdir()) and not counted[0].items


def test_memory_is_reckoned_in_what_samples_take_there(truths):
    as_in_files = Normalise(mean=(1.0,) * 3, std=(2.0,) * 3)
    behind = Preprocess(channels=2, class_channels=1, normalise=Normalise(mean=(1.0,) * 2, std=(2.0,) * 2))
    for preprocess in (Preprocess(scale=(0.5, 2.0)), Preprocess(normalise=as_in_files), behind):
        kept = Store(truths, preprocess)
        whole = kept.read("s1").whole()
        assert kept.bytes == whole.image.nbytes + whole.truth.planes.nbytes


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
