import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from segwright.core import Grid, Sample
from segwright.core.errors import SettingError
from segwright.transforms.gaussian_blur import GaussianBlur, gaussian_blur


def draws(seed=0):
    return np.random.default_rng(seed)


# By hand


def test_a_point_becomes_a_bell():
    image = np.zeros((1, 9, 9), np.float32)
    image[0, 4, 4] = 1
    result = gaussian_blur(image, (0.6, 0.6))[0]  # two pixels to each side
    bell = np.exp(-(np.array([2, 1, 0, 1, 2]) ** 2) / 0.72)
    bell /= bell.sum()
    np.testing.assert_allclose(result[2:7, 2:7], np.outer(bell, bell), atol=1e-7)
    assert result.sum() == pytest.approx(1, abs=1e-6) and (result[0] == 0).all()


def test_no_width_is_no_change():
    image = draws().normal(size=(2, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(gaussian_blur(image, (0.0, 0.0)), image)


# By a slow twin


@pytest.mark.parametrize(
    ("shape", "sigma"),
    [((2, 13, 21), (0.8, 0.8)), ((2, 13, 21), (2.5, 0.5)), ((1, 9, 10, 7), (0.3, 1.0, 1.7)), ((3, 2, 3), (2, 2))],
)
def test_it_equals_scipy(shape, sigma):
    image = draws(1).normal(100, 30, shape).astype(np.float32)
    radius = [int(np.ceil(3 * each)) for each in sigma]
    expected = [gaussian_filter(channel.astype(np.float64), sigma, mode="mirror", radius=radius) for channel in image]
    np.testing.assert_allclose(gaussian_blur(image, sigma), expected, rtol=1e-5)


def test_missing_values_count_for_nothing():
    image = draws(1).normal(100, 30, (2, 15, 17)).astype(np.float32)
    image[draws(2).random(image.shape) < 0.3] = np.nan
    known = np.isfinite(image)
    sums, weights = gaussian_blur(np.nan_to_num(image), (1.0, 1.0)), gaussian_blur(known.astype(np.float32), (1.0, 1.0))
    np.testing.assert_allclose(gaussian_blur(image, (1.0, 1.0))[known], (sums / weights)[known], rtol=1e-5)


# By a law


def test_widths_are_drawn_from_the_range_and_as_often_as_asked():
    image = np.zeros((1, 15, 15), np.float32)
    image[0, 7, 7] = 1
    change, drawn = GaussianBlur(probability=0.5, sigma_px=(0.6, 1.2)), []
    for seed in range(200):
        result = change(Sample.of("a", image), draws(seed)).image[0]
        if result[7, 7] < 1:
            drawn.append(np.sqrt((result.sum(axis=0) * (np.arange(15) - 7) ** 2).sum()))
    assert 75 < len(drawn) < 125  # 100 expected; 3.5 standard deviations
    assert 0.57 < min(drawn) < 0.65 and 1.1 < max(drawn) < 1.2  # a bell that ends at three deviations is a little narrower


def test_thick_slices_are_smoothed_by_as_many_millimetres():
    image = np.zeros((1, 9, 21, 21), np.float32)
    image[0, 4, 10, 10] = 1
    result = GaussianBlur(probability=1.0, sigma_px=(2.0, 2.0))(Sample("a", image, Grid((9, 21, 21), (4.0, 1.0, 1.0))), draws())
    spread = [
        np.sqrt((result.image[0].sum(axis=tuple({0, 1, 2} - {axis})) * (np.arange(side) - side // 2) ** 2).sum())
        for axis, side in enumerate((9, 21, 21))
    ]
    assert spread[1] == pytest.approx(2, rel=0.05) and spread[2] == pytest.approx(spread[1])
    assert spread[0] * 4 == pytest.approx(2, rel=0.1)


# By its messages


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"probability": 2.0}, "probability is 2.0"),
        ({"sigma_px": (1.0, 0.5)}, r"sigma_px is .*such as \(0.5, 1.0\)"),
        ({"sigma_px": (-1.0, 0.5)}, "from 0 to 16"),
    ],
)
def test_wrong_settings_name_the_remedy(setting, message):
    with pytest.raises(SettingError, match=message):
        GaussianBlur(**setting)
