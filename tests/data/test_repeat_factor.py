"""Images that hold rare classes come more often, by the rule of LVIS."""

from collections import Counter

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.data.samplers import Sampler
from segwright.data.samplers.repeat_factor import RepeatFactor, repeat_factors
from segwright.data.samplers.uniform import Uniform
from segwright.data.store import ClassIndex, Store
from segwright.transforms.prepare import Preprocess

CLASSES = Classes.of(["background", "common", "rare"])


def store_of(*held: tuple[int, ...]) -> Store:
    """Images 4 x 6 named a, b, ...: background, and a pixel of each class that they hold."""

    def load(key: str) -> Sample:
        class_map = np.zeros((4, 6), int)
        class_map[1, list(held[ord(key) - ord("a")])] = held[ord(key) - ord("a")]
        return Sample.of(key, np.zeros((1, 4, 6), np.uint8), Segmentation.semantic(class_map, CLASSES))

    keys = tuple(chr(ord("a") + number) for number in range(len(held)))
    return Store(Dataset("memory", CLASSES, keys, load), Preprocess(channels=1))


def seen(sampler, store: Store, count: int, seed: int = 0) -> Counter:
    return Counter(sampler.choose(store, position, seed).key for position in range(count))


def test_factors_by_hand():
    index = ClassIndex(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]], bool), np.ones(3, np.int64))
    assert index.frequency.tolist() == [1, 0.5, 0.25]
    expected = [2**0.5, 1, 2, 1]  # the rarest class decides: sqrt(1 / 0.5), sqrt(1 / 0.25); the background is everywhere
    assert repeat_factors(index, 1.0).tolist() == pytest.approx(expected)
    assert repeat_factors(index, 0.3).tolist() == pytest.approx([1, 1, (0.3 / 0.25) ** 0.5, 1])
    assert repeat_factors(index, 0.001).tolist() == [1, 1, 1, 1]


def test_whole_repeats_come_each_round():
    store = store_of((2,), (), (), ())  # one of four: sqrt(1 / 0.25) is 2
    for round_ in range(3):
        keys = Counter(RepeatFactor(threshold=1.0).choose(store, 5 * round_ + n, 0).key for n in range(5))
        assert keys == {"a": 2, "b": 1, "c": 1, "d": 1}


def test_fractions_are_drawn_anew_each_round_and_hold_on_average():
    store = store_of((1,), (1,), (), ())  # two of four: sqrt(2) = 1.414 times, so 4.83 crops a round, which become 5
    rounds = [[RepeatFactor(threshold=1.0).choose(store, 5 * r + n, 0).key for n in range(5)] for r in range(400)]
    assert len({tuple(sorted(keys)) for keys in rounds}) > 1
    total = Counter(key for keys in rounds for key in keys)
    assert all({"a", "b", "c", "d"} <= set(keys) for keys in rounds)  # none comes less than once
    assert (total["a"] + total["b"]) / (total["c"] + total["d"]) == pytest.approx(2**0.5, rel=0.05)


def test_where_nothing_is_rare_images_come_as_they_do_by_uniform():
    store = store_of((1,), (1, 2), (1,), (1, 2), (1,))
    for position in range(20):
        assert RepeatFactor().choose(store, position, 7) == Uniform().choose(store, position, 7)


def test_position_seed_and_data_alone_decide():
    held = ((2,), (), (1,), (), (1,), ())
    fresh, used = store_of(*held), store_of(*held)
    sampler = RepeatFactor(threshold=1.0)
    for position in range(30):
        sampler.choose(used, position, 0)
    assert sampler.choose(fresh, 29, 0) == sampler.choose(used, 29, 0)
    assert seen(sampler, used, 100, seed=0) != seen(Uniform(), used, 100, seed=0)
    assert [sampler.choose(used, n, 0) for n in range(9)] != [sampler.choose(used, n, 1) for n in range(9)]


def test_a_share_is_centred_on_the_foreground():
    item = store_of((2,), ()).read("a")
    assert isinstance(RepeatFactor(), Sampler) and RepeatFactor().pixel(item, None, np.random.default_rng(0)) is None
    pixels = {tuple(RepeatFactor(share=1).pixel(item, None, np.random.default_rng(seed))) for seed in range(9)}
    assert pixels == {(1, 2)}


@pytest.mark.parametrize(("setting", "value"), [("threshold", 0), ("threshold", 2), ("share", 1.5)])
def test_settings_out_of_range_are_refused(setting, value):
    with pytest.raises(SettingError, match=f"{setting} is {value}; it is a"):
        RepeatFactor(**{setting: value})
