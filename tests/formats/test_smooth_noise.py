import numpy as np
import pytest

from segwright.formats.synthetic.smooth_noise import smooth_noise


def noise(shape, period, seed=0):
    return smooth_noise(shape, period, np.random.default_rng(seed))


def spline(distance):
    """Cubic B-spline as books write it."""
    distance = abs(distance)
    if distance < 1:
        return 2 / 3 - distance**2 + distance**3 / 2
    return (2 - distance) ** 3 / 6 if distance < 2 else 0.0


# By hand


def test_shape_mean_and_deviation():
    for shape, period in (((64, 80), 4.0), ((20, 24, 28), 3.0), ((1, 1), 5.0), ((500,), 2.0)):
        field = noise(shape, period)
        assert field.shape == shape and field.dtype == np.float32
    fields = np.stack([noise((40, 40), 8.0, seed) for seed in range(60)])
    assert abs(fields.mean()) < 0.1 and abs(fields.std() - 1) < 0.1


def test_a_longer_period_is_smoother():
    rough, smooth = noise((64, 64), 2.0), noise((64, 64), 16.0)
    assert np.abs(np.diff(smooth)).mean() < 0.3 * np.abs(np.diff(rough)).mean()
    bands = noise((64, 64), (1.0, 32.0))
    assert np.abs(np.diff(bands, axis=1)).mean() < 0.2 * np.abs(np.diff(bands, axis=0)).mean()


# By a slow twin


def test_one_axis_equals_the_formula():
    size, period = 17, 3.7
    knots = np.random.default_rng(5).standard_normal(int(np.floor((size - 0.5) / period)) + 4, dtype=np.float32)
    expected = []
    for pixel in range(size):
        weights = np.array([spline((pixel + 0.5) / period - (knot - 1)) for knot in range(len(knots))])
        expected.append((weights / np.sqrt((weights**2).sum())) @ knots)
    assert np.allclose(noise((size,), period, seed=5), expected, atol=1e-5)


# By a law


@pytest.mark.parametrize("shape", [(30, 40), (8, 9, 10)])
def test_a_seed_decides_everything(shape):
    assert np.array_equal(noise(shape, 4.0, 1), noise(shape, 4.0, 1))
    assert not np.array_equal(noise(shape, 4.0, 1), noise(shape, 4.0, 2))
