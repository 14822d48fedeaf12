import numpy as np
import pytest

from segwright.core import Sample
from segwright.core.errors import SettingError
from segwright.transforms.shadow import Shadow


def changed(image, seed=0, **setting):
    return Shadow(**{"probability": 1.0, **setting})(Sample.of("a", image), np.random.default_rng(seed)).image


def shade_of(shape, seed=0, light=0.5):
    """The share of its light that each pixel keeps."""
    image = np.full((1, *shape), 100, np.float32)
    image.flat[0] = 0  # the darkest
    shade = changed(image, seed, light=(light, light))[0] / 100
    shade.flat[0] = np.nan
    return shade


# By a law


@pytest.mark.parametrize("shape", [(60, 80), (12, 30, 20)])
def test_pixels_keep_all_light_or_the_share_but_for_a_thin_edge(shape):
    areas = []
    for seed in range(20):
        shade = shade_of(shape, seed).ravel()[1:]
        assert shade.min() >= 0.5 - 1e-6 and shade.max() <= 1 + 1e-6
        between = (shade > 0.501) & (shade < 0.999)
        assert between.mean() < 0.15
        areas.append((shade <= 0.501).mean())
    assert 0.1 < np.mean(areas) < 0.45 and np.std(areas) > 0.1


@pytest.mark.parametrize("seed", range(6))
def test_the_shadow_is_a_corner(seed):
    """Halfway between two pixels in it lies another one: it is convex."""
    places = np.argwhere(shade_of((40, 50), seed) < 0.501)
    if len(places) > 1:
        generator = np.random.default_rng(0)
        pairs = places[generator.integers(len(places), size=(200, 2))]
        middle = np.floor(pairs.mean(axis=1)).astype(int)
        assert (shade_of((40, 50), seed)[tuple(middle.T)] < 0.9).all()  # half a pixel off, it may be on the edge


def test_what_is_in_the_shadow_stays_in_its_place():
    """The share depends on the place alone, so that nothing moves."""
    one, other = (np.random.default_rng(seed).uniform(50, 250, (3, 30, 40)).astype(np.float32) for seed in (1, 2))
    for image in (one, other):
        image[:, 0, 0] = 10
    shares = [(changed(image, 4) - 10)[:, 1:] / (image - 10)[:, 1:] for image in (one, other)]
    np.testing.assert_allclose(*shares, rtol=1e-4)
    np.testing.assert_allclose(shares[0][0], shares[0][2], rtol=1e-4)


def test_the_unit_of_the_file_does_not_matter():
    image = np.random.default_rng(1).uniform(0, 255, (3, 20, 20)).astype(np.float32)
    np.testing.assert_allclose((changed(image / 64 - 2) + 2) * 64, changed(image), atol=1e-2)


def test_shadows_are_as_frequent_as_asked():
    sample = Sample.of("a", np.arange(300, dtype=np.float32).reshape(3, 10, 10))
    change = Shadow(probability=0.2)
    assert 20 < sum(change(sample, np.random.default_rng(seed)) is not sample for seed in range(200)) < 60  # 40 expected


# By its messages


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"probability": -0.1}, "probability is -0.1"),
        ({"light": (0.9, 0.5)}, r"light is .*such as \(0.5, 0.8\)"),
        ({"light": (0, 2)}, "light"),
    ],
)
def test_wrong_settings_name_the_remedy(setting, message):
    with pytest.raises(SettingError, match=message):
        Shadow(**setting)
