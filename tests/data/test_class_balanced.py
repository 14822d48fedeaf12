"""Rare classes are seen as often as common ones."""

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.data.samplers import Sampler
from segwright.data.samplers.class_balanced import ClassBalanced
from segwright.data.samplers.uniform import Uniform
from segwright.data.store import Store
from segwright.data.stored_sample import StoredSample
from segwright.transforms.prepare import Preprocess


def item_of(class_map: np.ndarray | None, classes: Classes | None = None) -> StoredSample:
    shape = (1, 100, 100) if class_map is None else (1, *class_map.shape)
    truth = None if class_map is None else Segmentation.semantic(class_map, classes)
    return StoredSample.of(Sample.of("a", np.zeros(shape, np.uint8), truth))


@pytest.fixture
def rare() -> np.ndarray:
    class_map = np.zeros((100, 100), int)
    class_map[90, 95], class_map[50:60, 3] = 1, 2
    return class_map


def test_each_class_is_as_likely_whatever_its_size(rare):
    item = item_of(rare)
    pixels = [ClassBalanced(share=1).pixel(item, None, np.random.default_rng(seed)) for seed in range(300)]
    seen = [rare[tuple(pixel)] for pixel in pixels]
    assert all(70 <= seen.count(k) <= 130 for k in range(3))  # 100 expected; 3.7 standard deviations to both sides


def test_the_share_is_kept_and_the_rest_lies_anywhere(rare):
    item = item_of(rare)
    pixels = [ClassBalanced(share=0.25).pixel(item, None, np.random.default_rng(seed)) for seed in range(400)]
    assert 65 <= sum(pixel is not None for pixel in pixels) <= 135


def test_where_nothing_is_known_crops_lie_anywhere():
    for item in (item_of(None), item_of(np.full((4, 4), -1))):
        assert ClassBalanced(share=1).pixel(item, None, np.random.default_rng(0)) is None


def test_a_class_that_left_the_image_is_no_target():
    truth = Segmentation.semantic(np.zeros((8, 8), int), Classes.of(["a", "b"]))
    gone = Segmentation(truth.planes, np.array([0, 1], np.int32), np.zeros(2, np.int32), np.ones(2, np.float32), truth.classes)
    item = StoredSample.of(Sample.of("a", np.zeros((1, 8, 8), np.uint8), gone))
    for seed in range(8):
        assert ClassBalanced(share=1).pixel(item, None, np.random.default_rng(seed)).shape == (2,)


@pytest.mark.parametrize("sampler", [Uniform(), ClassBalanced()])
def test_each_round_sees_each_image_once_in_an_order_of_its_own(sampler):
    keys = tuple("abcdefgh")
    store = Store(Dataset("memory", Classes.of(["a"]), keys, item_of), Preprocess())
    rounds = [[sampler.choose(store, position, 3).key for position in range(8 * r, 8 * r + 8)] for r in range(3)]
    assert all(sorted(order) == sorted(keys) for order in rounds) and rounds[0] != rounds[1] != rounds[2]
    assert isinstance(sampler, Sampler)


def test_with_one_seed_both_draw_alike_where_no_class_is_asked_for(rare):
    ours, theirs = np.random.default_rng(0), np.random.default_rng(0)
    assert Uniform().pixel(item_of(rare), None, ours) is None is ClassBalanced(share=0).pixel(item_of(rare), None, theirs)
    assert ours.random() == theirs.random()


def test_a_share_that_is_none_is_refused():
    with pytest.raises(SettingError, match="share is 1.5; it is a probability"):
        ClassBalanced(share=1.5)
