"""Image and truth stay aligned to a tenth of a pixel through every change of a plan, in 2D, in 3D and in thick slices.

A label is taken from the nearest pixel of the sample, so that each lies up to half a pixel off, in an even scale all those of a
region alike; what must not be is that they lie off to one side. So alignment is measured as a mean over several draws.
"""

import numpy as np
import pytest
from skimage.registration import phase_cross_correlation

from segwright.core import VOID, Grid, Sample, Segmentation
from segwright.plans.plan import Augmentation
from segwright.transforms.gaussian_blur import GaussianBlur
from segwright.transforms.geometric import Geometric
from segwright.transforms.intensity import Intensity
from segwright.transforms.jpeg import Jpeg
from segwright.transforms.low_resolution import LowResolution

TOLERANCE = 0.1  # pixels
DRAWS = 12  # means over so many err by some 0.03 pixels
OFF = Intensity(brightness=0, contrast=0, gamma=0, saturation=0, noise=0)
STILL = Geometric(scale=(1.0, 1.0), flip_axes=())
CHANGES = {
    "scale": {"geometric": Geometric(scale=(0.7, 1.4), flip_axes=())},
    "rotation": {"geometric": Geometric(scale=(1.0, 1.0), rotate_deg=30.0, flip_axes=())},
    "flip": {"geometric": Geometric(scale=(1.0, 1.0), flip_axes=(-1, -2))},
    "elastic": {"geometric": Geometric(scale=(1.0, 1.0), flip_axes=(), elastic_px=1.0)},
    "blur": {"blur": GaussianBlur(probability=1.0, sigma_px=(1.0, 1.0))},
    "low_resolution": {"low_resolution": LowResolution(probability=1.0)},
    "jpeg": {"jpeg": Jpeg(probability=1.0)},
    "intensity": {"intensity": Intensity(noise=0.0)},
    "all": {
        "geometric": Geometric(scale=(0.8, 1.3), rotate_deg=20.0, flip_axes=(-1, -2), elastic_px=1.0),
        "blur": GaussianBlur(probability=1.0),
        "low_resolution": LowResolution(probability=1.0),
        "jpeg": Jpeg(probability=1.0, quality=(80, 95)),
        "intensity": Intensity(noise=0.0),
    },
}
PLACES = {
    "2D": ((90, 84), None),
    "2D, oblong pixels": ((90, 84), (0.5, 0.8)),
    "3D": ((44, 46, 48), None),
    "3D, thick slices": ((26, 48, 46), (2.0, 1.0, 1.0)),
}
RADIUS = {2: 13.0, 3: 9.0}  # in pixels of the finest axis
each_change = pytest.mark.parametrize("change", CHANGES)
each_place = pytest.mark.parametrize("place", PLACES)


def ball(shape, spacing_mm, dtype=np.uint8) -> Sample:
    """A ball on dark ground, bright as far as each pixel is inside, and the truth of it; its middle lies between pixels."""
    steps = np.array(spacing_mm or (1.0,) * len(shape)) / min(spacing_mm or (1.0,))
    middle = np.array(shape) / 2 + (0.3, -0.4, 0.2)[: len(shape)]
    offsets = np.moveaxis(np.indices(shape), 0, -1) - middle
    distance = np.linalg.norm(offsets * steps, axis=-1)
    inside = np.clip(RADIUS[len(shape)] + 0.5 - distance, 0, 1)
    image = np.repeat((40 + 180 * inside)[None], 3 if len(shape) == 2 else 1, axis=0).astype(dtype)
    return Sample("a", image, Grid(shape, spacing_mm), Segmentation.semantic((inside >= 0.5).astype(int)))


def changed(sample: Sample, shape, change: str, seed: int) -> Sample:
    """The sample's middle after a change of a plan."""
    augmentation = Augmentation(**{"geometric": STILL, "intensity": OFF, **CHANGES[change]})
    generator = np.random.default_rng(seed)
    crop = augmentation.geometric(sample, shape, generator, lambda _: np.array(sample.grid.shape) / 2)
    return augmentation.change_values(crop, generator)


def centroid(weights: np.ndarray) -> np.ndarray:
    places = np.stack(np.meshgrid(*(np.arange(side) for side in weights.shape), indexing="ij"))
    return (places * weights).reshape(weights.ndim, -1).sum(axis=1) / weights.sum()


@each_change
@each_place
def test_a_ball_is_where_its_truth_is(change, place):
    shape, spacing_mm = PLACES[place]
    moved = []
    for seed in range(DRAWS):
        crop = changed(ball(shape, spacing_mm), tuple(side - 4 for side in shape), change, seed)
        truth = crop.truth.class_map() == 1
        ground, bright = (np.median(crop.image[0][crop.truth.class_map() == k]) for k in (0, 1))
        levels = np.clip((crop.image[0] - ground) / (bright - ground), 0, 1)
        levels[levels < 0.2] = 0  # what compression leaves on the ground
        moved.append(centroid(levels) - centroid(truth))
    assert np.abs(np.mean(moved, axis=0)).max() < TOLERANCE and np.abs(moved).max() < 0.4


@each_change
@each_place
def test_a_drawn_grid_lies_on_its_truth(change, place):
    """How far the image would have to be moved to fit its truth best, from the phases of both, over all of a grid of lines."""
    shape, spacing_mm = PLACES[place]
    lines = np.zeros(shape, bool)
    for axis, side in enumerate(shape):
        at = np.cumsum(np.random.default_rng(axis).integers(5, 9, side // 7))  # not evenly, which would fit in many places
        lines[tuple(at[at < side - 1] if a == axis else slice(None) for a in range(len(shape)))] = True
        lines[tuple(at[at < side - 1] + 1 if a == axis else slice(None) for a in range(len(shape)))] = True
    image = np.repeat(np.where(lines, 220, 40).astype(np.uint8)[None], 3 if len(shape) == 2 else 1, axis=0)
    sample = Sample("a", image, Grid(shape, spacing_mm), Segmentation.semantic(lines.astype(int)))
    inner = tuple(side - 4 for side in shape)
    moves = []
    for seed in range(DRAWS):
        crop = changed(sample, inner, change, seed)
        truth, known = crop.truth.class_map() == 1, crop.truth.class_map() != VOID
        values = np.where(known, crop.image[0], np.median(crop.image[0][known]))
        window = np.ones(inner)
        for axis, side in enumerate(inner):
            window *= np.hanning(side).reshape([-1 if a == axis else 1 for a in range(len(inner))])
        parts = ((part - part.mean()) * window for part in (truth.astype(float), values.astype(float)))
        moves.append(phase_cross_correlation(*parts, upsample_factor=50, normalization=None)[0])
    assert np.abs(np.mean(moves, axis=0)).max() < TOLERANCE and np.abs(moves).max() < 0.4


def test_a_crop_that_is_half_a_pixel_off_would_be_seen():
    sample = ball((90, 84), None)
    wrong = Sample("a", sample.image, sample.grid, Segmentation.semantic(np.roll(sample.truth.class_map(), 1, axis=1)))
    crop = changed(wrong, (80, 80), "scale", 1)
    truth = crop.truth.class_map() == 1
    levels = np.clip(crop.image[0].astype(float) - 40, 0, None)
    assert abs(centroid(levels) - centroid(truth))[1] > 5 * TOLERANCE
