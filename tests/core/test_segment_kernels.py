"""Passes over pixels by runs, against numpy. Axes: n pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.core import segment_kernels as kernels

SIZES = [0, 1, 2, 63, 64, 65, 66, 127, 255, 256, 257, 513, 4095, 4097, 8200]  # around the blocks that are compared at once


def line_of(size, seed=0):
    """Runs of all lengths around that of a block, int32 (size,) of values -1..4."""
    generator = np.random.default_rng(seed)
    values, lengths = generator.integers(-1, 5, size + 1), generator.integers(1, 140, size + 1)
    return np.repeat(values, lengths)[:size].astype(np.int32)


# By a slow twin


@pytest.mark.parametrize("size", SIZES)
def test_areas_and_masks(size):
    planes = np.stack([line_of(size, seed) for seed in range(3)])
    counts, found = np.zeros(4, np.int64), np.zeros((4, size), bool)
    kernels.areas(planes, counts)
    for plane in planes:
        kernels.masks(plane, 0, size // 3, found)
        kernels.masks(plane, size // 3, size, found)
    np.testing.assert_array_equal(counts, [(planes == i + 1).sum() for i in range(4)])
    np.testing.assert_array_equal(found, [(planes == i + 1).any(axis=0) for i in range(4)])


@pytest.mark.parametrize("size", SIZES)
def test_labels_are_looked_up(size):
    labels, table, result = line_of(size), np.arange(10, 16, dtype=np.int32), np.empty(size, np.int32)
    is_there = np.zeros(6, bool)
    kernels.look_up(labels, table, result)
    kernels.classes_present(labels, is_there)
    np.testing.assert_array_equal(result, labels + 11)
    np.testing.assert_array_equal(np.flatnonzero(is_there) - 1, np.unique(labels))


def slow_extent(mask):
    rows, columns = np.nonzero(mask)
    return [rows.min(), rows.max() + 1, columns.min(), columns.max() + 1] if len(rows) else [0, 0, 0, 0]


@pytest.mark.parametrize("width", [1, 2, 7, 8, 127, 128, 129, 300, 519])
@pytest.mark.parametrize("seed", range(4))
def test_the_extents_of_masks(width, seed):
    """Of 0, 1, 2 and many pixels, which are bytes of any value, at any place within a word."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((9, 5, width), np.uint8)
    for mask in masks:
        count = [0, 1, 2, 40][seed]
        mask[generator.integers(1, 5, count), generator.integers(0, width, count)] = generator.integers(1, 256, count)
    words = masks.reshape(-1)[: masks.size // 8 * 8].view(np.uint64)
    found = np.full((9, 4), -1)
    kernels.extents(masks, words, 0, 4, found)
    assert (found[4:] == -1).all()
    kernels.extents(masks, words, 4, 9, found)
    np.testing.assert_array_equal(found, [slow_extent(mask) for mask in masks])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 255)), max_size=20), st.integers(0, 255))
def test_bits_below_a_mask(pixels, bits):
    mask = np.array([[is_set for is_set, _ in pixels]], np.uint8).reshape(1, -1)
    taken = np.array([[byte for _, byte in pixels]], np.uint8).reshape(1, -1)
    extent = np.array([0, 1, 0, len(pixels)])
    assert kernels.bits_below(mask, extent, taken) == np.bitwise_or.reduce(taken[mask > 0], initial=0)
    expected = np.where(mask, taken | bits, taken)
    kernels.set_below(mask, extent, np.uint8(bits), taken)
    np.testing.assert_array_equal(taken, expected)


# By hand


def test_boxes_widen():
    low, high = np.full((2, 2), 9), np.full((2, 2), -1)
    kernels.boxes(np.array([[[0, 1, 1], [1, 0, -1]], [[7, 0, 0], [0, 0, 0]]], np.int32), low, high)
    assert low.tolist() == [[0, 0], [9, 9]]
    assert high.tolist() == [[2, 1], [-1, -1]]


def test_only_known_segments_have_a_class():
    class_of, result = np.array([-1, -1, 5], np.int32), np.empty(3, np.int32)
    assert kernels.class_map(np.array([[0, 1, -1]], np.int32), class_of, result)
    assert result.tolist() == [-1, 5, -1]
    assert not kernels.class_map(np.array([[0, 2, -1]], np.int32), class_of, result)


def test_numbers_are_written_below_a_mask():
    plane = np.zeros((2, 3), np.int32)
    kernels.write_below(np.array([[0, 0, 0], [1, 0, 1]], np.uint8), np.array([1, 2, 0, 3]), np.int32(4), plane)
    assert plane.tolist() == [[0, 0, 0], [4, 0, 4]]
