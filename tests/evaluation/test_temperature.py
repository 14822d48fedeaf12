"""The temperature that makes probabilities mean what they say."""

import numpy as np
import pytest

from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.evaluation.temperature import (
    MOST_IMAGES,
    MOST_PIXELS,
    PixelSample,
    fitted_temperature,
    likelihood_loss,
    pixel_sample,
)


def drawn(temperature, count=20_000, classes=4):
    """Pixels whose true classes are drawn by the softmax of logits, which are then said too strongly."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(count, classes))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (probs.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    said = logits * temperature
    return PixelSample(said - np.log(np.exp(said).sum(axis=1, keepdims=True)), truth)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_what_was_said_too_strongly_is_found(temperature):
    pixels = drawn(temperature)
    found = fitted_temperature(pixels)
    assert found == pytest.approx(temperature, rel=0.03)
    assert likelihood_loss(pixels, found) <= min(likelihood_loss(pixels, each) for each in (1.0, temperature, 0.8, 1.25))


def test_the_loss_by_hand():
    pixels = PixelSample(np.log([[0.8, 0.2], [0.5, 0.5]]), np.array([0, 1]))
    assert likelihood_loss(pixels, 1.0) == pytest.approx(-(np.log(0.8) + np.log(0.5)) / 2)
    assert likelihood_loss(pixels, 0.5) == pytest.approx(-(np.log(0.64 / 0.68) + np.log(0.5)) / 2)


def test_pixels_without_a_choice_leave_it_at_one():
    assert fitted_temperature(PixelSample(np.empty((0, 3)), np.empty(0, np.int64))) == 1
    assert fitted_temperature(PixelSample(np.zeros((5, 1)), np.zeros(5, np.int64))) == 1


def test_a_network_that_is_always_right_keeps_to_the_limit():
    assert fitted_temperature(PixelSample(np.log([[0.9, 0.1]] * 9), np.zeros(9, np.int64))) == pytest.approx(0.1, rel=0.01)


def test_pixels_are_drawn_from_some_images_void_left_out():
    classes, seen = Classes.of(["a", "b"]), []

    def load(key):
        truth = np.full((100, 60), int(key) % 2)
        truth[:50] = -1
        return Sample.of(key, np.zeros((1, 100, 60), np.uint8), Segmentation.semantic(truth, classes))

    def probabilities(sample):
        seen.append(sample.key)
        return np.stack([np.full((100, 60), 0.25, np.float32), np.full((100, 60), 0.75, np.float32)])

    data = Dataset("memory", classes, tuple(map(str, range(30))), load)
    pixels = pixel_sample(probabilities, data)
    assert len(seen) == len(set(seen)) <= MOST_IMAGES
    assert len(pixels.truth) == len(seen) * min(50 * 60, MOST_PIXELS) and (pixels.truth >= 0).all()
    np.testing.assert_allclose(np.exp(pixels.logs), [[0.25, 0.75]] * len(pixels.truth), rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_each_region_of_a_pixel_is_there_or_not(temperature):
    """Regions that overlap, drawn by the sigmoid of logits, which are then said too strongly; the corner is void."""
    rng = np.random.default_rng(0)
    classes = Classes.of(["whole", "core", "rare"])
    logits = 2 * rng.normal(size=(3, 60, 60))
    inside = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    is_void = np.zeros((60, 60), bool)
    is_void[:10, :10] = True
    sample = Sample.of("a", np.zeros((1, 60, 60), np.uint8), Segmentation.regions(inside, classes).with_void(is_void))
    said = (1 / (1 + np.exp(-logits * temperature))).astype(np.float32)
    pixels = pixel_sample(lambda sample: said, Dataset("memory", classes, ("a",), lambda key: sample), of_regions=True)
    assert pixels.logs.shape == (3 * 3500, 2) and pixels.truth.sum() == inside[:, ~is_void].sum()
    assert fitted_temperature(pixels) == pytest.approx(temperature, rel=0.06)
