"""A view of a street that is painted far to near, so that image and truth come from one drawing and agree to the pixel.

Axes: H, W of the result; P corners of a polygon, N polygons; corners are (x, y, z) in metres, see street_world.py.
"""

import cv2
import numpy as np

from segwright.formats.synthetic.smooth_noise import smooth_noise
from segwright.formats.synthetic.street_world import GRASS, HORIZON, PAVEMENT, ROAD, SKY, Street

FINE = np.array([0.004, 0.030, 0.030, 0.075, 0.030, 0.120, 0.020, 0.012, 0.030], dtype=np.float32)  # grain per class
COARSE = np.array([0.010, 0.050, 0.040, 0.070, 0.035, 0.110, 0.010, 0.010, 0.020], dtype=np.float32)  # patches per class
TOP_OF_SKY = ((78, 132, 205), (128, 160, 200), (170, 178, 188), (110, 120, 168))  # clear, light, overcast, evening
EDGE_OF_SKY = ((186, 212, 236), (222, 228, 232), (206, 208, 210), (250, 204, 160))
CLOUD = (246, 246, 248)
SENSOR_NOISE = 2.6  # grey levels
SAMPLES = 2  # drawn per pixel and axis; four samples soften the edges, and the truth is one of them
SUBPIXEL_BITS = 4  # OpenCV takes corners in sixteenths of a drawn pixel
NEAR = 0.7  # metres before the camera at which the world is cut off


class Canvas:
    """Polygons in the order of painting. Each has a colour and an owner: the number of the segment that it belongs to."""

    def __init__(self, street: Street, shape: tuple[int, ...], camera_z: float) -> None:
        height, width = self.shape = shape
        self.street, self.camera_z = street, camera_z
        self.focal = street.focal * width * SAMPLES
        self.middle = np.array([width * (0.5 - 0.02 * street.sun), height * street.horizon]) * SAMPLES
        self.polygons: list[np.ndarray] = []  # (N, P, 3) per paint
        self.colors: list[np.ndarray] = []
        self.owners: list[int] = []
        self.shadows: list[tuple[np.ndarray, float]] = []

    def paint(self, polygons: np.ndarray, color: np.ndarray, owner: int) -> None:
        """Fill one polygon (P, 3) or several that do not overlap (N, P, 3) with one RGB colour."""
        if polygons.size:
            self.polygons.append(polygons if polygons.ndim == 3 else polygons[None])
            self.colors.append(color)
            self.owners.append(owner)

    def darken(self, polygon: np.ndarray, strength: float) -> None:
        """A shadow (P, 3) on the ground, 0 for none to 1 for black; it belongs to no segment and lies on ground only."""
        self.shadows.append((polygon, strength))

    def finish(self, class_of: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The image uint8 (H, W, 3) and the owner of each pixel int32 (H, W); `class_of` (N,) is the class of each owner."""
        groups = [group.reshape(-1, 3) for group in self.polygons]
        corners = np.concatenate(groups)
        starts = np.cumsum([0, *map(len, groups[:-1])])
        depths = corners[:, 2] - self.camera_z
        paints = self._painted(corners, np.maximum.reduceat(depths, starts) > NEAR)
        owners = np.array([SKY, *self.owners], dtype=np.int32)
        segments = owners[paints[::SAMPLES, ::SAMPLES]]
        is_ground = np.isin(owners, (ROAD, PAVEMENT, GRASS))
        distances = np.add.reduceat(depths, starts) / np.array([len(group) for group in groups])
        image = self._lit(paints, distances, is_ground)
        return self._photographed(image, class_of[segments], generator), segments

    def _painted(self, corners: np.ndarray, is_before: np.ndarray) -> np.ndarray:
        """Number of the paint of each sample, 0 for the sky, uint16 (H * SAMPLES, W * SAMPLES)."""
        paints = np.zeros([size * SAMPLES for size in self.shape], dtype=np.uint16)
        pixels = self._project(corners)
        start = 0
        for number, group in enumerate(self.polygons):
            count, size, _ = group.shape
            if is_before[number]:
                shapes = pixels[start : start + count * size].reshape(count, size, 2)
                cv2.fillPoly(paints, list(shapes), number + 1, cv2.LINE_8, SUBPIXEL_BITS)
            start += count * size
        return paints

    def _project(self, corners: np.ndarray) -> np.ndarray:
        """Corners (N, 3) in sixteenths of a sample, int32 (N, 2)."""
        cos, sin = np.cos(self.street.roll), np.sin(self.street.roll)
        scale = self.focal / np.maximum(corners[:, 2:] - self.camera_z, NEAR)
        offset = (corners[:, :2] - (self.street.camera_x, self.street.camera_y)) * scale * (1, -1)
        pixels = self.middle + offset @ np.array([[cos, sin], [-sin, cos]])
        return np.clip(pixels * 2**SUBPIXEL_BITS, -(2**20), 2**20).astype(np.int32)  # 2**20: farther than any image reaches

    def _lit(self, paints: np.ndarray, distances: np.ndarray, is_ground: np.ndarray) -> np.ndarray:
        """The colours of the paints in air and light, float32 (H, W, 3)."""
        height, width = self.shape
        clear = np.exp(-np.maximum(distances, 0) / self.street.haze)[:, None]
        pale = np.array(self.colors) * clear + np.array(EDGE_OF_SKY[self.street.sky]) * (1 - clear)
        table = np.zeros((len(pale) + 1, 4), dtype=np.uint8)  # four bytes, so that one index fetches a colour; sky is black
        table[1:, :3] = np.clip(pale, 0, 255)
        samples = table.view(np.uint32)[:, 0][paints].view(np.uint8).reshape(*paints.shape, 4)
        image = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)[..., :3].astype(np.float32)
        shade = np.full(paints.shape, 255, dtype=np.uint8)
        for polygon, strength in self.shadows:
            if polygon[:, 2].max() > self.camera_z + NEAR:
                cv2.fillPoly(shade, [self._project(polygon)], int(255 * (1 - strength)), cv2.LINE_8, SUBPIXEL_BITS)
        soft = cv2.blur(shade, (5, 5))
        soft[~is_ground[paints]] = 255
        image *= cv2.resize(soft, (width, height), interpolation=cv2.INTER_AREA)[..., None] / np.float32(255)
        open_sky = cv2.resize((paints == 0).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        return image + self._sky() * open_sky[..., None]

    def _sky(self) -> np.ndarray:
        """Sky and clouds, float32 (H, W, 3): from the colour at the top to the one at the horizon."""
        height, width = self.shape
        down = np.clip(np.arange(height, dtype=np.float32) / (height * self.street.horizon), 0, 1)[:, None, None] ** 1.3
        top, edge, cloud = np.array((TOP_OF_SKY[self.street.sky], EDGE_OF_SKY[self.street.sky], CLOUD), dtype=np.float32)
        sky = top * (1 - down) + edge * down
        noise = np.random.default_rng([self.street.seed, 1])
        small = (max(2, height // 4), max(2, width // 4))  # clouds are soft: a quarter of the size is enough
        cover = smooth_noise(small, (small[0] / 8, small[1] / 4), noise) * 0.6
        cover += smooth_noise(small, (small[0] / 20, small[1] / 10), noise) * 0.36 - 0.1
        clouds = cv2.resize(np.clip(cover, 0, 1), (width, height))[..., None] * np.float32(0.75)
        return sky + (cloud - sky) * clouds

    def _photographed(self, image: np.ndarray, class_map: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The image uint8 (H, W, 3) with texture, uneven light, blur and noise; patches stay through a drive."""
        street, shape = self.street, self.shape
        fixed = np.random.default_rng(street.seed)
        grain = cv2.GaussianBlur(generator.standard_normal(shape, dtype=np.float32), (3, 3), 0.7) * np.float32(1.8)
        patches = smooth_noise(shape, (2.5, 6.0), fixed) + smooth_noise(shape, (9.0, 22.0), fixed)
        texture = 1.0 + FINE[class_map] * grain + COARSE[class_map] * patches * np.float32(0.6)
        texture *= (1.0 + 0.05 * smooth_noise(shape, max(shape) / 2.0, fixed)) * np.float32(street.exposure)
        image = cv2.GaussianBlur(image * (texture[..., None] * np.array(street.tint, dtype=np.float32)), (3, 3), 0.45)
        image += np.float32(SENSOR_NOISE) * generator.standard_normal(image.shape, dtype=np.float32)
        return np.clip(image, 0, 255).astype(np.uint8)


def ground_bands(camera_z: float, cuts: tuple[float, ...]) -> list[tuple[float, float]]:
    """The ground before the camera in pieces (z0, z1), far to near, because each paint has one distance and one haze."""
    edges = [camera_z + cut for cut in (HORIZON, *cuts, NEAR)]
    return [(near, far) for far, near in zip(edges[:-1], edges[1:], strict=True)]
