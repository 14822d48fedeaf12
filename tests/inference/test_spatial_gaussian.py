"""The Gaussian of distance. Axes: (H, W) of the image, N pixels, C numbers of each."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from segwright.inference import spatial_gaussian as module
from segwright.inference.image_bands import ImageBands
from segwright.inference.spatial_gaussian import spatial_gaussian


def filtered(values: np.ndarray, known: np.ndarray, sigma: float, compat: float = 1.0) -> np.ndarray:
    """What pixels with values (H, W, C) are told, (H, W, C), band by band."""
    H, W, C = values.shape
    flat, out = values.reshape(-1, C), np.zeros((H * W, C), np.float32)
    with ThreadPoolExecutor(2) as pool:
        bands = ImageBands.of(pool, H, W)
        kernel = spatial_gaussian(known.reshape(-1), sigma, compat, C, bands)
        bands.each(lambda piece, first, stop: kernel.take(piece, first, stop, flat[first:stop]))
        kernel.exchange()
        bands.each(lambda piece, first, stop: kernel.tell(piece, first, stop, out[first:stop], out[first:stop]))
    return out.reshape(H, W, C)


def all_pairs(values: np.ndarray, known: np.ndarray, sigma: float) -> np.ndarray:
    """The same by the definition, in float64."""
    H, W, C = values.shape
    places = np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1).reshape(-1, 2) / sigma
    kernel = np.exp(-((places[:, None] - places[None]) ** 2).sum(axis=2) / 2) * np.outer(known, known)
    roots = np.sqrt(np.maximum(kernel.sum(axis=1), 1e-9))
    return (kernel / roots / roots[:, None] @ values.reshape(-1, C)).reshape(H, W, C)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


# By hand


def test_one_pixel_keeps_its_value():
    for sigma in (1, 5):
        assert filtered(np.full((1, 1, 8), 3, np.float32), np.ones((1, 1), np.bool_), sigma) == pytest.approx(3)


def test_a_pixel_that_is_unknown_gives_and_gets_nothing():
    values, known = noise(12, 17, 8), np.ones((12, 17), np.bool_)
    known[3, 4] = known[11, 16] = False
    for sigma in (1, 3):
        found = filtered(values, known, sigma)
        assert (found[~known] == 0).all()
        values[~known] = 99
        assert (filtered(values, known, sigma) == found).all()


# By a slow twin


@pytest.mark.parametrize(("sigma", "error"), [(0.4, 1e-3), (1, 4e-3), (2.9, 4e-3), (3, 2e-2), (4.5, 1e-2), (40, 2e-3)])
@pytest.mark.parametrize("shape", [(22, 31, 8), (9, 40, 16), (41, 6, 8)])
def test_is_close_to_the_gaussian_of_all_pairs(shape, sigma, error):
    values, known = noise(*shape), noise(*shape[:2]) < 0.9
    wanted = all_pairs(values, known, sigma)
    assert np.abs(filtered(values, known, sigma) - wanted).max() < error
    assert filtered(values, known, sigma, compat=3) == pytest.approx(3 * wanted, abs=3 * error)


# By a law


@pytest.mark.parametrize("sigma", [1.5, 3])
def test_what_one_tells_another_is_what_it_is_told(sigma):
    kernel = filtered(np.eye(10 * 12, dtype=np.float32).reshape(10, 12, -1), noise(10, 12) < 0.9, sigma).reshape(120, 120)
    assert kernel == pytest.approx(kernel.T, abs=1e-7) and kernel.min() >= 0


@pytest.mark.parametrize("sigma", [1, 3])
def test_sides_have_no_order(sigma):
    values, known = noise(20, 30, 8), np.ones((20, 30), np.bool_)
    found = filtered(values, known, sigma)
    assert filtered(values[::-1, ::-1], known, sigma)[::-1, ::-1] == pytest.approx(found, abs=1e-6)
    assert filtered(values.transpose(1, 0, 2), known.T, sigma).transpose(1, 0, 2) == pytest.approx(found, abs=1e-6)


def test_half_size_is_near_full_size(monkeypatch):
    values, known = noise(60, 70, 8), np.ones((60, 70), np.bool_)
    half = filtered(values, known, 3)
    monkeypatch.setattr(module, "HALVED_FROM", np.inf)
    full = filtered(values, known, 3)
    assert 0 < np.abs(half - full).max() < 0.02
