"""Crops on what is no background, each class as often, in a time that does not grow with the image."""

import time

import numpy as np
import pytest

from segwright.core import Classes, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.data.samplers import Sampler
from segwright.data.samplers.class_balanced import ClassBalanced
from segwright.data.samplers.foreground_patches import ForegroundPatches
from segwright.data.samplers.uniform import Uniform
from segwright.data.stored_sample import StoredSample

CLASSES = Classes.of(["background", "cell", "wall"])


def item_of(class_map: np.ndarray | None, classes: Classes = CLASSES) -> StoredSample:
    shape = (1, 100, 100) if class_map is None else (1, *class_map.shape)
    truth = None if class_map is None else Segmentation.semantic(class_map, classes)
    return StoredSample.of(Sample.of("a", np.zeros(shape, np.uint8), truth))


@pytest.fixture
def rare() -> np.ndarray:
    class_map = np.zeros((100, 100), int)
    class_map[90, 95], class_map[50:60, 3] = 1, 2
    return class_map


def drawn(sampler, item, count: int) -> list[np.ndarray | None]:
    return [sampler.pixel(item, None, np.random.default_rng(seed)) for seed in range(count)]


def test_each_foreground_class_is_as_likely_whatever_its_size(rare):
    seen = [rare[tuple(pixel)] for pixel in drawn(ForegroundPatches(share=1), item_of(rare), 300)]
    assert seen.count(0) == 0 and 115 <= seen.count(1) <= 185  # 150 expected; 4 standard deviations to both sides


def test_without_a_background_all_is_foreground(rare):
    classes = Classes.of(["sky", "cell", "wall"])
    seen = [rare[tuple(pixel)] for pixel in drawn(ForegroundPatches(share=1), item_of(rare, classes), 300)]
    assert all(70 <= seen.count(k) <= 130 for k in range(3))


def test_a_third_of_the_crops_is_centred_unless_told_otherwise(rare):
    centred = sum(pixel is not None for pixel in drawn(ForegroundPatches(), item_of(rare), 600))
    assert 155 <= centred <= 245  # 200 expected; 4 standard deviations to both sides


def test_where_there_is_no_foreground_crops_lie_anywhere():
    for class_map in (None, np.full((4, 4), -1), np.zeros((4, 4), int)):
        assert ForegroundPatches(share=1).pixel(item_of(class_map), None, np.random.default_rng(0)) is None


def test_volumes_too(rare):
    volume = np.stack([np.zeros_like(rare), rare])
    pixels = drawn(ForegroundPatches(share=1), item_of(volume), 20)
    assert all(volume[tuple(pixel)] in (1, 2) for pixel in pixels)


def test_with_one_seed_samplers_draw_alike_where_no_class_is_asked_for(rare):
    after = []
    for sampler in (Uniform(), ClassBalanced(share=0), ForegroundPatches(share=0)):
        generator = np.random.default_rng(0)
        assert sampler.pixel(item_of(rare), None, generator) is None and isinstance(sampler, Sampler)
        after.append(generator.random())
    assert len(set(after)) == 1


def test_a_draw_takes_no_longer_in_a_larger_image():
    def seconds(side: int) -> float:
        class_map = np.zeros((side, side), np.int64)
        class_map[: side // 2] = 1
        item, generator = item_of(class_map), np.random.default_rng(0)
        ForegroundPatches(share=1).pixel(item, None, generator)  # which indexes the image
        times = []
        for _ in range(50):
            started = time.perf_counter()
            ForegroundPatches(share=1).pixel(item, None, generator)
            times.append(time.perf_counter() - started)
        return min(times)

    small, large = seconds(64), seconds(2048)  # 1024 times the pixels: a look at each of them would take 1 ms and more
    assert large < 4 * small + 1e-4


def test_a_share_that_is_none_is_refused():
    with pytest.raises(SettingError, match=r"share is -0\.1; it is a probability"):
        ForegroundPatches(share=-0.1)
