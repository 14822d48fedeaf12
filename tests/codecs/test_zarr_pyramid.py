"""Coarser levels of Zarr images. Axes: C, (D, H, W)."""

import numpy as np
import pytest

from segwright.codecs.zarr_pyramid import factors_of_levels, fill_levels, shape_of_level
from segwright.core import Grid


class InMemory:
    """An array with chunks, as of zarr."""

    def __init__(self, values, chunks):
        self.values, self.chunks, self.shape, self.ndim = values, chunks, values.shape, values.ndim

    def __getitem__(self, part):
        return self.values[part]

    def __setitem__(self, part, values):
        self.values[part] = values


def levels_of(values, grid, *, is_label, high=2):
    front = values.shape[: values.ndim - len(grid.shape)]
    shapes = [shape_of_level(grid, factors) for factors in factors_of_levels(grid)]
    chunks = (*(1 for _ in front), high, *(999 for _ in grid.shape[1:]))
    arrays = [InMemory(values, chunks), *(InMemory(np.zeros((*front, *each), values.dtype), chunks) for each in shapes[1:])]
    fill_levels(arrays, grid, is_label=is_label)
    return [array.values for array in arrays]


# By hand


def test_levels_end_with_a_thumbnail():
    assert factors_of_levels(Grid((256, 9))) == [(1, 1)]
    assert factors_of_levels(Grid((257, 1000))) == [(1, 1), (2, 2), (4, 4)]
    assert shape_of_level(Grid((257, 1000)), (4, 4)) == (65, 250)


def test_thick_slices_stay_until_pixels_are_as_wide():
    assert factors_of_levels(Grid((40, 2000, 2000), (5.0, 1.0, 1.0))) == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8)]
    assert factors_of_levels(Grid((1, 600, 600), (0.1, 1.0, 1.0))) == [(1, 1, 1), (1, 2, 2), (1, 4, 4)]  # one slice is no stack


def test_images_are_averaged_and_labels_picked():
    grid = Grid((3, 300))
    values = np.zeros((3, 300), np.uint8)
    values[:, :4] = [[0, 1, 9, 9], [2, 2, 9, 9], [7, 8, 200, 255]]
    assert levels_of(values[None], grid, is_label=False)[1][0, :, :2].tolist() == [[1, 9], [8, 228]]  # 1.25, 9, 7.5, 227.5
    assert levels_of(values, grid, is_label=True)[1][:, :2].tolist() == [[0, 9], [7, 200]]


# By a slow twin


@pytest.mark.parametrize("dtype", ["u1", "i2", "u8", "f2", "f4", "f8"])
def test_the_mean_of_blocks(dtype):
    grid = Grid((6, 4, 600))
    values = (np.random.default_rng(0).random((2, *grid.shape)) * 100).astype(dtype)
    found = levels_of(values, grid, is_label=False)
    assert [level.shape[1:] for level in found] == [(6, 4, 600), (3, 2, 300), (2, 1, 150)]
    for level in (0, 1):
        fine = found[level].astype(float)
        fine = np.pad(fine, [(0, 0), *((0, side % 2) for side in fine.shape[1:])], mode="edge")
        c, d, h, w = fine.shape
        mean = fine.reshape(c, d // 2, 2, h // 2, 2, w // 2, 2).mean(axis=(2, 4, 6))
        np.testing.assert_allclose(found[level + 1].astype(float), mean, atol=0.5 if dtype[0] in "iu" else 0.1)


# By a law


def test_labels_stay_among_those_of_their_block():
    grid = Grid((37, 1100))
    values = np.random.default_rng(0).integers(0, 1000, grid.shape)
    for factors, level in zip(factors_of_levels(grid), levels_of(values, grid, is_label=True, high=3), strict=True):
        for row, column in [(0, 0), (level.shape[0] - 1, 3), (1, level.shape[1] - 1)]:
            block = values[row * factors[0] : (row + 1) * factors[0], column * factors[1] : (column + 1) * factors[1]]
            assert level[row, column] in block


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64, np.float32])
def test_what_is_even_stays_as_it_is(dtype):
    high = np.finfo(dtype).max / 4 if dtype is np.float32 else np.iinfo(dtype).max - np.iinfo(dtype).max % 2**12
    values = np.full((1, 3, 300), high, dtype)
    close = levels_of(values, Grid((3, 300)), is_label=False)[1].astype(float)
    np.testing.assert_allclose(close, float(high), rtol=1e-12)


def test_what_is_not_known_spreads():
    values = np.ones((1, 2, 300), np.float32)
    values[0, 0, 0] = np.nan
    found = levels_of(values, Grid((2, 300)), is_label=False)[1][0]
    assert np.isnan(found[0, 0]) and (found[0, 1:] == 1).all()
