"""Change brightness, contrast, gamma, saturation and noise of an image in one pass.

All strengths are relative to the image's own range and standard deviation, channel by channel, so the same setting fits
8-bit photographs, 16-bit microscopy and MRI without units.

Axes: C channels, N pixels, *S spatial axes.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numba import njit

from segwright.core import Sample
from segwright.core.errors import SettingError
from segwright.core.missing import where_measured
from segwright.transforms.normalise import channel_statistics
from segwright.transforms.random_settings import check_probability

POINTS = 1024  # of the tone curve; straight between them, which is finer than 8-bit files are
BLOCK = 1024  # pixels at a time, of all channels: they stay in the fastest memory while the steps go over them


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Random change of values. Each setting is the largest strength; the draw is uniform, and 0 turns the change off.

    `brightness` shifts all values by up to so many standard deviations to both sides (light, exposure). `contrast`
    stretches the distance from the mean by a factor of up to exp(contrast) or down to exp(-contrast) (haze, stain, coil).
    `gamma` bends the tone curve between the darkest and the brightest value with an exponent of up to exp(gamma) or down
    to exp(-gamma) (sensors, film). `saturation` stretches the distance of the channels from their mean in the same way
    (cameras, white balance); without colour, leave it 0. `noise` is a standard deviation, in those of the image.

    Each is made with its own probability. With `inverted_gamma_probability` the curve is bent from its bright end too, by an
    exponent of its own. nnU-Net's default: contrast 0.25 and brightness 0.25 with 0.15 each, gamma 0.4 with 0.3 and inverted
    with 0.1, noise 0.3 with 0.1. It multiplies by its brightness, and gives an image its mean and deviation back after gamma.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    gamma: float = 0.3
    saturation: float = 0.3
    noise: float = 0.05
    brightness_probability: float = 1.0
    contrast_probability: float = 1.0
    gamma_probability: float = 1.0
    inverted_gamma_probability: float = 0.0
    saturation_probability: float = 1.0
    noise_probability: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name.endswith("_probability"):
                check_probability(field.name, getattr(self, field.name))
            elif getattr(self, field.name) < 0:
                raise SettingError(
                    f"{field.name} is {getattr(self, field.name)}; it reaches to both sides, give 0 (off) or more"
                )

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """The sample with an image float32 (C, *S) of other values; missing ones stay missing, and its truth is passed on.

        Where none of the changes happens it is the sample as it is.
        """
        strengths = generator.uniform(-1, 1, 4) * (self.brightness, self.contrast, self.gamma, self.saturation)
        noise, seed = generator.uniform(0, self.noise), int(generator.integers(2**63))
        inverted_gamma = self.gamma * generator.uniform(-1, 1)
        happening = generator.random(6) < (
            self.brightness_probability,
            self.contrast_probability,
            self.gamma_probability,
            self.saturation_probability,
            self.inverted_gamma_probability,
            self.noise_probability,
        )
        if not (happening & ([*strengths, inverted_gamma, noise] != np.zeros(6))).any():
            return sample
        shift, contrast, gamma, saturation = strengths * happening[:4]
        image = np.ascontiguousarray(sample.image, dtype=np.float32).reshape(len(sample.image), -1)  # (C, N)
        mean, std, low, high = channel_statistics(image)
        known = where_measured(image)
        image = image if known is None else np.where(known, image, mean[:, None]).astype(np.float32)
        span = np.where(high > low, high - low, 1.0)
        tones = np.linspace(0, 1, POINTS)[:, None]
        if happening[4]:
            tones = 1 - (1 - tones) ** np.exp(inverted_gamma)
        curves = low + span * tones ** np.exp(gamma)
        curves = mean + np.exp(contrast) * (curves - mean) + shift * std  # (POINTS, C)
        strength = noise * happening[5] * std
        result = np.empty_like(image)
        curves, low, per_unit, strength = (
            np.ascontiguousarray(part, np.float32) for part in (curves.T, low, (POINTS - 1) / span, strength)
        )
        _change(image, np.float32(np.exp(saturation)), curves, low, per_unit, strength, seed, result)
        if known is not None:
            result[~known] = np.nan
        return replace(sample, image=result.reshape(sample.image.shape))


@njit(cache=True, nogil=True)
def _change(
    image: np.ndarray,
    saturation: np.float32,
    curves: np.ndarray,
    low: np.ndarray,
    per_unit: np.ndarray,
    strength: np.ndarray,
    seed: int,
    result: np.ndarray,
) -> None:
    """Saturation, tone curves (C, POINTS) and noise on (C, N); `per_unit` is the number of curve points per image value."""
    C, N = image.shape
    grey, part, point = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32)
    for first in range(0, N, BLOCK):
        count = min(BLOCK, N - first)
        grey[:] = 0
        for c in range(C):
            given = image[c, first : first + count]
            for n in range(count):
                grey[n] += given[n]
        for n in range(count):
            grey[n] /= np.float32(C)
        for c in range(C):
            given, line, curve = image[c, first : first + count], result[c, first : first + count], curves[c]
            darkest, scale, noise = low[c], per_unit[c], strength[c]
            for n in range(count):
                value = grey[n] + saturation * (given[n] - grey[n])
                at = min(max((value - darkest) * scale, np.float32(0)), np.float32(POINTS - 1))
                point[n] = min(np.int32(at), np.int32(POINTS - 2))
                part[n] = at - np.float32(point[n])
            for n in range(count):
                line[n] = curve[point[n]] + part[n] * (curve[point[n] + 1] - curve[point[n]])
            if noise > 0:
                for n in range(count):
                    line[n] += noise * bell(seed, c * N + first + n)


@njit(cache=True, nogil=True, inline="always")
def bell(seed: int, index: int) -> np.float32:
    """Nearly normal number of mean 0 and deviation 1, always the same for a seed and an index; ends at 3.5.

    The sum of four 16-bit numbers from one step of SplitMix64 (Steele et al. 2014): four times faster than exact normals.
    """
    z = np.uint64(seed) + np.uint64(index + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    low, high = z & np.uint64(0x0000FFFF0000FFFF), (z >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF)
    pairs = low + high  # two sums of two, each in its own half
    total = np.int64(pairs & np.uint64(0xFFFFFFFF)) + np.int64(pairs >> np.uint64(32))
    return np.float32(total - 2 * 65_535) * np.float32(1 / 37_837.2)  # 37837.2 = sqrt(4 / 12) * 65536, its deviation
