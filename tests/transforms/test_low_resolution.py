import numpy as np
import pytest

from segwright.core import Grid, Sample
from segwright.core.errors import SettingError
from segwright.transforms.low_resolution import LowResolution
from segwright.transforms.resize import resize_image


def changed(image, seed=0, spacing_mm=None, **setting):
    change = LowResolution(**{"probability": 1.0, **setting})
    return change(Sample("a", image, Grid(image.shape[1:], spacing_mm)), np.random.default_rng(seed)).image


# By hand


def test_stripes_finer_than_the_pixels_become_grey():
    stripes = np.tile(np.array([0, 100], np.float32), (1, 16, 8))
    result = changed(stripes, zoom=(0.5, 0.5))[0, :, 4:-4]
    np.testing.assert_allclose(result, 50, atol=13)  # a triangle as wide as four pixels weighs them 1 3 3 1
    assert result.std() < 0.1 * stripes.std()


def test_full_resolution_changes_nothing():
    image = np.random.default_rng(1).normal(size=(2, 9, 12)).astype(np.float32)
    np.testing.assert_array_equal(changed(image, zoom=(1.0, 1.0)), image)


# By a slow twin


@pytest.mark.parametrize("shape", [(3, 21, 30), (1, 10, 12, 14)])
def test_it_is_the_image_made_smaller_and_large_again(shape):
    image = np.random.default_rng(1).normal(100, 30, shape).astype(np.float32)
    small = tuple(round(0.7 * side) for side in shape[1:])
    np.testing.assert_array_equal(changed(image, zoom=(0.7, 0.7)), resize_image(resize_image(image, small), shape[1:]))


# By a law


@pytest.mark.parametrize("zoom", [0.5, 0.61, 0.83])
def test_a_slope_stays_where_it_is(zoom):
    """A pixel that moved by a tenth would change by a tenth."""
    rows, columns = np.mgrid[:40, :50].astype(np.float32)
    result = changed(np.stack([rows, columns]), zoom=(zoom, zoom))
    inside = (slice(4, -4), slice(4, -4))  # at the border, values beyond it are missing
    for channel, expected in zip(result, (rows, columns), strict=True):
        assert np.abs(channel - expected)[inside].max() < 0.1 and abs((channel - expected)[inside].mean()) < 0.01


def test_slices_that_are_thicker_already_keep_their_detail():
    image = np.random.default_rng(1).normal(size=(1, 8, 12, 12)).astype(np.float32)
    result = changed(image, zoom=(0.5, 0.5), spacing_mm=(2.0, 1.0, 1.0))
    each = [changed(image[:, [depth]], zoom=(0.5, 0.5))[:, 0] for depth in range(8)]
    np.testing.assert_allclose(result[0], np.stack(each)[:, 0], atol=1e-6)


def test_a_measured_pixel_among_missing_ones_keeps_its_value():
    image = np.full((1, 12, 12), np.nan, np.float32)
    image[0, 5, 6] = 7
    result = changed(image, zoom=(0.5, 0.5))
    assert result[0, 5, 6] == pytest.approx(7) and np.isnan(result).sum() == 143


def test_the_detail_is_drawn_from_the_range_and_as_often_as_asked():
    image = np.random.default_rng(1).normal(size=(1, 40, 40)).astype(np.float32)
    kept = np.array([changed(image, seed, probability=0.25).std() / image.std() for seed in range(200)])
    assert 30 < (kept < 1).sum() < 75  # 50 expected
    assert 0.2 < kept.min() < 0.3 and kept[kept < 1].max() > 0.45


# By its messages


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"probability": -1.0}, "probability is -1.0"),
        ({"zoom": (0.5, 1.5)}, r"zoom is .*from 0.05 to 1"),
        ({"zoom": (0.0, 1.0)}, "zoom"),
    ],
)
def test_wrong_settings_name_the_remedy(setting, message):
    with pytest.raises(SettingError, match=message):
        LowResolution(**setting)
