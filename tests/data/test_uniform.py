"""Any place in any image."""

import numpy as np

from segwright.core import Classes, Dataset, Sample
from segwright.data.samplers import Sampler
from segwright.data.samplers.uniform import Uniform
from segwright.data.store import Store
from segwright.data.stored_sample import StoredSample
from segwright.transforms.prepare import Preprocess


def test_no_pixel_is_preferred_and_one_number_is_drawn():
    ours, theirs = np.random.default_rng(0), np.random.default_rng(0)
    assert Uniform().pixel(StoredSample.of(Sample.of("a", np.zeros((1, 4, 4), np.uint8))), None, ours) is None
    theirs.random()
    assert ours.random() == theirs.random() and isinstance(Uniform(), Sampler)


def test_each_image_is_seen_as_often():
    keys = tuple("abc")
    store = Store(Dataset("memory", Classes.of(["a"]), keys, Sample.of), Preprocess())
    seen = [Uniform().choose(store, position, 0).key for position in range(30)]
    assert all(seen.count(key) == 10 for key in keys)
