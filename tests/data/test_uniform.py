"""Any place in any image."""

import numpy as np

from segwright.core import Sample
from segwright.data.samplers import Sampler
from segwright.data.samplers.uniform import Uniform
from segwright.data.store import StoredSample


def test_no_pixel_is_preferred_and_one_number_is_drawn():
    ours, theirs = np.random.default_rng(0), np.random.default_rng(0)
    assert Uniform().pixel(StoredSample(Sample.of("a", np.zeros((1, 4, 4), np.uint8))), ours) is None
    theirs.random()
    assert ours.random() == theirs.random() and isinstance(Uniform(), Sampler)


def test_each_image_is_seen_as_often():
    keys = tuple("abc")
    seen = [Uniform().key(keys, position, 0) for position in range(30)]
    assert all(seen.count(key) == 10 for key in keys)
