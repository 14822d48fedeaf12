"""Scale, rotate, flip, bend and crop in one resampling, image and truth together.

A source coordinate is known for one output pixel in STEP per axis (the nodes); it is affine plus a smooth displacement.
Between the nodes it is interpolated inside the kernel, so no field of coordinates exists at full size, and every output
pixel is computed once, from the image as it is stored. Pixel centres lie at +0.5.

Axes: C channels, P planes, n = 2 or 3 spatial axes, *S of the sample, *T of the output, *G of the nodes, K classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from segwright.core import VOID, Grid, Sample, Segmentation
from segwright.core.errors import SettingError, ShapeError
from segwright.transforms.random_settings import check_probability, happens

STEP = 8  # output pixels between nodes; linear steps of 8 cannot be told from a smooth curve that bends every 60 pixels
CELLS = 5  # control cells per axis of the elastic displacement: a 320 pixel crop bends about every 64 pixels
THICK = 3  # times the smallest spacing, as in nnU-Net: between slices that far apart nothing is interpolated
KERNEL_DTYPES = ("uint8", "uint16", "int16", "float32")  # what files hold; anything else is turned into float32 first


Centre = Callable[[np.random.Generator], np.ndarray | None]


def anywhere(generator: np.random.Generator) -> None:
    """No pixel to centre a crop on."""


@dataclass(frozen=True, kw_only=True)
class Geometric:
    """Random change of place. The defaults are those of the published SegFormer and DeepLab recipes.

    `scale` is the range of the magnification, drawn log-uniformly. `rotate_deg` bounds the angle, drawn uniformly to both
    sides; a volume turns around each axis, in millimetres where its spacing is known. Thick slices stay slices, scaled, turned
    and bent in their own plane alone. `flip_axes` counts spatial axes from the end ((-1,) is left-right); each is flipped with
    probability 0.5. `elastic_px` is the standard deviation, in output pixels, of a smooth displacement with 5 control cells per
    axis; above an eighth of a cell (a 40th of the crop's side) the image begins to fold. The U-Net paper instead draws 3 x 3
    vectors of 10 pixels over a tile of 572 and interpolates bicubically: wider waves, as steep as those of an `elastic_px` of
    0.8 % of the side, 4.6 on such a tile. Each of the three is made with its own probability; nnU-Net's default turns one crop
    in five, and scales one in five.

    A crop is interpolated linearly, which takes detail from it that images have at prediction, unless none of the three is
    made: then its pixels are those of the sample.

    Source of the deformation: Ronneberger et al. 2015, arXiv:1505.04597, section 3.1.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    rotate_deg: float = 0.0
    flip_axes: tuple[int, ...] = (-1,)
    elastic_px: float = 0.0
    scale_probability: float = 1.0
    rotate_probability: float = 1.0
    elastic_probability: float = 1.0

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high:
            raise SettingError(f"scale is {self.scale}; give a smallest and a largest magnification, such as (0.5, 2.0)")
        if self.rotate_deg < 0 or self.elastic_px < 0:
            raise SettingError(
                f"rotate_deg is {self.rotate_deg} and elastic_px {self.elastic_px}; both reach to both sides, give 0 or more"
            )
        if any(axis not in (-1, -2, -3) for axis in self.flip_axes):
            raise SettingError(f"flip_axes is {self.flip_axes}; count axes from the end: -1 columns, -2 rows, -3 slices")
        for name in ("scale_probability", "rotate_probability", "elastic_probability"):
            check_probability(name, getattr(self, name))

    def __call__(
        self, sample: Sample, shape: tuple[int, ...], generator: np.random.Generator, centre: Centre = anywhere
    ) -> Sample:
        """A crop of spatial shape *T from a sample: image float32 (C, *T), truth planes (P, *T).

        `centre(generator)` is the pixel (n,) that the crop is centred on, as far as the image allows, or None for any place.
        Outside the sample the image is its reflection and the truth VOID. Missing values (NaN) are not mixed with their
        neighbours: a pixel lacks its value where the nearest of the sample does. The place in the world (`affine`) is dropped,
        since a bent image has none.

        Raises:
            ShapeError: the shape and the sample differ in the number of axes, or a flipped axis does not exist.
        """
        return self.placement(sample.key, sample.grid, shape, generator, centre).crop(sample)

    def placement(
        self, key: str, grid: Grid, shape: tuple[int, ...], generator: np.random.Generator, centre: Centre = anywhere
    ) -> "CropPlacement":
        """Where a crop lies that is drawn as above, of a sample of which no more than its grid is known.

        Raises:
            ShapeError: as above.
        """
        if len(shape) != len(grid.shape):
            raise ShapeError(f"sample {key!r} has {len(grid.shape)} axes, the crop {shape}; give one side per axis")
        if any(-axis > len(shape) for axis in self.flip_axes):
            raise ShapeError(f"sample {key!r} has {len(shape)} axes, flip_axes is {self.flip_axes}; leave out the rest")
        scale = math.exp(generator.uniform(*np.log(self.scale))) if happens(self.scale_probability, generator) else 1.0
        degrees = self.rotate_deg if happens(self.rotate_probability, generator) else 0.0
        spacing_mm = grid.spacing_mm
        scales = np.where(_thick(len(shape), spacing_mm), 1.0, scale)
        matrix = rotation(len(shape), degrees, spacing_mm, generator) / scales
        for axis in self.flip_axes:
            if generator.random() < 0.5:
                matrix[:, axis] *= -1
        middle = place(grid.shape, np.array(shape) / scales, centre(generator), generator)
        elastic_px = self.elastic_px if happens(self.elastic_probability, generator) else 0.0
        nodes = source_nodes(shape, matrix, middle, np.where(_thick(len(shape), spacing_mm), 0.0, elastic_px), generator)
        return CropPlacement(shape, nodes, grid.shape, spacing_mm and tuple((np.array(spacing_mm) / scales).tolist()))


@dataclass(frozen=True, eq=False)
class CropPlacement:
    """Where the pixels of a crop of shape *T come from, in a sample of the shape `source`, *S.

    `nodes` are the source index coordinates, float64 (n, *G), of the output pixels 0, STEP, 2 STEP, ...; the crop's pixels have
    the size `spacing_mm`.
    """

    shape: tuple[int, ...]
    nodes: np.ndarray
    source: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None = None

    def window(self) -> tuple[slice, ...]:
        """The part of the sample that the crop is made of, what is mirrored at its borders included."""
        window = []
        for coordinates, side in zip(self.nodes, self.source, strict=True):
            low, high = math.floor(coordinates.min()), math.floor(coordinates.max()) + 1
            period = max(2 * side - 2, 1)
            places = np.abs(np.arange(low - 1, high + 2)) % period  # one more to both sides, for rounding between the nodes
            places = np.minimum(places, period - places)
            window.append(slice(int(places.min()), int(places.max()) + 1))
        return tuple(window)

    def crop(self, part: Sample, first: tuple[int, ...] | None = None) -> Sample:
        """The crop of the sample, or of a part that holds `window()` and begins at the pixel `first` (n,): alike to the bit."""
        image = part.image if part.image.dtype.name in KERNEL_DTYPES else part.image.astype(np.float32)
        truth = part.truth
        planes = truth.planes if truth is not None else np.empty((0, *part.grid.shape), np.int32)
        image_out = np.empty((len(image), *self.shape), np.float32)
        planes_out = np.empty((len(planes), *self.shape), np.int32)
        kernel = _resample_2d if len(self.shape) == 2 else _resample_3d
        begin = np.array(first or (0,) * len(self.shape), np.int64)
        kernel(image, planes, self.nodes, np.array(self.source, np.int64), begin, image_out, planes_out)
        if truth is not None:
            truth = Segmentation(planes_out, truth.class_ids, truth.instance_ids, truth.scores, truth.classes)
        return Sample(part.key, image_out, Grid(self.shape, self.spacing_mm), truth)


def _thick(axes: int, spacing_mm: tuple[float, ...] | None) -> np.ndarray:
    """Whether the pixels of each axis of a volume are thick, bool (n,); of no image."""
    spacing = np.array(spacing_mm or (1.0,) * axes)
    return (axes == 3) & (spacing > THICK * spacing.min())


def rotation(axes: int, degrees: float, spacing_mm: tuple[float, ...] | None, generator: np.random.Generator) -> np.ndarray:
    """Matrix (n, n) on pixel offsets that turns by random angles in each plane of two axes, rigid in millimetres.

    Thick slices are turned in their own plane alone.
    """
    matrix, thick = np.eye(axes), _thick(axes, spacing_mm)
    for first in range(axes):
        for second in range(first + 1, axes):
            angle = math.radians(generator.uniform(-degrees, degrees))
            if thick[first] or thick[second]:
                continue
            turn = np.eye(axes)
            turn[[first, second], [first, second]] = math.cos(angle)
            turn[first, second], turn[second, first] = -math.sin(angle), math.sin(angle)
            matrix = turn @ matrix
    size = np.array(spacing_mm or (1.0,) * axes)
    return matrix * (size[None, :] / size[:, None])


def place(source: tuple[int, ...], extent: np.ndarray, pixel: np.ndarray | None, generator: np.random.Generator) -> np.ndarray:
    """Centre (n,) of a crop that covers `extent` pixels of a `source` of shape *S, on a pixel (n,) or anywhere.

    Steps from the first possible place are whole pixels, so that a crop at scale 1 falls on pixels exactly. An axis of the
    source that is shorter than the crop lies anywhere within it.
    """
    ends = np.stack([extent / 2, np.array(source) - extent / 2])
    first, steps = ends.min(axis=0), np.floor(np.ptp(ends, axis=0)).astype(int)
    if pixel is None:
        return first + generator.integers(0, steps + 1)
    return first + np.clip(np.rint(pixel + 0.5 - first), 0, steps)


def source_nodes(
    shape: tuple[int, ...], matrix: np.ndarray, centre: np.ndarray, elastic_px: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Source index coordinates, float64 (n, *G), of the output pixels 0, STEP, 2 STEP, ... along each axis.

    `elastic_px` is the standard deviation (n,) of the displacement along each axis.
    """
    steps = [STEP * np.arange(-(-side // STEP) + 1) for side in shape]
    offsets = np.stack(np.meshgrid(*(at + 0.5 - side / 2 for at, side in zip(steps, shape, strict=True)), indexing="ij"))
    if elastic_px.any():
        noise = spline_noise([CELLS * at / side for at, side in zip(steps, shape, strict=True)], generator)
        offsets += elastic_px.reshape(-1, *[1] * len(shape)) * noise
    return np.tensordot(matrix, offsets, axes=1) + (centre - 0.5).reshape(-1, *[1] * len(shape))


def spline_noise(positions: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Random field (n, *G) of standard deviation 1 at the positions along each axis: a cubic B-spline of unit cells."""
    bases = [_spline_basis(at) for at in positions]
    field = generator.standard_normal((len(bases), *(basis.shape[1] for basis in bases)))
    for axis, basis in enumerate(bases, start=1):
        field = np.moveaxis(np.tensordot(basis, field, axes=(1, axis)), 0, axis)
    return field


def _spline_basis(position: np.ndarray) -> np.ndarray:
    """Weights (G, number of controls) of control values at -1, 0, 1, ...; unit noise in gives unit noise out, on average."""
    control = np.arange(-1, math.floor(position.max()) + 3)  # 3: a cubic reaches two controls past its cell
    distance = np.abs(position[:, None] - control)
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6  # the cubic B-spline's two arcs
    basis = np.where(distance < 1, near, far)
    return basis / math.sqrt((basis**2).sum(axis=1).mean())


@njit(cache=True, nogil=True, inline="always")
def reflected(index: int, side: int) -> int:
    """The index inside 0 .. side - 1 that shows at `index` when an axis is mirrored at its first and last pixel."""
    while index < 0 or index >= side:  # a loop and not a remainder: one turn nearly always, and no slow division
        index = -index if index < 0 else 2 * side - 2 - index
        if side == 1:
            index = 0
    return index


@njit(cache=True, nogil=True)
def _resample_2d(
    image: np.ndarray,
    planes: np.ndarray,
    nodes: np.ndarray,
    source: np.ndarray,
    first: np.ndarray,
    image_out: np.ndarray,
    planes_out: np.ndarray,
) -> None:
    """Fill the image bilinearly and the planes by nearest neighbour, both at the same source coordinate, row by row.

    `image` and `planes` are what is at hand of a sample of the shape `source`: they begin at its pixel `first`.
    """
    C, (H, W) = len(image), source
    width = image_out.shape[2]
    line = np.empty((2, nodes.shape[2] * STEP))  # source coordinates of an output row
    top, bottom, left, right = np.empty((4, width), np.uint32)  # unsigned: an index counts from the front, which saves a check
    (dy, dx), (row, column) = np.empty((2, width), np.float32), np.empty((2, width), np.int32)
    low, high, share = np.zeros(3, np.int64), np.zeros(3, np.int64), np.zeros(3, np.float32)  # as of a volume of one slice
    for i in range(image_out.shape[1]):
        _source_line(nodes, i, line)
        _neighbours(line[0], H, first[0], top, bottom, dy)
        _neighbours(line[1], W, first[1], left, right, dx)
        for c in range(C):
            plane, values = image[c], image_out[c, i]
            for j in range(width):
                above, below = np.float32(plane[top[j], left[j]]), np.float32(plane[bottom[j], left[j]])
                above += dx[j] * (np.float32(plane[top[j], right[j]]) - above)
                below += dx[j] * (np.float32(plane[bottom[j], right[j]]) - below)
                values[j] = above + dy[j] * (below - above)
            if not _has_nan(values):
                continue
            for j in range(width):
                if np.isnan(values[j]):
                    low[1], low[2], high[1], high[2], share[1], share[2] = top[j], left[j], bottom[j], right[j], dy[j], dx[j]
                    values[j] = _between_known(image[c : c + 1], low, high, share)
        if len(planes):
            _nearest(line[0], row)
            _nearest(line[1], column)
        for p in range(len(planes)):
            plane, labels = planes[p], planes_out[p, i]
            for j in range(width):
                known = 0 <= row[j] < H and 0 <= column[j] < W
                labels[j] = plane[row[j] - first[0], column[j] - first[1]] if known else VOID


@njit(cache=True, nogil=True)
def _source_line(nodes: np.ndarray, i: int, line: np.ndarray) -> None:
    """Source coordinates of output row `i`, float64 (2, at least W), from those of the nodes (2, *G)."""
    node, part = i // STEP, (i % STEP) / STEP
    for axis in range(2):
        upper, lower, coordinates = nodes[axis, node], nodes[axis, node + 1], line[axis]
        for g in range(nodes.shape[2] - 1):
            first = upper[g] + part * (lower[g] - upper[g])
            step = upper[g + 1] + part * (lower[g + 1] - upper[g + 1]) - first
            for j in range(STEP):
                coordinates[g * STEP + j] = first + j / STEP * step


@njit(cache=True, nogil=True)
def _neighbours(coordinates: np.ndarray, side: int, begin: int, low: np.ndarray, high: np.ndarray, part: np.ndarray) -> None:
    """The pixels before and after each coordinate on an axis, reflected at its border, and how far it lies from the first.

    They are counted from the pixel `begin`.
    """
    outside = False
    for j in range(len(low)):
        at = int(math.floor(coordinates[j]))
        part[j] = np.float32(coordinates[j] - at)
        low[j], high[j] = at - begin, at + 1 - begin
        outside |= at < 0 or at + 1 >= side
    if outside:
        for j in range(len(low)):
            at = int(math.floor(coordinates[j]))
            low[j], high[j] = reflected(at, side) - begin, reflected(at + 1, side) - begin


@njit(cache=True, nogil=True)
def _has_nan(values: np.ndarray) -> bool:
    """Whether a value is missing, asked of all at once, which takes a tenth of the time of one after the other."""
    found = False
    for value in values:
        found |= value != value
    return found


@njit(cache=True, nogil=True)
def _nearest(coordinates: np.ndarray, index: np.ndarray) -> None:
    """The pixel nearest to each coordinate on an axis, wherever that is."""
    for j in range(len(index)):
        index[j] = np.int32(math.floor(coordinates[j] + 0.5))


@njit(cache=True, nogil=True)
def _resample_3d(
    image: np.ndarray,
    planes: np.ndarray,
    nodes: np.ndarray,
    source: np.ndarray,
    first: np.ndarray,
    image_out: np.ndarray,
    planes_out: np.ndarray,
) -> None:
    """As resample_2d, trilinearly, on (D, H, W)."""
    line = np.empty((3, nodes.shape[3]))
    at, low, high, part = np.empty(3), np.empty(3, np.int64), np.empty(3, np.int64), np.empty(3, np.float32)
    for k in range(image_out.shape[1]):
        z, dz = k // STEP, (k % STEP) / STEP
        for i in range(image_out.shape[2]):
            y, dy = i // STEP, (i % STEP) / STEP
            for axis in range(3):
                for g in range(nodes.shape[3]):
                    front = nodes[axis, z, y, g] + dy * (nodes[axis, z, y + 1, g] - nodes[axis, z, y, g])
                    back = nodes[axis, z + 1, y, g] + dy * (nodes[axis, z + 1, y + 1, g] - nodes[axis, z + 1, y, g])
                    line[axis, g] = front + dz * (back - front)
            for j in range(image_out.shape[3]):
                x, dx = j // STEP, (j % STEP) / STEP
                known = True
                for axis in range(3):
                    at[axis] = line[axis, x] + dx * (line[axis, x + 1] - line[axis, x])
                    low[axis] = int(math.floor(at[axis]))
                    part[axis] = np.float32(at[axis] - low[axis])
                    high[axis] = low[axis] + 1
                    if low[axis] < 0 or high[axis] >= source[axis]:
                        low[axis], high[axis] = reflected(low[axis], source[axis]), reflected(high[axis], source[axis])
                    low[axis], high[axis] = low[axis] - first[axis], high[axis] - first[axis]
                    at[axis] = math.floor(at[axis] + 0.5)
                    known = known and 0 <= at[axis] < source[axis]
                    at[axis] -= first[axis]
                for c in range(len(image)):
                    front = _bilinear(image[c, low[0]], low, high, part)
                    back = _bilinear(image[c, high[0]], low, high, part)
                    value = front + part[0] * (back - front)
                    image_out[c, k, i, j] = _between_known(image[c], low, high, part) if np.isnan(value) else value
                for p in range(len(planes)):
                    planes_out[p, k, i, j] = planes[p, int(at[0]), int(at[1]), int(at[2])] if known else VOID


@njit(cache=True, nogil=True, inline="always")
def _bilinear(plane: np.ndarray, low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.float32:
    """Value of a slice (H, W) between the rows and columns `low` and `high`, entries 1 and 2 of each."""
    above, below = np.float32(plane[low[1], low[2]]), np.float32(plane[high[1], low[2]])
    above += part[2] * (np.float32(plane[low[1], high[2]]) - above)
    below += part[2] * (np.float32(plane[high[1], high[2]]) - below)
    return above + part[1] * (below - above)


@njit(cache=True, nogil=True)
def _between_known(volume: np.ndarray, low: np.ndarray, high: np.ndarray, part: np.ndarray) -> np.float32:
    """Value of (D, H, W) between the corners `low` and `high`, of which some are missing; NaN where the nearest one is."""
    near = np.empty(3, np.int64)
    for axis in range(3):
        near[axis] = high[axis] if part[axis] >= 0.5 else low[axis]
    if np.isnan(volume[near[0], near[1], near[2]]):
        return np.float32(np.nan)
    total, weights = np.float32(0), np.float32(0)
    for corner in range(8):
        weight = np.float32(1)
        for axis in range(3):
            is_high = corner >> axis & 1
            near[axis] = high[axis] if is_high else low[axis]
            weight *= part[axis] if is_high else 1 - part[axis]
        value = np.float32(volume[near[0], near[1], near[2]])
        if not np.isnan(value):
            total += weight * value
            weights += weight
    return total / weights
