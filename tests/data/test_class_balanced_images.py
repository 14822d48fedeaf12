"""A class is drawn first, then an image that holds it, then a crop on it."""

from collections import Counter

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import UsageError
from segwright.data.samplers import Sampler
from segwright.data.samplers.class_balanced_images import ClassBalancedImages
from segwright.data.store import Store
from segwright.transforms.prepare import Preprocess

CLASSES = Classes.of(["background", "common", "rare", "never"])
HELD = {"a": (1,), "b": (1,), "c": (1, 2), "d": ()}


def load(key: str) -> Sample:
    class_map = np.zeros((4, 6), int)
    for k in HELD[key]:
        class_map[k, 2] = k
    return Sample.of(key, np.zeros((1, 4, 6), np.uint8), Segmentation.semantic(class_map, CLASSES))


@pytest.fixture
def store() -> Store:
    return Store(Dataset("memory", CLASSES, tuple(HELD), load), Preprocess(channels=1))


def test_each_class_comes_once_a_round_and_its_images_in_turn(store):
    choices = [ClassBalancedImages().choose(store, position, 0) for position in range(36)]
    for first in range(0, 36, 3):
        assert {choice.class_id for choice in choices[first : first + 3]} == {0, 1, 2}
    images = {k: Counter(choice.key for choice in choices if choice.class_id == k) for k in range(3)}
    assert images[0] == dict.fromkeys("abcd", 3) and images[1] == dict.fromkeys("abc", 4) and images[2] == {"c": 12}


def test_the_crop_lies_on_the_class_that_the_image_came_for(store):
    sampler, item = ClassBalancedImages(), store.read("c")
    assert isinstance(sampler, Sampler)
    for k in (1, 2):
        assert tuple(sampler.pixel(item, k, np.random.default_rng(0))) == (k, 2)
    assert sampler.pixel(item, 3, np.random.default_rng(0)) is None  # which resampling may have taken away


def test_position_seed_and_data_alone_decide(store):
    sampler = ClassBalancedImages()
    ahead = [sampler.choose(store, position, 0) for position in range(12)]
    fresh = Store(store.dataset, store.preprocess)
    assert [sampler.choose(fresh, position, 0) for position in reversed(range(12))] == ahead[::-1]
    assert [sampler.choose(store, position, 1) for position in range(12)] != ahead


def test_masks_that_hold_nothing_are_named_with_a_way_out():
    keys = ("a",)
    data = Dataset("here", CLASSES, keys, lambda key: Sample.of(key, np.zeros((1, 4, 6), np.uint8)))
    with pytest.raises(UsageError, match="no mask of here holds a class; .*--set sampler.kind=uniform"):
        ClassBalancedImages().choose(Store(data, Preprocess(channels=1)), 0, 0)
