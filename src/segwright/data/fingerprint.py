"""What a data set looks like, in numbers: the ground on which a planner decides and a data card reports.

Axes: C channels, K classes, N segments, O objects, P planes, M pixels, *S spatial axes, (H, W) or (D, H, W).
"""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numba import njit

from segwright.core import VOID, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, ShapeError, UsageError
from segwright.core.missing import type_of, where_measured
from segwright.formats.drawn_shapes import lost, told
from segwright.metrics.connected_components import ALL_NEIGHBOURS, connected_components

log = logging.getLogger(__name__)

PLACE_STEP = 4  # of the pixels along each axis, one in four tells where a class lies as well as all of them
SAMPLED_PIXELS = 4_000_000  # of all images together: a mean then errs by 1/2000 of the spread, in some 50 MB
CENTRED = 0.08  # of a side: how far a class's mean place may lie from the middle before that axis has a direction


@dataclass(frozen=True, kw_only=True)
class IntensityStatistics:
    """Values of one channel over known pixels: mean, standard deviation, 0.5th, 50th and 99.5th percentile, both ends."""

    mean: float
    std: float
    low: float
    median: float
    high: float
    lowest: float
    highest: float


@dataclass(frozen=True, kw_only=True)
class ObjectSizes:
    """Sizes of the objects of one class in pixels: area, and the shorter (shortest) side of the box around each.

    An object is an instance where the truth has instances, else a connected piece (neighbours at corners count). The 5th
    percentile tells the small ones. All numbers are 0 for a class without objects.
    """

    count: int
    area_median: float
    area_5th: float
    extent_median: float
    extent_5th: float


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A data set in numbers; `dataclasses.asdict` of it goes to JSON as it is.

    `count` samples exist, all else was measured on `looked_at` of them, `with_truth` of which have a truth. Sizes are *S in
    pixels: `size_median` is taken per axis, `size_common` is the most frequent one (the largest of equals), `size_count` how
    many differ. `channels` and `dtypes` count the images of each kind. `spacings_mm` are those of the images that know theirs,
    `spacing_mm` is the median of them per axis. `mean_shift` is the spread (standard deviation) of the image means over the
    typical spread inside one image: near 0 for images alike in brightness, above 1 where one fixed normalisation would leave
    images outside each other's range. `class_fractions` are shares of the known pixels, `nothing_fraction` those known to hold
    no class, `void_fraction` the share of all pixels that are void. `class_images` counts the images that hold a class.
    `class_centres` is the mean place of each class's pixels per axis, from 0 (first) to 1 (last): far from 0.5 where the scene
    has an up. `is_thing` says which classes are things.
    """

    count: int
    looked_at: int
    with_truth: int
    class_names: tuple[str, ...]
    axes: int
    size_min: tuple[int, ...]
    size_median: tuple[int, ...]
    size_max: tuple[int, ...]
    size_common: tuple[int, ...]
    size_count: int
    channels: dict[int, int]
    dtypes: dict[str, int]
    spacing_mm: tuple[float, ...] | None
    spacings_mm: tuple[tuple[float, ...], ...]
    intensity: tuple[IntensityStatistics, ...]
    mean_shift: float
    class_fractions: tuple[float, ...]
    nothing_fraction: float
    void_fraction: float
    class_images: tuple[int, ...]
    class_centres: tuple[tuple[float, ...], ...]
    objects: tuple[ObjectSizes, ...]
    has_instances: bool
    is_thing: tuple[bool, ...]

    def at_scale(self, scale: float) -> "Fingerprint":
        """As it would be of images with `scale` times as many pixels along each axis, as far as sizes go."""
        return self._stretched((scale,) * self.axes)

    def at_spacing(self, spacing_mm: tuple[float, ...]) -> "Fingerprint":
        """As it would be of images whose pixels all have a size, where the usual size is known, as far as sizes go."""
        known = self.spacing_mm or spacing_mm
        return self._stretched(tuple(has / wants for has, wants in zip(known, spacing_mm, strict=True)))

    def _stretched(self, factors: tuple[float, ...]) -> "Fingerprint":
        """As it would be of images with a factor on the number of pixels along each axis; extents grow by its mean."""
        area, extent = math.prod(factors), math.prod(factors) ** (1 / self.axes)
        objects = [
            replace(
                sizes,
                area_median=sizes.area_median * area,
                area_5th=sizes.area_5th * area,
                extent_median=sizes.extent_median * extent,
                extent_5th=sizes.extent_5th * extent,
            )
            for sizes in self.objects
        ]
        sizes = (self.size_min, self.size_median, self.size_max, self.size_common)
        smallest, median, largest, common = (
            tuple(max(1, round(side * factor)) for side, factor in zip(each, factors, strict=True)) for each in sizes
        )
        spacing = self.spacing_mm and tuple(step / factor for step, factor in zip(self.spacing_mm, factors, strict=True))
        return replace(
            self,
            objects=tuple(objects),
            size_min=smallest,
            size_median=median,
            size_max=largest,
            size_common=common,
            spacing_mm=spacing,
        )


@dataclass(frozen=True, eq=False)
class SampleStatistics:
    """What one image tells: `values` (C, M) of some known pixels; `pixels` int64 (K,), `nothing` and `void` count pixels;
    `centres` float64 (K, n) sums the places of each class's pixels per axis, `placed` counts them;
    `objects` int64 (O, 3) are class, area and smallest extent."""

    shape: tuple[int, ...]
    dtype: str
    spacing_mm: tuple[float, ...] | None
    values: np.ndarray
    pixels: np.ndarray
    nothing: int
    void: int
    placed: np.ndarray
    centres: np.ndarray
    objects: np.ndarray
    has_truth: bool
    has_instances: bool
    left_out: Mapping[str, int] = field(default_factory=dict)


def fingerprint(dataset: Dataset, *, at_most: int = 200, seed: int = 0) -> Fingerprint:
    """The fingerprint of a data set, measured on a random `at_most` of its samples where there are more.

    Annotations that became no segment are told in the log.

    Raises:
        UsageError: the data set is empty.
        ShapeError: some samples are 2D and some 3D.
        FormatError: a channel has no value, or a sample no image. One that cannot be read raises its reader's error.
    """
    if not len(dataset):
        raise UsageError(f"{dataset.source} holds no samples; at least one is needed: check the path and its file names")
    generator = np.random.default_rng(seed)
    chosen = np.arange(len(dataset))
    if len(dataset) > at_most:
        chosen = np.sort(generator.choice(len(dataset), at_most, replace=False))
    pixels_each = max(1, SAMPLED_PIXELS // len(chosen))
    looks = [look(_with_image(dataset, int(i)), len(dataset.classes), pixels_each, generator) for i in chosen]
    left_out = sum((Counter(item.left_out) for item in looks), Counter())
    if lost(left_out):
        log.warning(
            "%s: annotations of the %d samples looked at that became no segment: %s; segwright inspect tells where",
            dataset.source,
            len(looks),
            told(left_out),
        )
    return gathered(dataset, looks, [dataset.keys[int(i)] for i in chosen])


def _with_image(dataset: Dataset, index: int) -> Sample:
    """A sample of a data set.

    Raises:
        FormatError: it has a mask alone, and no image.
    """
    sample = dataset[index]
    if not len(sample.image):
        raise FormatError(
            f"{dataset.source}: sample {sample.key!r} has a mask and no image, and nothing can be learned from masks alone; "
            "add the images where the annotations say that they are"
        )
    return sample


def gathered(dataset: Dataset, looks: Sequence[SampleStatistics], keys: Sequence[str]) -> Fingerprint:
    """The fingerprint of a data set from the looks at some of its samples, at least one, with these keys.

    Raises:
        ShapeError: some samples are 2D and some 3D.
        FormatError: a channel has no value.
    """
    _check_axes(dataset, looks, keys)
    shapes = np.array([item.shape for item in looks])
    counts = np.sum([item.pixels for item in looks], axis=0)
    nothing, void = sum(item.nothing for item in looks), sum(item.void for item in looks)
    known = sum(int(np.prod(item.shape)) for item in looks if item.has_truth) - void
    spacings = [item.spacing_mm for item in looks if item.spacing_mm is not None]
    return Fingerprint(
        count=len(dataset),
        looked_at=len(looks),
        with_truth=sum(item.has_truth for item in looks),
        class_names=dataset.classes.names,
        axes=shapes.shape[1],
        size_min=_integers(shapes.min(axis=0)),
        size_median=_integers(np.median(shapes, axis=0)),
        size_max=_integers(shapes.max(axis=0)),
        size_common=max((number, shape) for shape, number in Counter(item.shape for item in looks).items())[1],
        size_count=len({item.shape for item in looks}),
        channels=dict(sorted(Counter(len(item.values) for item in looks).items())),
        dtypes=dict(Counter(item.dtype for item in looks).most_common()),
        spacing_mm=tuple(float(value) for value in np.median(spacings, axis=0)) if spacings else None,
        spacings_mm=tuple(tuple(map(float, spacing)) for spacing in spacings),
        intensity=intensities([item.values for item in looks], dataset.source),
        mean_shift=_mean_shift(looks),
        class_fractions=tuple(float(value) for value in counts / max(known, 1)),
        nothing_fraction=nothing / max(known, 1),
        void_fraction=void / max(known + void, 1),
        class_images=_integers(np.sum([item.pixels > 0 for item in looks], axis=0)),
        class_centres=_mean_places(looks),
        objects=_object_sizes(np.concatenate([item.objects for item in looks]), len(dataset.classes)),
        has_instances=any(item.has_instances for item in looks),
        is_thing=dataset.classes.is_thing,
    )


def look(sample: Sample, num_classes: int, pixels: int, generator: np.random.Generator) -> SampleStatistics:
    """What one sample tells; at most `pixels` of its pixels go into the intensities."""
    truth = sample.truth
    if truth is None:
        counts, nothing, void = np.zeros(num_classes, np.int64), 0, 0
        known = None
    else:
        counts = np.bincount(truth.class_ids, weights=truth.areas(), minlength=num_classes).astype(np.int64)
        is_void = truth.planes[0] == VOID
        void = int(np.count_nonzero(is_void))
        nothing = int(np.count_nonzero((truth.planes <= 0).all(axis=0))) - void
        known = None if void in (0, is_void.size) else ~is_void  # a wholly void image: all its pixels count
    placed, centres = _places(truth, num_classes)
    return SampleStatistics(
        shape=sample.grid.shape,
        dtype=type_of(sample.image),
        spacing_mm=sample.grid.spacing_mm,
        values=known_values(sample.image, known, pixels, generator),
        pixels=counts,
        nothing=nothing,
        void=void,
        placed=placed,
        centres=centres,
        objects=measure_objects(truth) if truth is not None else np.zeros((0, 3), np.int64),
        has_truth=truth is not None,
        has_instances=truth is not None and bool((truth.instance_ids > 0).any()),
        left_out=sample.left_out,
    )


def _places(truth: Segmentation | None, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels counted per class (K,), and the sum of their places per class and axis (K, n) from 0 to 1."""
    if truth is None:
        return np.zeros(num_classes), np.zeros((num_classes, 1))
    class_map = truth.class_map()
    class_map = class_map[(slice(None, None, PLACE_STEP),) * class_map.ndim]
    flat = class_map.ravel() + 1  # void becomes 0
    sums = []
    for axis, side in enumerate(class_map.shape):
        place = ((np.arange(side) + 0.5) / side).reshape([-1 if a == axis else 1 for a in range(class_map.ndim)])
        weights = np.broadcast_to(place, class_map.shape).ravel()
        sums.append(np.bincount(flat, weights=weights, minlength=num_classes + 1)[1:])
    return np.bincount(flat, minlength=num_classes + 1)[1:], np.stack(sums, axis=1)


def _mean_places(looks: Sequence[SampleStatistics]) -> tuple[tuple[float, ...], ...]:
    """Mean place of each class per axis over all images; the middle for a class that was not seen."""
    seen = [item for item in looks if item.has_truth]
    if not seen:
        return ()
    placed = np.sum([item.placed for item in seen], axis=0)[:, None]
    centres = np.where(placed > 0, np.sum([item.centres for item in seen], axis=0) / np.maximum(placed, 1), 0.5)
    return tuple(tuple(float(value) for value in row) for row in centres)


def known_values(image: np.ndarray, known: np.ndarray | None, pixels: int, generator: np.random.Generator) -> np.ndarray:
    """Values (C, M) at known pixels of an image (C, *S): all of them, or a random `pixels` where there are more."""
    flat = image.reshape(len(image), -1)
    where = np.flatnonzero(known) if known is not None else None
    count = flat.shape[1] if where is None else len(where)
    if count > pixels:
        drawn = generator.integers(0, count, pixels)  # with replacement: 100 times faster, and as good for statistics
        where = drawn if where is None else where[drawn]
    return flat.copy() if where is None else flat[:, where]


def measure_objects(truth: Segmentation) -> np.ndarray:
    """Class, area and smallest extent of each object of a truth, int64 (O, 3), in pixels."""
    class_of = np.concatenate([[VOID], truth.class_ids])  # index 0 is nothing
    is_instance = np.concatenate([[False], truth.instance_ids > 0])
    rows = []
    for plane in truth.planes:
        segments = np.maximum(plane, 0)
        narrow = segments.astype(np.uint8) if len(truth) < 256 else segments  # 256: one byte is enough, and faster
        pieces, count = connected_components(narrow, ALL_NEIGHBOURS[plane.ndim])
        as_volume = (1,) * (3 - plane.ndim) + plane.shape
        table = _measure(segments.reshape(as_volume), pieces.reshape(as_volume), is_instance, count)
        table = table[table[:, 1] > 0]
        extents = (table[:, 5:] - table[:, 2:5] + 1)[:, 3 - plane.ndim :].min(axis=1)
        rows.append(np.stack([class_of[table[:, 0]], table[:, 1], extents], axis=1))
    return np.concatenate(rows)


@njit(cache=True, nogil=True)
def _measure(segments: np.ndarray, pieces: np.ndarray, is_instance: np.ndarray, count: int) -> np.ndarray:
    """Segment, area, first and last index per axis of each object, int64 (N + count + 1, 8), in one pass over int32 (D, H, W).

    The pieces of an instance are one object under the number of its segment; any other piece is an object of its own.
    """
    offset = len(is_instance) - 1
    table = np.zeros((offset + count + 1, 8), np.int64)
    table[:, 2:5] = 2**62  # above any index
    for d in range(segments.shape[0]):
        for h in range(segments.shape[1]):
            for w in range(segments.shape[2]):
                segment = segments[d, h, w]
                if segment > 0:
                    row = table[segment if is_instance[segment] else offset + pieces[d, h, w]]
                    row[0] = segment
                    row[1] += 1
                    row[2], row[5] = min(row[2], d), max(row[5], d)
                    row[3], row[6] = min(row[3], h), max(row[6], h)
                    row[4], row[7] = min(row[4], w), max(row[7], w)
    return table


def _object_sizes(objects: np.ndarray, num_classes: int) -> tuple[ObjectSizes, ...]:
    """Sizes per class from class, area and smallest extent of each object, int64 (O, 3)."""
    objects = objects[np.argsort(objects[:, 0], kind="stable")]
    edges = np.searchsorted(objects[:, 0], np.arange(num_classes + 1))
    result = []
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        quantiles = np.percentile(objects[first:last, 1:], (50, 5), axis=0) if last > first else np.zeros((2, 2))
        (area_median, extent_median), (area_5th, extent_5th) = quantiles.tolist()
        result.append(
            ObjectSizes(
                count=int(last - first),
                area_median=area_median,
                area_5th=area_5th,
                extent_median=extent_median,
                extent_5th=extent_5th,
            )
        )
    return tuple(result)


def intensities(images: Sequence[np.ndarray], source: str) -> tuple[IntensityStatistics, ...]:
    """Statistics of each channel over the images that have it, from values (C, M) of each image.

    Raises:
        FormatError: a channel has no value.
    """
    result = []
    for channel in range(max(map(len, images))):
        values = _known_of(np.concatenate([image[channel] for image in images if len(image) > channel]))
        values = values.astype(np.uint8) if values.dtype == bool else values
        if not len(values):
            raise FormatError(
                f"{source}: channel {channel} holds no value in {len(images)} images, but nodata, NaN or infinity; numbers are "
                "needed: check how the images were exported, or drop that channel"
            )
        low, median, high = np.percentile(values, (0.5, 50, 99.5)).tolist()
        mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
        ends = {"lowest": float(values.min()), "highest": float(values.max())}
        result.append(IntensityStatistics(mean=mean, std=std, low=low, median=median, high=high, **ends))
    return tuple(result)


def _known_of(values: np.ndarray) -> np.ndarray:
    """Those of the values (M,) that are not missing."""
    known = where_measured(values)
    return values if known is None else values[known]


def _mean_shift(looks: Sequence[SampleStatistics]) -> float:
    """Standard deviation of the image means over the mean standard deviation inside an image, averaged over channels."""
    ratios = []
    for channel in range(max(len(item.values) for item in looks)):
        images = [item.values[channel] for item in looks if len(item.values) > channel]
        finite = [_known_of(values).astype(np.float64) for values in images]
        means = [values.mean() for values in finite if len(values)]
        stds = [values.std() for values in finite if len(values)]
        spread = float(np.std(means))
        ratios.append(spread / max(float(np.mean(stds)), 1e-12) if spread > 0 else 0.0)  # 1e-12: flat images divide by it
    return float(np.mean(ratios))


def _check_axes(dataset: Dataset, looks: Sequence[SampleStatistics], keys: Sequence[str]) -> None:
    """Refuse a data set that mixes images and volumes.

    Raises:
        ShapeError: some samples are 2D and some 3D.
    """
    axes = [len(item.shape) for item in looks]
    if len(set(axes)) > 1:
        flat, deep = (keys[axes.index(count)] for count in (2, 3))
        raise ShapeError(
            f"{dataset.source} mixes 2D images ({flat!r}) and 3D volumes ({deep!r}); one kind is needed: "
            "put them into two folders"
        )


def _integers(values: np.ndarray) -> tuple[int, ...]:
    """An array as a tuple of rounded Python integers, which JSON can hold."""
    return tuple(int(value) for value in np.rint(values))


def off_centre(found: Fingerprint) -> list[float]:
    """How far the mean place of a class lies from the middle, per axis, for the class that lies farthest off."""
    centres = [centre for centre, share in zip(found.class_centres, found.class_fractions, strict=True) if share > 0]
    return [max(abs(centre[axis] - 0.5) for centre in centres) for axis in range(found.axes)]


def free_axes(found: Fingerprint) -> tuple[int, ...]:
    """The axes without a direction, counted from the end; an image may always be mirrored left to right."""
    free = {axis - found.axes for axis, offset in enumerate(off_centre(found)) if offset < CENTRED}
    return tuple(sorted(free | {-1} if found.axes == 2 else free))


def has_up(found: Fingerprint) -> bool:
    """Whether the scene has a direction: some class lies off the middle along an axis that may not be mirrored."""
    return len(free_axes(found)) < found.axes
