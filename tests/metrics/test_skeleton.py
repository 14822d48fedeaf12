"""Thinning: by hand, against full scans, by what it must keep, and against scikit-image where that is installed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from segwright.core.errors import ShapeError
from segwright.metrics.skeleton import DIRECTIONS, PASSES, skeleton
from segwright.metrics.topology import betti_numbers


def noise(seed, shape):
    """A random mask, from single pixels to smooth blobs."""
    generator = np.random.default_rng(seed)
    level = ndimage.gaussian_filter(generator.normal(size=shape), (0, 0.7, 1.0, 1.5, 2.5)[seed % 5])
    return level > np.quantile(level, generator.uniform(0.2, 0.8))


def tubes(seed, size):
    """Bent tubes of several radii in a volume, with rough sides."""
    generator = np.random.default_rng(seed)
    line = np.zeros((size,) * 3, bool)
    for _ in range(4):
        place, way = generator.uniform(0, size, 3), generator.normal(size=3)
        while (place >= 0).all() and (place < size).all():
            line[tuple(place.astype(int))] = True
            way += generator.normal(size=3) * 0.15
            way /= np.linalg.norm(way)
            place = place + way / 2
    return ndimage.distance_transform_edt(~line) + generator.normal(size=line.shape) * 0.2 <= generator.uniform(1, 3)


# By hand


def test_a_bar_becomes_its_middle_line():
    mask = np.zeros((5, 9), bool)
    mask[1:4, 1:8] = True
    thin = skeleton(mask)
    assert thin[2, 3:6].all() and thin.any(axis=0).tolist() == [1 <= x <= 6 for x in range(9)] and thin.sum() == 6


def test_a_ring_stays_a_ring_and_a_ball_becomes_its_middle():
    y, x = np.mgrid[-9:10, -9:10]
    radius = np.hypot(y, x)
    ring = skeleton((radius < 9) & (radius > 3))
    assert betti_numbers(ring).tolist() == [1, 1]
    assert (np.abs(radius[ring] - 6) < 1.5).all()
    z, y, x = np.mgrid[-5:6, -5:6, -5:6]
    thin = skeleton(z * z + y * y + x * x <= 20)
    assert thin[5, 5, 5] and thin.sum() <= 2


@pytest.mark.parametrize("axes", [2, 3])
def test_nothing_and_one_pixel(axes):
    mask = np.zeros((4,) * axes, bool)
    assert not skeleton(mask).any()
    mask[(0,) * axes] = True
    np.testing.assert_array_equal(skeleton(mask), mask)
    assert skeleton(np.zeros((0,) * axes, bool)).shape == (0,) * axes


def test_the_table_removes_no_end_and_no_inner_pixel():
    assert PASSES[255] == PASSES[0] == 0
    assert all(PASSES[1 << bit] == 0 for bit in range(8))


# By slow twins


def slow_2d(mask):
    """Full scans in two passes."""
    mask = np.pad(mask, 1)
    ring = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
    before = None
    while before is None or not np.array_equal(before, mask):
        before = mask.copy()
        for turn in (1, 2):
            code = sum(np.roll(mask, (-y, -x), (0, 1)).astype(int) << bit for bit, (y, x) in enumerate(ring))
            mask = mask & (PASSES[code] & turn == 0)
    return mask[1:-1, 1:-1]


def slow_may_go(cube):
    """Whether the middle of a cube of 3 voxels a side can be removed without a change of topology."""
    without = cube.copy()
    without[1, 1, 1] = False
    return np.array_equal(betti_numbers(cube), betti_numbers(without)) and ndimage.label(without, np.ones((3, 3, 3)))[1] == 1


def slow_3d(mask):
    """Full scans from six sides."""
    mask = np.pad(mask, 1)

    def cube(place):
        return mask[tuple(slice(i - 1, i + 2) for i in place)].copy()

    before = None
    while before is None or not np.array_equal(before, mask):
        before = mask.copy()
        for side in DIRECTIONS:
            places = [place for place in np.argwhere(mask) if not mask[tuple(place + side)]]
            places = [place for place in places if cube(place).sum() != 2 and slow_may_go(cube(place))]
            for place in places:
                mask[tuple(place)] = not slow_may_go(cube(place))
    return mask[1:-1, 1:-1, 1:-1]


@pytest.mark.parametrize("seed", range(10))
def test_equals_full_scans(seed):
    np.testing.assert_array_equal(skeleton(noise(seed, (31, 37))), slow_2d(noise(seed, (31, 37))))
    if seed < 5:
        np.testing.assert_array_equal(skeleton(noise(seed, (7, 8, 9))), slow_3d(noise(seed, (7, 8, 9))))


# By laws


@settings(max_examples=300)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_topology_is_kept_in_2d(mask):
    check_law(mask)


@settings(max_examples=100)
@given(arrays(bool, st.tuples(*[st.integers(1, 6)] * 3)))
def test_topology_is_kept_in_3d(mask):
    check_law(mask)


@pytest.mark.parametrize("shape", [(50, 60), (14, 15, 16)])
@pytest.mark.parametrize("seed", range(20))
def test_topology_is_kept_in_larger_masks(seed, shape):
    check_law(noise(seed, shape))


def check_law(mask):
    thin = skeleton(mask)
    assert not (thin & ~mask).any()
    np.testing.assert_array_equal(betti_numbers(thin), betti_numbers(mask))
    np.testing.assert_array_equal(skeleton(thin), thin)


def test_leaves_its_input_alone():
    mask = noise(3, (20, 20))
    before = mask.copy()
    skeleton(mask)
    np.testing.assert_array_equal(mask, before)


# Beside scikit-image


@pytest.mark.parametrize("seed", range(20))
def test_equals_scikit_image_in_2d(seed):
    morphology = pytest.importorskip("skimage.morphology")
    mask = noise(seed, (70, 80))
    np.testing.assert_array_equal(skeleton(mask), morphology.skeletonize(mask))


@pytest.mark.parametrize("seed", range(6))
def test_equals_scikit_image_in_3d_up_to_voxels_that_hold_the_topology(seed):
    """The 26 neighbours of its candidates are counted in pieces only, so now and then it opens or closes a tunnel."""
    morphology = pytest.importorskip("skimage.morphology")
    for mask in (tubes(seed, 32), noise(seed, (15, 16, 17))):
        ours, theirs = skeleton(mask), morphology.skeletonize(mask).astype(bool)
        if np.array_equal(betti_numbers(theirs), betti_numbers(mask)):
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert (ours != theirs).sum() < 0.01 * theirs.sum()  # 24 of 60 387 voxels over 300 volumes


# By messages


def test_refuses_other_axes():
    with pytest.raises(ShapeError, match=r"the mask has 1 axes.*give one image \(H, W\)"):
        skeleton(np.zeros(4, bool))
