"""Textured shapes on textured grounds, and tissues of cells, drawn by the seed: what a click network learns borders from.

Nothing of anybody's pictures is in them. Axes: C = 3 channels, N objects, H, W.
"""

import cv2
import numpy as np
from scipy.spatial import cKDTree

from segwright.core import Classes, Dataset, Sample, Segmentation

CLASSES = Classes.of(["shape"], is_thing=[True])
SIDE = 256  # pixels of an image
FEWEST, MOST = 2, 12  # objects
SMALLEST, LARGEST = 6.0, 110.0  # pixels of the radius, spread evenly in its logarithm
LIKE_ANOTHER = 0.4  # of the objects look like one before: colour alone must not tell objects apart
OCTAVES = (2, 6, 18, 60)  # cells of noise along a side, from clouds to grain
TISSUES = 0.25  # of the images: cells of one look that only the rims between them tell apart
FEWEST_CELLS, MOST_CELLS = 6, 80  # of a tissue, spread evenly in their logarithm
BEND = 10.0  # pixels by which the walls of a tissue are bent at most


def drawn_objects(count: int, seed: int = 0) -> Dataset:
    """So many images (3, 256, 256) of shapes, drawn when they are asked for; image n depends on the seed and n alone."""
    keys = tuple(f"shapes_{seed}_{number:05d}" for number in range(count))
    return Dataset("drawn shapes", CLASSES, keys, lambda key: _drawn(key, int(key.rpartition("_")[2]), seed))


def _drawn(key: str, number: int, seed: int) -> Sample:
    """One image with its truth."""
    rng = np.random.default_rng([seed, number])
    image, labels = _tissue(rng) if rng.random() < TISSUES else _shapes(rng)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3)) + rng.normal(0, rng.uniform(0, 8), image.shape)
    if rng.random() < 0.3:  # grey, as microscopes see
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    pixels = np.ascontiguousarray(np.clip(image, 0, 255).astype(np.uint8).transpose(2, 0, 1))
    count = int(labels.max())
    truth = Segmentation.panoptic(labels, np.zeros(count, np.int32), np.arange(1, 1 + count), classes=CLASSES)
    return Sample.of(key, pixels, truth)


def _shapes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An image float32 (H, W, 3) and its labels int32 (H, W): each shape lies on those before it."""
    image, labels = _texture(rng), np.zeros((SIDE, SIDE), np.int32)
    looks: list[np.ndarray] = []
    radii = np.sort(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST), rng.integers(FEWEST, MOST + 1))))[::-1]
    for index, radius in enumerate(radii, start=1):
        is_like = bool(looks) and rng.random() < LIKE_ANOTHER
        look = looks[rng.integers(len(looks))] if is_like else _texture(rng)
        looks.append(look)
        mask = _shape(rng, radius)
        if rng.random() < 0.5:  # a shadow, or a darker rim
            rim = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > mask
            image[rim] *= rng.uniform(0.4, 1.0)
        light = 1 + rng.uniform(-0.4, 0.4) * (np.arange(SIDE) / SIDE - 0.5)[:, None, None]  # from one side
        inside = mask.astype(bool)
        image[inside] = (np.roll(look, tuple(rng.integers(0, SIDE, 2)), axis=(0, 1)) * light)[inside]
        labels[inside] = index
    return image, labels


def _tissue(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As `_shapes`, of cells that fill the image: each pixel is of the nearest nucleus, and walls are where two are as near."""
    count = int(np.exp(rng.uniform(np.log(FEWEST_CELLS), np.log(MOST_CELLS))))
    image, places = _texture(rng), np.stack(np.mgrid[:SIDE, :SIDE], axis=-1).astype(np.float32)
    bend = cv2.resize(rng.normal(size=(8, 8, 2)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    nearest, cells = cKDTree(rng.uniform(0, SIDE, (count, 2))).query(places + rng.uniform(0, BEND) * bend, k=2)
    for _ in range(rng.integers(0, 60)):  # what lies in cells, and is part of them
        axes = tuple(map(int, rng.integers(1, 8, 2)))
        tone = (image.mean(axis=(0, 1)) * rng.uniform(0.5, 1.4)).tolist()
        cv2.ellipse(image, tuple(map(int, rng.integers(0, SIDE, 2))), axes, rng.uniform(0, 180), 0, 360, tone, -1)
    image *= rng.uniform(0.85, 1.15, count)[cells[..., 0], None]
    is_wall = nearest[..., 1] - nearest[..., 0] < rng.uniform(2, 7)  # twice the distance to the middle of the wall
    image[is_wall] *= rng.choice([rng.uniform(0.3, 0.75), rng.uniform(1.3, 1.8)])
    return image.astype(np.float32), np.where(is_wall, 0, 1 + cells[..., 0]).astype(np.int32)


def _texture(rng: np.random.Generator) -> np.ndarray:
    """A texture float32 (H, W, 3): a colour, noise at several sizes, and perhaps stripes."""
    image = np.full((SIDE, SIDE, 3), rng.uniform(20, 235, 3), np.float32)
    for cells in OCTAVES:
        noise = rng.normal(size=(cells, cells, 3 if rng.random() < 0.5 else 1)).astype(np.float32)
        size = cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).reshape(SIDE, SIDE, -1)
        image += rng.exponential(12.0) * size
    if rng.random() < 0.2:
        y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
        turn, period = rng.uniform(0, np.pi), rng.uniform(4, 40)
        image += rng.uniform(10, 50) * np.sin((x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / period)[..., None]
    return image


def _shape(rng: np.random.Generator, radius: float) -> np.ndarray:
    """The mask uint8 (H, W) of a shape: an ellipse, a polygon, a blob, a star, a bar or a ring."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    centre = rng.uniform(0, SIDE, 2)
    kind = rng.choice(["ellipse", "polygon", "blob", "star", "bar", "ring"])
    turn = rng.uniform(0, 2 * np.pi)
    if kind == "bar":
        along = np.array([np.cos(turn), np.sin(turn)]) * radius
        ends = [tuple(map(int, centre + way * along)) for way in (-1, 1)]
        cv2.line(mask, *ends, 1, int(max(3, radius * rng.uniform(0.15, 0.5))))
        return mask
    count = {"polygon": int(rng.integers(3, 8)), "star": 2 * int(rng.integers(4, 8))}.get(str(kind), 72)
    angles = turn + np.linspace(0, 2 * np.pi, count, endpoint=False)
    reach = np.full(count, radius)
    if kind == "polygon":
        reach *= rng.uniform(0.6, 1.2, count)
    elif kind == "star":
        reach[::2] *= rng.uniform(0.3, 0.7)
    elif kind == "blob":
        for wave in range(2, 6):
            reach += radius * rng.uniform(0, 0.15) * np.sin(wave * angles + rng.uniform(0, 2 * np.pi))
    flat = rng.uniform(0.4, 1.0)  # the shorter axis, of the longer
    points = np.stack([reach * np.cos(angles), flat * reach * np.sin(angles)], axis=1)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline = np.rint(points @ rotation.T + centre).astype(np.int32)
    cv2.fillPoly(mask, [outline], 1)
    if kind == "ring":
        cv2.fillPoly(mask, [np.rint((outline - centre) * rng.uniform(0.4, 0.7) + centre).astype(np.int32)], 0)
    return mask
