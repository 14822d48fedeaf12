"""Nearest distances: by hand, by a slow twin, by laws of distances; the search and the transform alike."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.metrics import nearest_distance as module
from segwright.metrics.nearest_distance import box_of_cells, nearest_distance, neighbourhood, row_starts, transformed


def points(generator, shape):
    """Some cells of a grid in rising order, int32 (M, 3)."""
    size = int(np.prod(shape))
    chosen = np.sort(generator.choice(size, generator.integers(1, min(size, 50) + 1), replace=False))
    return np.stack(np.unravel_index(chosen, shape), axis=1).astype(np.int32)


def twin(ours, theirs, spacing):
    """All pairs of distances."""
    return np.linalg.norm((ours[:, None] - theirs[None]) * np.array(spacing), axis=2).min(axis=1)


# By hand


def test_of_two_points():
    np.testing.assert_array_equal(nearest_distance(np.int32([[0, 0, 0]]), np.int32([[0, 1, 2]]), (1.0, 3.0, 2.0)), [5.0])


def test_of_itself_is_nothing():
    some = np.int32([[0, 0, 0], [3, 1, 2]])
    np.testing.assert_array_equal(nearest_distance(some, some, (1.0, 1.0, 1.0)), [0.0, 0.0])


def test_without_points_and_without_sites():
    none, one = np.zeros((0, 3), np.int32), np.zeros((1, 3), np.int32)
    assert nearest_distance(none, one, (1.0, 1.0, 1.0)).shape == (0,)
    np.testing.assert_array_equal(nearest_distance(one, none, (1.0, 1.0, 1.0)), [np.inf])


def test_the_box_holds_the_first_and_the_last():
    np.testing.assert_array_equal(box_of_cells(np.int32([[1, 9, 4], [2, 3, 4]])), [[1, 3, 4], [2, 9, 4]])


def test_rows_begin_where_their_sites_do():
    sites = np.int32([[1, 2, 0], [1, 2, 5], [2, 4, 1]])
    np.testing.assert_array_equal(row_starts(sites, np.array([1, 2]), np.array([2, 4])), [0, 2, 2, 2, 2, 2, 3])


def test_the_neighbourhood_begins_at_home():
    offsets, squared = neighbourhood((2.0, 1.0, 1.0), False)
    np.testing.assert_array_equal(offsets[0], 0)
    assert (np.diff(squared) >= 0).all() and {tuple(offset) for offset in offsets[1:5]} == {
        *((0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0))
    }


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.5, 0.5), (1e6, 1.0, 1.0), (1.0, 1.0, 1e-3), (1.0, 1e6, 1.0)])
@pytest.mark.parametrize("is_flat", [True, False])
def test_the_neighbourhood_is_a_whole_ball_of_bounded_size(spacing, is_flat):
    offsets, squared = neighbourhood(spacing, is_flat)
    assert 1 <= len(offsets) <= 1.5 * module.CELLS  # balls of few cells are ragged
    held = {tuple(offset) for offset in offsets.tolist()}
    assert all((-z, -y, -x) in held for z, y, x in held)
    for axis in range(is_flat, 3):
        beyond = (np.abs(offsets[:, axis]).max() + 1) * spacing[axis]
        assert beyond**2 > squared[-1]  # no nearer cell is missing


# By a slow twin


@pytest.mark.parametrize("cells, looks", [(16384, 64), (1, 1), (40, 0), (50, 2), (400, 5)])  # all but the first mix both ways
@pytest.mark.parametrize("seed", range(20))
def test_equals_all_pairs(monkeypatch, seed, cells, looks):
    for name, value in (("CELLS", cells), ("LOOKS_PER_POINT", looks), ("LOOKS_PER_CELL", 8 if looks == 64 else 0)):
        monkeypatch.setattr(module, name, value)
    neighbourhood.cache_clear()
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 20, 3) * [seed % 2, 1, 1] + [1 - seed % 2, 0, 0]
    ours, theirs, spacing = points(generator, shape), points(generator, shape), tuple(generator.uniform(0.3, 4, 3))
    expected = twin(ours, theirs, spacing)
    np.testing.assert_allclose(nearest_distance(ours, theirs, spacing), expected, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(transformed(ours, theirs, spacing)), expected, rtol=1e-12)
    neighbourhood.cache_clear()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_equals_all_pairs_between_surfaces(spacing):
    """Neighbours are close here, as on the borders of masks, so that most cells are left out for what is known of them."""
    z, y, x = np.indices((30, 40, 40))
    bowl = np.argwhere(z == (y - 20) ** 2 // 16 + (x - 20) ** 2 // 64).astype(np.int32)
    wave = np.argwhere(z == np.rint(12 + 5 * np.sin(y / 4) + x / 9).astype(int)).astype(np.int32)
    np.testing.assert_allclose(nearest_distance(bowl, wave, spacing), twin(bowl, wave, spacing), rtol=1e-12)
    np.testing.assert_allclose(nearest_distance(wave, bowl, spacing), twin(wave, bowl, spacing), rtol=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1e-3), (1e3, 1.0, 1.0), (1.0, 1e-3, 1e3)])
def test_very_unequal_steps_take_no_more_memory(spacing):
    generator = np.random.default_rng(0)
    ours, theirs = (points(generator, (9, 10, 11)) for _ in range(2))
    np.testing.assert_allclose(nearest_distance(ours, theirs, spacing), twin(ours, theirs, spacing), rtol=1e-12)
    tracemalloc.start()
    nearest_distance(ours, theirs, spacing)
    assert tracemalloc.get_traced_memory()[1] < 2**20  # the neighbourhood, mostly
    tracemalloc.stop()


def test_equals_all_pairs_far_apart():
    """A small ball in a large sphere: everything is about equally far, where a tree of points has to look at all of them."""
    z, y, x = np.indices((60, 60, 60)) - 30
    radius = np.sqrt(z**2 + y**2 + x**2)
    ball, sphere = (np.argwhere(mask).astype(np.int32) for mask in (radius < 3, (radius > 27) & (radius < 28)))
    np.testing.assert_allclose(nearest_distance(ball, sphere, (1.0, 1.0, 1.0)), twin(ball, sphere, (1.0, 1.0, 1.0)), rtol=1e-12)


# By laws


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_scales_with_the_spacing_and_does_not_depend_on_the_place(seed, factor):
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 15, 3)
    ours, theirs, spacing = points(generator, shape), points(generator, shape), tuple(generator.uniform(0.3, 4, 3))
    distances = nearest_distance(ours, theirs, spacing)
    larger = tuple(factor * step for step in spacing)
    np.testing.assert_allclose(nearest_distance(ours, theirs, larger), factor * distances, rtol=1e-12)
    moved = np.int32([7, -20, 3])
    np.testing.assert_array_equal(nearest_distance(ours + moved, theirs + moved, spacing), distances)
