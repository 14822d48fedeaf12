"""The temperature that logits are divided by, so that probabilities mean what they say. Axes: K classes, N pixels, *S spatial.

Networks that are trained until the training samples are known by heart are surer than they are right. One number, chosen on
images that were held out, mends most of it, and changes no label.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from segwright.core import VOID, Dataset, Sample, Segmentation

MOST_IMAGES = (
    8  # that are looked at, evenly spread, which takes their time once more: pixels are many, and one number is sought
)
MOST_PIXELS = 4096  # of each image, drawn at random
MOST_NUMBERS = 2**28  # of probabilities of one image, which are held at once: a gigabyte; larger images are passed over
LIMITS = 0.1, 10.0  # of temperatures: beyond, something else is wrong than how sure a network is
FLOOR = 1e-12  # of the probability of the true class, as in metrics/calibration.py


class PixelSample(NamedTuple):
    """Logarithms of probabilities float64 (N, K) of some pixels, and their true classes int64 (N,).

    Of regions, each of the K at each pixel is a sample of its own, of two classes: not there and there.
    """

    logs: np.ndarray
    truth: np.ndarray


def pixel_sample(
    probabilities: Callable[[Sample], np.ndarray], data: Dataset, seed: int = 0, *, of_regions: bool = False
) -> PixelSample:
    """Some pixels of some images of a data set, from what a model gives of each, float32 (K, *S), and the truth."""
    count = 2 if of_regions else len(data.classes)
    generator, logs, truths = np.random.default_rng(seed), [np.empty((0, count))], [np.empty(0, np.int64)]
    for key in data.keys[:: -(-len(data) // MOST_IMAGES) or 1]:
        sample = data.load(key)
        if sample.truth is None or sample.image[0].size * len(data.classes) > MOST_NUMBERS:
            continue
        truth = sample.truth.planes[0].reshape(-1) if of_regions else sample.truth.class_map().reshape(-1)
        known = np.flatnonzero(truth != VOID)
        drawn = known if len(known) <= MOST_PIXELS else generator.choice(known, MOST_PIXELS, replace=False)
        probs = probabilities(sample)
        probs = probs.reshape(len(probs), -1)[:, drawn].T.astype(np.float64)
        if of_regions:
            truths.append(_membership(sample.truth, drawn).reshape(-1))
            probs = np.stack([1 - probs.reshape(-1), probs.reshape(-1)], axis=1)
        else:
            truths.append(truth[drawn].astype(np.int64))
        logs.append(np.log(np.maximum(probs, FLOOR)))
    return PixelSample(np.concatenate(logs), np.concatenate(truths))


def _membership(truth: Segmentation, pixels: np.ndarray) -> np.ndarray:
    """Whether each of some pixels, numbered in the order of memory, is in each class: 1 or 0, int64 (N, K)."""
    found = np.zeros((len(pixels), len(truth.classes)), np.int64)
    for plane in truth.planes:
        segments = plane.reshape(-1)[pixels]
        rows = np.flatnonzero(segments > 0)
        found[rows, truth.class_ids[segments[rows] - 1]] = 1
    return found


def likelihood_loss(pixels: PixelSample, temperature: float) -> float:
    """The mean of -log p of the true class, in nats, once logits are divided by a temperature."""
    logits = pixels.logs / temperature
    logits -= logits.max(axis=1, keepdims=True)
    true = logits[np.arange(len(logits)), pixels.truth]
    return float(np.mean(np.log(np.exp(logits).sum(axis=1)) - true))


def fitted_temperature(pixels: PixelSample) -> float:
    """The temperature of the least `likelihood_loss`, rounded to three digits; 1 where there is no pixel or no choice."""
    if not len(pixels.truth) or pixels.logs.shape[1] < 2:
        return 1.0
    found = minimize_scalar(lambda log: likelihood_loss(pixels, float(np.exp(log))), bounds=np.log(LIMITS), method="bounded")
    return float(f"{np.exp(found.x):.3g}")
