"""Bright textured cells on uneven illumination, as a fluorescence microscope sees them, in 2D and 3D.

Axes: *S spatial axes, (H, W) or (D, H, W); N cells.
"""

import numpy as np

from segwright.core import Classes, Sample, Segmentation
from segwright.formats.synthetic.smooth_noise import smooth_noise

CLASSES = Classes.of(["background", "cell"], colors=[(24, 24, 32), (255, 170, 60)], is_thing=[False, True])
OUTSIDE = np.float32(9.0)  # radii from any centre: farther than any cell reaches
TOUCHING = 0.82  # of the sum of two radii: nearer centres would hide one cell behind the other
SPREAD = 0.28  # of the logarithm of radius: the largest of a scene has about three times the radius of the smallest
OUTLINE = 0.16  # radii by which the outline wavers
LENS = np.array([0.038, 0.240, 0.444, 0.240, 0.038], dtype=np.float32)  # a Gaussian of 0.9 pixels deviation
TRIES = 12  # places tried per cell before it is given up


def cell_sample(key: str, shape: tuple[int, ...], generator: np.random.Generator) -> Sample:
    """One scene with its exact truth: an image uint8 (1, *S), the background as stuff and each cell as an object."""
    labels, depth = _cells(shape, generator)
    image = _photograph(labels, depth, generator)
    present = np.flatnonzero(np.bincount(labels.ravel()))  # 0 is the background
    segment_of = np.zeros(int(present.max()) + 1, dtype=np.int32)
    segment_of[present] = np.arange(1, len(present) + 1)
    numbers = np.cumsum(present > 0) * (present > 0)  # 1, 2, ... without the cells that ended up hidden
    truth = Segmentation.panoptic(segment_of[labels], (present > 0).astype(np.int32), numbers, classes=CLASSES)
    return Sample.of(key, image[None], truth)


def _cells(shape: tuple[int, ...], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Number of the cell at each pixel, int32 (*S), and how far out in it a pixel lies: 0 its centre, 1 its outline."""
    axes = len(shape)
    typical = float(np.clip(min(shape) / (15 if axes == 2 else 5), 3.5, 11.0))  # radius in pixels: some 50 cells in 192 x 256
    volume = np.pi * typical**2 if axes == 2 else 4.19 * typical**3  # 4.19: volume of the unit sphere
    count = max(2, int(generator.uniform(0.18, 0.42) * np.prod(shape) / volume))  # share of the image that they would fill
    radii = typical * np.exp(SPREAD * np.clip(generator.standard_normal(count), -2, 2))
    outline = smooth_noise(shape, typical * 0.8, generator)
    labels, depth = np.zeros(shape, dtype=np.int32), np.full(shape, OUTSIDE)
    places: list[np.ndarray] = []
    kept: list[float] = []
    for radius in radii:
        place = _free_place(places, kept, radius, shape, generator)
        if place is None:
            continue
        places.append(place)
        kept.append(radius)
        _grow(labels, depth, len(places), place, radius, outline, generator)
    return labels, depth


def _free_place(
    places: list[np.ndarray], radii: list[float], radius: float, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray | None:
    """A centre that hides no other cell; every second try is beside one, so that cells touch and form groups."""
    for attempt in range(TRIES):
        if places and attempt % 2 == 0:
            neighbour = int(generator.integers(len(places)))
            direction = generator.standard_normal(len(shape))
            direction /= np.linalg.norm(direction) + 1e-9
            place = places[neighbour] + direction * (radii[neighbour] + radius) * generator.uniform(TOUCHING, 1.1)
        else:
            place = generator.uniform(0, shape)
        inside = (place > 0).all() and (place < shape).all()
        if inside and (
            not places
            or (np.linalg.norm(np.array(places) - place, axis=1) > TOUCHING * 0.95 * (np.array(radii) + radius)).all()
        ):
            return place
    return None


def _grow(
    labels: np.ndarray,
    depth: np.ndarray,
    number: int,
    place: np.ndarray,
    radius: float,
    outline: np.ndarray,
    generator: np.random.Generator,
) -> None:
    """Draw one wavering ellipsoid into both arrays, in place; where it meets another, the nearer centre wins."""
    axes = len(place)
    stretch = np.exp(generator.uniform(-0.25, 0.25, axes))
    rotation, _ = np.linalg.qr(generator.standard_normal((axes, axes)))
    whiten = (rotation / (radius * stretch / stretch.prod() ** (1 / axes))).T.astype(np.float32)  # pixels to radii
    reach = radius * 1.7
    box = tuple(slice(max(0, int(c - reach)), int(c + reach) + 1) for c in place)
    steps = [
        np.arange(part.start, min(part.stop, size)) + 0.5 - c for part, size, c in zip(box, labels.shape, place, strict=True)
    ]
    squared = np.zeros([len(step) for step in steps], dtype=np.float32)
    for row in whiten:
        along = sum(
            (weight * step.astype(np.float32)).reshape([-1 if axis == a else 1 for a in range(axes)])
            for axis, (weight, step) in enumerate(zip(row, steps, strict=True))
        )
        squared += along**2
    out = np.sqrt(squared) + np.float32(OUTLINE) * outline[box]
    won = (out < 1) & (out < depth[box])
    labels[box][won] = number
    depth[box][won] = np.maximum(out, 0)[won]


def _photograph(labels: np.ndarray, depth: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The image uint8 (*S) that a microscope would take of these cells."""
    shape, count = labels.shape, int(labels.max())
    grain, clumps = generator.standard_normal(shape, dtype=np.float32), smooth_noise(shape, 4.5, generator)
    brightness = np.exp(0.35 * generator.standard_normal(count + 1)).astype(np.float32)  # some cells are dim
    brightness[0] = 0
    body = brightness[labels] * (1.0 - 0.55 * np.minimum(depth, 1.0) ** 3) * (1.0 + 0.18 * grain + 0.16 * clumps)
    body *= 1.0 - 0.35 * (clumps > 1.3)  # dark nucleoli
    haze = 0.10 + 0.05 * np.maximum(smooth_noise(shape, 26.0, generator), 0)  # light from cells out of focus
    specks = (generator.random(shape, dtype=np.float32) > 0.9997) * np.float32(6.0)  # dust, which is no cell
    light = np.exp(0.22 * smooth_noise(shape, max(shape) / 1.8, generator))
    scene = _blurred((np.maximum(body, 0) + haze + specks) * light)
    photons = generator.uniform(60.0, 250.0)  # fewer photons, more noise
    noisy = scene + np.sqrt(np.maximum(scene, 0) / photons) * generator.standard_normal(shape, dtype=np.float32)
    noisy += 0.012 * generator.standard_normal(shape, dtype=np.float32)  # of the camera itself
    return np.clip(noisy * generator.uniform(100, 140) + 6, 0, 255).astype(np.uint8)


def _blurred(array: np.ndarray) -> np.ndarray:
    """An array (*S) seen through a lens: blurred along each axis by a Gaussian, border pixels repeated."""
    for axis, size in enumerate(array.shape):
        padded = np.pad(array, [(2, 2) if other == axis else (0, 0) for other in range(array.ndim)], mode="edge")
        array = np.stack([weight * padded.take(range(tap, tap + size), axis) for tap, weight in enumerate(LENS)]).sum(axis=0)
    return array
