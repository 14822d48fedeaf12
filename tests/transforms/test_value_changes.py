"""What holds for each change of values that a plan may ask for: blur, low resolution, JPEG, shadow, and intensity."""

import numpy as np
import pytest

from segwright.core import Grid, Sample, Segmentation
from segwright.transforms.gaussian_blur import GaussianBlur
from segwright.transforms.intensity import Intensity
from segwright.transforms.jpeg import Jpeg
from segwright.transforms.low_resolution import LowResolution
from segwright.transforms.shadow import Shadow

ALWAYS = {
    "blur": GaussianBlur(probability=1.0, sigma_px=(1.0, 1.0)),
    "low_resolution": LowResolution(probability=1.0, zoom=(0.5, 0.5)),
    "jpeg": Jpeg(probability=1.0, quality=(30, 30)),
    "shadow": Shadow(probability=1.0, light=(0.5, 0.5)),
    "intensity": Intensity(),
}
CERTAIN = [name for name in vars(Intensity()) if name.endswith("_probability")]
NEVER = {
    "blur": GaussianBlur(),
    "low_resolution": LowResolution(),
    "jpeg": Jpeg(),
    "shadow": Shadow(),
    "intensity": Intensity(**dict.fromkeys(CERTAIN, 0.0)),
}
changes = pytest.mark.parametrize("change", ALWAYS.values(), ids=ALWAYS)


def picture(shape, dtype=np.float32, seed=0) -> np.ndarray:
    """Coarse noise, so that each change is seen, from 40 to 200."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(40, 200, (shape[0], *(-(-side // 4) for side in shape[1:])))
    for axis in range(1, len(shape)):
        coarse = coarse.repeat(4, axis=axis)
    return coarse[(slice(None), *map(slice, shape[1:]))].astype(dtype)


def draws(seed=3):
    return np.random.default_rng(seed)


def sample_of(image, spacing_mm=None) -> Sample:
    truth = Segmentation.semantic(np.zeros(image.shape[1:], int))
    return Sample("a", image, Grid(image.shape[1:], spacing_mm), truth)


@pytest.mark.parametrize("change", NEVER.values(), ids=NEVER)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_off_is_the_sample_as_it_is(change, dtype):
    sample = sample_of(picture((3, 20, 24), dtype))
    assert change(sample, draws()) is sample


@changes
@pytest.mark.parametrize("shape", [(1, 20, 24), (3, 20, 24), (5, 20, 24), (2, 8, 12, 10)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_any_channels_and_types_in_float32_out(change, shape, dtype):
    image = picture(shape, dtype)
    sample, before = sample_of(image), image.copy()
    result = change(sample, draws())
    assert result.image.shape == shape and result.image.dtype == np.float32
    assert np.isfinite(result.image).all() and np.abs(result.image - image).max() > 1
    assert result.truth is sample.truth and result.grid == sample.grid and result.key == "a"
    np.testing.assert_array_equal(image, before)


@changes
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (3, 9, 1), (2, 1, 1, 1), (1, 1, 9, 8)])
def test_sides_of_one_pixel(change, shape):
    result = change(sample_of(picture(shape)), draws()).image
    assert result.shape == shape and np.isfinite(result).all()


@changes
@pytest.mark.parametrize("value", [0.0, 7.0, 65_535.0])
def test_an_image_of_one_value_keeps_it(change, value):
    image = np.full((3, 12, 10), value, np.float32)
    np.testing.assert_allclose(change(sample_of(image), draws()).image, image, rtol=1e-6)


@changes
def test_the_generator_decides_all(change):
    sample = sample_of(picture((3, 20, 24)))
    first, again = (change(sample, draws(1)).image for _ in range(2))
    np.testing.assert_array_equal(first, again)
    columns = np.moveaxis(np.moveaxis(sample.image, 0, -1).copy(), -1, 0)  # the same in another order in memory
    np.testing.assert_array_equal(first, change(sample_of(columns), draws(1)).image)


@changes
@pytest.mark.parametrize("shape", [(2, 24, 28), (3, 24, 28), (1, 8, 12, 10)])
def test_missing_values_stay_missing_and_spread_nowhere(change, shape):
    image = picture(shape)
    missing = draws(5).random(shape) < 0.2
    missing[..., :3] = True
    image[missing] = np.nan
    result = change(sample_of(image), draws()).image
    np.testing.assert_array_equal(np.isnan(result), missing)
    assert result[~missing].min() > -200 and result[~missing].max() < 500  # near what was measured, and not near infinity
    nothing = np.full(shape, np.nan, np.float32)
    assert np.isnan(change(sample_of(nothing), draws()).image).all()


@changes
def test_sixteen_bits_are_changed_as_eight_are(change):
    image = picture((3, 24, 28))
    small, large = (change(sample_of((image * gain).astype(np.uint16)), draws()).image / gain for gain in (1, 300))
    np.testing.assert_allclose(large, small, atol=1.5)  # JPEG's levels are shifted by roundings of theirs
