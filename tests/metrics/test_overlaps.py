import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from segwright.core import Segmentation
from segwright.core.errors import ShapeError
from segwright.metrics import overlaps as module
from segwright.metrics.overlaps import overlaps


def random_segmentation(generator, shape, planes, count):
    """Segments that may share no plane but pixels; some pixels are nothing, and in the first plane some are void."""
    own = generator.integers(0, planes, count)  # the plane of each segment
    layers = np.zeros((planes, *shape), np.int32)
    for plane in range(planes):
        mine = np.concatenate([[0], np.flatnonzero(own == plane) + 1])
        layers[plane] = generator.choice(mine, shape)
    layers[0][generator.random(shape) < 0.2] = -1
    flat = Segmentation.panoptic(np.zeros(shape, np.int32), np.zeros(count, int))
    return Segmentation(layers, flat.class_ids, flat.instance_ids, flat.scores, flat.classes)


def test_by_hand():
    prediction = Segmentation.panoptic(np.array([[1, 1, 2], [2, 0, -1]]), [0, 0])
    truth = Segmentation.panoptic(np.array([[1, 2, 2], [-1, 2, 1]]), [0, 0])
    found = overlaps(prediction, truth)
    assert_array_equal(found.predicted, [0, 0, 1])
    assert_array_equal(found.true, [0, 1, 1])
    assert_array_equal(found.pixels, [1, 1, 1])
    assert_array_equal(found.predicted_areas, [2, 2])
    assert_array_equal(found.true_areas, [2, 3])
    assert_array_equal(found.predicted_void, [0, 1])
    assert_array_equal(found.iou(), [1 / 3, 1 / 4, 1 / 4])


def test_nothing_shares_nothing():
    empty = Segmentation.panoptic(np.zeros((2, 2), int), [])
    found = overlaps(empty, Segmentation.semantic(np.zeros((2, 2), int)))
    assert len(found.pixels) == len(found.predicted_areas) == 0
    assert_array_equal(found.true_areas, [4])


@pytest.mark.parametrize("dense", [0, 2**22])
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(1, 1), (0, 3), (5, 7), (3, 4, 5)]),
    planes=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    counts=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_equals_masks_one_by_one(dense, seed, shape, planes, counts):
    generator = np.random.default_rng(seed)
    prediction, truth = (random_segmentation(generator, shape, p, n) for p, n in zip(planes, counts, strict=True))
    module.DENSE, before = dense, module.DENSE
    try:
        found = overlaps(prediction, truth)
    finally:
        module.DENSE = before
    table = np.zeros((len(prediction), len(truth)), int)
    table[found.predicted, found.true] = found.pixels
    ours, theirs = prediction.masks(), truth.masks()
    pixels = tuple(range(2, 2 + len(shape)))
    assert_array_equal(table, (ours[:, None] & theirs[None]).sum(axis=pixels))
    assert (found.pixels > 0).all() and len(found.pixels) == np.count_nonzero(table)
    assert_array_equal(found.predicted_areas, prediction.areas())
    assert_array_equal(found.true_areas, truth.areas())
    assert_array_equal(found.predicted_void, (ours & (truth.planes[0] == -1)).sum(axis=tuple(range(1, 1 + len(shape)))))


def test_sizes_that_differ_are_refused():
    one, other = (Segmentation.semantic(np.zeros(shape, int)) for shape in ((2, 3), (3, 2)))
    with pytest.raises(ShapeError, match="the prediction is 2 x 3 and the truth 3 x 2 pixels; predict at the size"):
        overlaps(one, other)
