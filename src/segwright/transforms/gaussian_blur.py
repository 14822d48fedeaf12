"""A lens that is a little out of focus: a Gaussian blur of random width.

Axes: C channels, n = 2 or 3 spatial axes, *S spatial axes, W weights.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from segwright.core import Sample
from segwright.core.missing import filter_measured
from segwright.transforms.geometric import reflected
from segwright.transforms.random_settings import check_probability, check_range, happens

REACH = 3  # standard deviations to each side: 0.3 % of the weight lies beyond, and is shared among the rest
WIDEST = 16.0  # pixels: more leaves nothing of what borders are made of


@dataclass(frozen=True, kw_only=True)
class GaussianBlur:
    """With `probability`, a Gaussian of a standard deviation drawn uniformly from `sigma_px` smooths the image.

    In pixels of the finest axis: where the spacing is known, coarser axes are smoothed by as many millimetres. All channels
    are smoothed alike. The range is that of nnU-Net's default, which asks with probability 0.2 and then smooths each channel
    with probability 0.5, each axis by another width.

    Source: Isensee et al. 2021, doi 10.1038/s41592-020-01008-z, and their code (Apache-2.0).
    """

    probability: float = 0.0
    sigma_px: tuple[float, float] = (0.5, 1.0)

    def __post_init__(self) -> None:
        check_probability("probability", self.probability)
        check_range("sigma_px", self.sigma_px, 0.0, WIDEST, (0.5, 1.0))

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        """The sample as it is, or with a blurred image float32 (C, *S); missing values stay missing and count for nothing."""
        if not happens(self.probability, generator):
            return sample
        sigma = generator.uniform(*self.sigma_px)
        spacing = sample.grid.spacing_mm or (1.0,) * len(sample.grid.shape)
        return replace(sample, image=gaussian_blur(sample.image, tuple(sigma * min(spacing) / step for step in spacing)))


def gaussian_blur(image: np.ndarray, sigma_px: tuple[float, ...]) -> np.ndarray:
    """An image float32 (C, *S) from an image (C, *S), smoothed by a Gaussian of one standard deviation per axis.

    Beyond its border the image is its own reflection. Missing values stay missing and count for nothing.
    """
    return filter_measured(np.asarray(image, np.float32), lambda values: _smoothed(values, sigma_px))


def _smoothed(values: np.ndarray, sigma_px: tuple[float, ...]) -> np.ndarray:
    """Finite values float32 (C, *S), smoothed along one axis after the other; the last in place, which saves time."""
    shape = values.shape
    for axis, sigma in enumerate(sigma_px[:-1], start=1):
        lines = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        smooth = np.empty(shape, np.float32)
        _convolve(np.ascontiguousarray(values).reshape(lines), _gaussian(sigma), smooth.reshape(lines))
        values = smooth
    _convolve_last(values.reshape(-1, shape[-1]), _gaussian(sigma_px[-1]))
    return values


def _gaussian(sigma: float) -> np.ndarray:
    """Weights float32 (W,) of the sum 1, at whole distances up to REACH standard deviations; one alone where it is narrow."""
    radius = math.ceil(REACH * sigma)
    distance = np.arange(-radius, radius + 1)
    weights = np.exp(-(distance**2) / (2 * max(sigma, 1e-6) ** 2))  # 1e-6: no width at all is one weight
    return (weights / weights.sum()).astype(np.float32)


@njit(cache=True, nogil=True)
def _convolve(values: np.ndarray, weights: np.ndarray, smooth: np.ndarray) -> None:
    """Weighted sums along the middle axis of (outer, side, inner), whole lines of `inner` at a time."""
    side, radius = values.shape[1], len(weights) // 2
    for o in range(len(values)):
        for j in range(side):
            line = smooth[o, j]
            centre, weight = values[o, j], weights[radius]
            for i in range(len(line)):
                line[i] = weight * centre[i]
            for t in range(1, radius + 1):
                before, after, weight = (
                    values[o, reflected(j - t, side)],
                    values[o, reflected(j + t, side)],
                    weights[radius + t],
                )
                for i in range(len(line)):
                    line[i] += weight * (before[i] + after[i])


@njit(cache=True, nogil=True)
def _convolve_last(values: np.ndarray, weights: np.ndarray) -> None:
    """As convolve, along the last axis of (outer, side), in place."""
    side, radius = values.shape[1], len(weights) // 2
    longer = np.empty(side + 2 * radius, np.float32)  # a line with its reflection at both ends
    for o in range(len(values)):
        line, centre, weight = values[o], longer[radius : radius + side], weights[radius]
        centre[:] = line
        for j in range(radius):
            longer[radius - 1 - j] = line[reflected(-1 - j, side)]
            longer[radius + side + j] = line[reflected(side + j, side)]
        for j in range(side):
            line[j] = weight * centre[j]
        for t in range(1, radius + 1):
            before, after, weight = longer[radius - t :], longer[radius + t :], weights[radius + t]
            for j in range(side):
                line[j] += weight * (before[j] + after[j])
