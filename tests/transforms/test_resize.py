import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core import Grid, Sample, Segmentation
from segwright.core.errors import SettingError
from segwright.transforms.resize import resize, resize_grid, resize_image, resize_labels, resize_part, scaled

# By hand


def test_half_the_size_by_hand():
    image = np.array([[[0, 0, 80, 80]] * 2], np.uint8)
    class_map = np.array([[0, 1, 2, 3]] * 2)
    affine = np.diag([2.0, 3.0, 1.0])
    result = resize(Sample("a", image, Grid((2, 4), (2.0, 3.0), affine), Segmentation.semantic(class_map)), (1, 2))
    np.testing.assert_array_equal(result.image, [[[11, 69]]])  # 80 / 7 and 480 / 7: weights 3, 3, 1 and 1, 3, 3
    assert result.image.dtype == np.uint8
    np.testing.assert_array_equal(result.truth.class_map(), [[1, 3]])
    assert result.grid.spacing_mm == (4.0, 6.0)
    np.testing.assert_allclose(result.grid.affine @ [0, 0, 1], [1, 1.5, 1])  # the centre of the first new pixel


def test_its_own_shape_gives_the_same_sample():
    sample = Sample.of("a", np.zeros((1, 5, 5), np.uint8))
    assert resize(sample, (5, 5)) is sample


def test_a_factor_per_axis():
    assert scaled((10, 20, 30), (0.5, 1, 0.01)) == (5, 20, 1)


def test_a_single_pixel_remains():
    sample = Sample.of("a", np.full((1, 3, 2), 9, np.uint16))
    assert resize(sample, (1, 1)).image.tolist() == [[[9]]]
    np.testing.assert_array_equal(resize(resize(sample, (1, 1)), (4, 4)).image, np.full((1, 4, 4), 9))


# By a slow twin


@pytest.mark.parametrize("shape", [(7, 9), (31, 12), (40, 55), (1, 1), (20, 30)])
def test_images_equal_the_antialiased_resize_of_torch(shape):
    image = np.random.default_rng(0).normal(100, 20, (3, 20, 30)).astype(np.float32)
    twin = torch.nn.functional.interpolate(torch.from_numpy(image)[None], shape, mode="bilinear", antialias=True)[0]
    np.testing.assert_allclose(resize_image(image, shape), twin, rtol=2e-5)


@pytest.mark.parametrize("shape", [(7, 9), (31, 12), (20, 61)])
def test_labels_equal_the_exact_nearest_of_torch(shape):
    planes = np.random.default_rng(0).integers(-1, 9, (2, 20, 30)).astype(np.int32)
    twin = torch.nn.functional.interpolate(torch.from_numpy(planes)[None].double(), shape, mode="nearest-exact")[0]
    np.testing.assert_array_equal(resize_labels(planes, shape), twin)


@pytest.mark.parametrize("shape", [(7, 9), (31, 12), (40, 55), (1, 1), (3, 30)])
def test_missing_values_count_for_nothing(shape):
    rng = np.random.default_rng(0)
    image = rng.normal(100, 20, (3, 20, 30)).astype(np.float32)
    image[rng.random(image.shape) < 0.3] = np.nan
    image[:, :, :9] = np.nan
    weigh = [np.array([resize_image(row[None, :, None], (new, 1))[0, :, 0] for row in np.eye(old, dtype=np.float32)]).T
             for old, new in zip(image.shape[1:], shape, strict=True)]  # (T, S) for each axis  # fmt: skip
    weights = np.einsum("yi,xj,cij->cyx", *weigh, np.isfinite(image))
    expected = np.einsum("yi,xj,cij->cyx", *weigh, np.nan_to_num(image)) / np.maximum(weights, 1e-9)
    result = resize_image(image, shape)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(resize_labels(image, shape)))
    np.testing.assert_allclose(result, np.where(np.isnan(result), np.nan, expected), rtol=1e-4)


# By a law


@settings(max_examples=30)
@given(scale=st.floats(0.2, 3), axes=st.sampled_from([2, 3]), dtype=st.sampled_from([np.uint8, np.int32, np.float32]))
def test_a_slope_stays_a_slope_over_the_same_field_of_view(scale, axes, dtype):
    side = (20, 24, 16)[:axes]
    image = np.broadcast_to(np.arange(side[-1], dtype=dtype) * 10, (2, *side))
    result = resize(Sample("a", image, Grid(side, (1.0,) * axes, np.eye(axes + 1))), scaled(side, (scale,) * axes))
    index = [np.arange(n) for n in result.grid.shape]
    column = index[-1] * result.grid.affine[-2, -2] + result.grid.affine[-2, -1]  # source column of each new one
    inner = (column > 1 / scale + 1) & (column < side[-1] - 2 - 1 / scale)
    line = result.image.reshape(-1, len(column))[0]
    assert np.abs(line[inner] - 10 * column[inner]).max(initial=0) <= 1.5  # a slope of 10: 0.1 pixel, and the rounding
    np.testing.assert_allclose(np.array(result.grid.spacing_mm) * result.grid.shape, side)


def test_sizes_multiply_back():
    grid = Grid((10, 20), (1.0, 2.0), np.array([[0, 2.0, 5], [1, 0, -3], [0, 0, 1]]))
    back = resize_grid(resize_grid(grid, (4, 33)), (10, 20))
    np.testing.assert_allclose(back.affine, grid.affine, atol=1e-12)
    np.testing.assert_allclose(back.spacing_mm, grid.spacing_mm)


# By its messages


@pytest.mark.parametrize("scale", [0, -1, float("nan")])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(SettingError, match="above 0, such as 0.5"):
        scaled((5, 5), (1, scale))


@settings(max_examples=30)
@given(st.data())
def test_a_part_is_cut_out_of_the_whole_and_no_more_is_read(data):
    old, new = (tuple(data.draw(st.integers(1, 20)) for _ in range(2)) for _ in range(2))
    part = tuple(slice(start := data.draw(st.integers(0, side - 1)), data.draw(st.integers(start + 1, side))) for side in new)
    image = np.random.default_rng(sum(old)).normal(size=(2, *old)).astype(np.float32)
    image[:, np.random.default_rng(0).random(old) < data.draw(st.sampled_from([0, 0.2]))] = np.nan
    read = []
    found = resize_part(lambda window: read.append(window) or image[:, *window], old, new, part)
    np.testing.assert_allclose(found, resize_image(image, new)[:, *part], rtol=1e-5, atol=1e-6)
    for window, before, after, here in zip(*read, old, new, part, strict=True):
        triangle = math.ceil(2 * max(before / after, 1)) + 1
        assert 0 <= window.start < window.stop <= before
        assert window.stop - window.start <= (here.stop - here.start - 1) * before / after + 1 + triangle  # 1: both ends round
