"""One pass over the samples: what each tells, small enough to keep for all of them.

Axes: C channels, K classes, N numbers or colours in a mask, *S spatial axes, (H, W) or (D, H, W).
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segwright.codecs.image_file import fit_mask, read_image, read_mask, transparent_pixels
from segwright.codecs.stored_image import EXIF_ORIENTATION, upright
from segwright.codecs.volume_file import read_volume, suffix_of
from segwright.core import VOID, Sample
from segwright.core.errors import FormatError, SegwrightError
from segwright.core.missing import missing_pixels, nan_where_missing, where_measured
from segwright.data import fingerprint
from segwright.data.undeclared_nodata import undeclared_nodata
from segwright.formats.dataset_file import nan_for
from segwright.formats.guessed_meaning import shown_values
from segwright.formats.label_encoding import colors_without_meaning
from segwright.formats.mask_file import MAX_NUMBER, MaskFile, read_mask_file
from segwright.formats.smoothed_values import count_values, without_noise
from segwright.formats.volume_masks import read_mask_volume

THUMB = 32  # pixels: from it come the 8 x 8 lowest frequencies of the hash
STEP_VALUES = 20_000  # of a scan are enough to meet two neighbouring grey values
MAX_COLORS = 4096  # of one picture; a mask of class colours has a handful, a blurred one or a photograph more than that
SAMPLED = 100_000  # values that tell the range of an image


@dataclass(frozen=True, eq=False)
class Item:
    """A sample to look at: its key, the part of the data it is in, how to load it, and its files where it has some."""

    key: str
    part: str
    load: Callable[[], Sample]
    image: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True, eq=False)
class MaskLook:
    """What a mask file holds: `values` int64 (N,), or `colors` uint8 (N, 3) of a picture, and how many pixels have each.

    `edges` counts the pixels beside one of another number, a quarter of what lies on borders where regions are large; `inside`
    those in the middle of nine alike, `between` those beside a lower and a higher number. `itemsize` is that of images; numbers
    of volumes are classes in whatever type they are stored, and count as 1. `palette` uint8 (N, 3) has the colours that a
    palette gives the numbers. A file `is_black_and_white` that holds these alone, as 0 and 255; its palette `is_reordered` that
    gives numbers another order than their greys have. Where they have that order, `indices` are those of the values, which are
    greys. It `has_missing` numbers, as its file says, which are not among the values.
    `num_hidden` pixels are none to the eye, as alpha hides them, and yet no black. `negative` is a number below 0
    in a file of images, which counts as missing.
    """

    shape: tuple[int, ...]
    values: np.ndarray
    counts: np.ndarray
    edges: np.ndarray
    colors: np.ndarray | None
    itemsize: int
    inside: np.ndarray
    between: np.ndarray
    palette: np.ndarray | None = None
    is_lossy: bool = False
    is_black_and_white: bool = False
    is_reordered: bool = False
    indices: np.ndarray | None = None
    has_missing: bool = False
    num_hidden: int = 0
    negative: int | None = None


@dataclass(frozen=True, eq=False)
class SampleScan:
    """What one sample tells.

    `missing` counts the pixels without a value; `undeclared` is a number that looks as if it stood for more of them;
    `transparent` counts those that alpha hides, or half hides, and that have values. `scale` is
    the largest absolute value of the others, `step` the distance of its grey values where they are the multiples of a fraction.
    `thumb` is float32 (32, 32), its grey picture small; `borders` float32 (4, 2, n) padded with NaN: left, right, top, bottom,
    each the outermost line of pixels and the next; None for volumes. `orientation` is the EXIF number, `turned` how much better
    the mask fits the picture when it is turned by that (1: alike).
    `pixels` int64 (K,), `nothing` and `void` count pixels of the truth, which is None where it cannot be told, `segments` its
    segments; `left_out` and `drawn_xyxy` are those of the sample.
    """

    key: str
    part: str
    shape: tuple[int, ...]
    channels: int
    dtype: str
    scale: float
    step: float | None
    thumb: np.ndarray
    digest: bytes
    borders: tuple[np.ndarray, ...] | None
    orientation: int = 1
    turned: float = 1.0
    mask: MaskLook | None = None
    mask_digest: bytes = b""
    pixels: np.ndarray | None = None
    nothing: int = 0
    void: int = 0
    missing: int = 0
    undeclared: float | None = None
    transparent: int = 0
    detail: fingerprint.SampleStatistics | None = None
    problem: str = ""
    segments: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    drawn_xyxy: np.ndarray | None = None


@dataclass(frozen=True)
class Failure:
    """A sample that cannot be read, and what its reader said."""

    key: str
    part: str
    message: str


def look_at(items: Sequence[Item], num_classes: int, detailed: frozenset[str], pixels_each: int) -> list[SampleScan | Failure]:
    """What each sample tells, read by all cores, those `detailed` also for a fingerprint; a Failure where it fails."""
    with ThreadPoolExecutor() as pool:  # decoders and numpy work outside Python's lock
        return list(pool.map(partial(_look, num_classes=num_classes, detailed=detailed, pixels_each=pixels_each), items))


def glance_at(items: Sequence[Item]) -> list[SampleScan]:
    """A small picture of each image file that OpenCV reads, in an eighth of the time of a look; nothing else of it is known."""
    with ThreadPoolExecutor() as pool:
        return [look for look in pool.map(_glance, items) if look is not None]


def _glance(item: Item) -> SampleScan | None:
    try:
        data = item.image.read_bytes() if item.image is not None else b""
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8) if data else None
    except (OSError, cv2.error):
        return None
    if picture is None:
        return None
    thumb = cv2.resize(picture.mean(axis=2, dtype=np.float32), (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    digest = blake2b(data, digest_size=16).digest()
    return SampleScan(item.key, item.part, (), 3, "", 255.0, None, thumb, digest, None)


def _look(item: Item, num_classes: int, detailed: frozenset[str], pixels_each: int) -> SampleScan | Failure:
    try:
        sample, problem = _load(item)
        mask, mask_digest = _mask(item.mask) if item.mask is not None else (None, b"")
        return _seen(item, sample, problem, mask, mask_digest, num_classes, pixels_each if item.key in detailed else 0)
    except SegwrightError as error:
        return Failure(item.key, item.part, str(error))
    except Exception as error:  # a damaged sample must not end the look at all others
        return Failure(item.key, item.part, f"{type(error).__name__}: {error}")


def _load(item: Item) -> tuple[Sample, str]:
    """The sample; where its truth alone cannot be had, the image and why."""
    try:
        return item.load(), ""
    except FormatError as error:
        if item.image is None or item.mask is None:
            raise
        if suffix_of(item.image):
            return Sample(item.key, *read_volume(item.image)), str(error)
        return Sample.of(item.key, read_image(item.image)), str(error)


def _seen(
    item: Item, sample: Sample, problem: str, mask: MaskLook | None, mask_digest: bytes, num_classes: int, pixels: int
) -> SampleScan:
    image, truth = sample.image, sample.truth
    counts, nothing, void = None, 0, 0
    if truth is not None:
        counts = np.bincount(truth.class_ids, weights=truth.areas(), minlength=num_classes).astype(np.int64)
        void = int(np.count_nonzero(truth.planes[0] == VOID))
        nothing = int(np.count_nonzero((truth.planes <= 0).all(axis=0))) - void
    missing, undeclared = missing_pixels(image), undeclared_nodata(image)
    measured = nan_where_missing(image if undeclared is None else nan_for(image, [undeclared]))
    grey = grey_picture(measured)
    orientation = _orientation(item.image)
    return SampleScan(
        key=item.key,
        part=item.part,
        shape=image.shape[1:],
        channels=len(image),
        dtype=str(image.dtype),
        scale=_scale(measured),
        step=intensity_step(measured),
        thumb=cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA),
        digest=_digest(image),
        borders=border_lines(grey) if image.ndim == 3 else None,
        orientation=orientation,
        turned=_turned(grey, item.mask, orientation) if orientation > 1 and mask is not None else 1.0,
        mask=mask,
        mask_digest=mask_digest or (_digest(truth.planes) if truth is not None else b""),
        pixels=counts,
        nothing=nothing,
        void=void,
        missing=0 if missing is None else int(np.count_nonzero(missing)),
        undeclared=undeclared,
        transparent=transparent_pixels(item.image) if item.image is not None and not suffix_of(item.image) else 0,
        detail=fingerprint.look(sample, num_classes, pixels, np.random.default_rng(0)) if pixels and len(image) else None,
        problem=problem,
        segments=len(truth) if truth is not None else 0,
        left_out=sample.left_out,
        drawn_xyxy=sample.drawn_xyxy,
    )


def grey_picture(image: np.ndarray) -> np.ndarray:
    """The mean of the channels of an image (C, *S), float32 (H, W), or of a volume's middle slice; no NaN, but the mean."""
    while image.ndim > 3:
        image = image[:, image.shape[1] // 2]
    if not len(image):
        return np.zeros(image.shape[1:], np.float32)
    grey = image[0].astype(np.float32) if len(image) == 1 else image.mean(axis=0, dtype=np.float32)
    known = where_measured(grey)
    if known is None:
        return grey
    return np.where(known, grey, grey[known].mean(dtype=np.float64) if known.any() else 0).astype(np.float32)


def border_lines(grey: np.ndarray) -> tuple[np.ndarray, ...]:
    """The lines of pixels along the left, right, top and bottom of a picture (H, W), each float32 (2, n), outermost first."""
    columns, rows = grey.T, grey
    return tuple(np.ascontiguousarray(lines[:2]) for lines in (columns, columns[::-1], rows, rows[::-1]))


def intensity_step(image: np.ndarray) -> float | None:
    """The fraction of which all values of a float image are multiples, as a scanner's rescaling leaves them; else None."""
    if image.dtype.kind != "f" or not image.size:
        return None
    flat = image.reshape(-1)
    values = np.unique(flat[:: max(1, flat.size // STEP_VALUES)].astype(np.float64))
    values = values[np.isfinite(values)]
    if len(values) < 8 or (values == np.rint(values)).all():  # 8: fewer values are multiples of anything
        return None
    smallest = float(np.diff(values).min())
    top = float(np.abs(values).max())
    step = top / max(1, round(top / smallest))
    multiples = values / step
    return step if np.abs(multiples - np.rint(multiples)).max() < 0.01 else None  # float32 leaves an error of 1/10000


def _scale(image: np.ndarray) -> float:
    flat = image.reshape(-1)
    flat = flat[:: max(1, flat.size // SAMPLED)]
    if image.dtype.kind == "f":
        flat = flat[np.isfinite(flat)]
    return float(max(abs(float(flat.max())), abs(float(flat.min())))) if flat.size else 0.0


def _digest(array: np.ndarray) -> bytes:
    return blake2b(np.ascontiguousarray(array).data, digest_size=16, key=f"{array.shape}{array.dtype}".encode()[:64]).digest()


def _mask(path: Path) -> tuple[MaskLook | None, bytes]:
    """What a mask file holds, None where names of segments say what its numbers mean."""
    if suffix_of(path):
        volume = read_mask_volume(path)
        if volume.segments:
            return None, b""
        mask = volume.numbers(MAX_NUMBER)
        return replace(_number_mask(mask), itemsize=1), _digest(mask)  # classes in any type
    file = read_mask_file(path)
    if file.is_picture:
        return _color_mask(file)
    mask = shown_values(file)
    palette, indices = None, None
    if file.greys is None:
        palette = None if file.palette is None else file.palette[file.used]
    elif (np.diff(file.greys[file.used]) > 0).all():
        indices = file.used
    look = replace(
        _number_mask(mask, file.void),
        palette=palette,
        is_lossy=file.is_lossy,
        is_black_and_white=file.is_white is not None,
        indices=indices,
        is_reordered=file.greys is not None and bool((np.diff(file.greys[: max(int(file.used[-1]), 1) + 1]) < 0).any()),
        has_missing=file.missing is not None,
        num_hidden=file.num_hidden,
        negative=file.negative,
    )
    return look, _digest(mask)


def _number_mask(mask: np.ndarray, void: int | None = None) -> MaskLook:
    """What numbers (*S) tell, without one that is void."""
    found = count_values(mask)
    edges = _edges(mask, found.values)
    if void is not None:
        edges, found = edges[found.values != void], found.without(void)
    return MaskLook(
        mask.shape, found.values, found.counts, edges, None, mask.dtype.itemsize, inside=found.inside, between=found.between
    )


def _edges(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How many pixels of each of the sorted values of a mask (*S) lie beside another, int64 (N,)."""
    is_edge = np.zeros(mask.shape, dtype=bool)
    for axis in range(mask.ndim):
        line = np.moveaxis(mask, axis, 0)
        edge = np.moveaxis(is_edge, axis, 0)
        differs = line[1:] != line[:-1]
        edge[1:] |= differs
        edge[:-1] |= differs
    return np.bincount(np.searchsorted(values, mask[is_edge]), minlength=len(values))


def _color_mask(file: MaskFile) -> tuple[MaskLook, bytes]:
    picture = file.picture
    if len(picture) != 3 or picture.max(initial=0) > 255:
        raise colors_without_meaning(file, "nobody")
    red, green, blue = picture.astype(np.int64)
    packed = (red << 16) + (green << 8) + blue
    found = count_values(without_noise(picture) if file.is_lossy else packed)
    if file.missing is not None:
        found = found.without(int(packed[file.missing][0]))
    order = np.argsort(-found.counts, kind="stable")[:MAX_COLORS]
    look = MaskLook(
        shape=packed.shape,
        values=found.values[order],
        counts=found.counts[order],
        edges=np.zeros_like(order),
        colors=_unpacked(found.values[order]).astype(np.uint8),
        itemsize=1,
        inside=found.inside[order],
        between=found.between[order],
        is_lossy=file.is_lossy,
        num_hidden=file.num_hidden,
    )
    return look, _digest(packed)


def _unpacked(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)


def _orientation(path: Path | None) -> int:
    if path is None:
        return 1
    try:
        with Image.open(path) as picture:
            return int(picture.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # TIFFs that Pillow does not know, damaged EXIF: read_image tells what matters
        return 1


def _turned(grey: np.ndarray, path: Path | None, orientation: int) -> float:
    """How many times stronger the picture changes at the borders of the mask when that is turned as EXIF says."""
    if path is None or not 2 <= orientation <= 8:
        return 1.0
    try:
        mask = read_mask(path)
    except FormatError:
        return 1.0
    turned = upright(mask, orientation)
    if mask.shape != grey.shape or turned.shape != grey.shape:
        return 1.0
    change = np.abs(np.diff(grey, axis=0, prepend=grey[:1])) + np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))

    def at_borders(mask: np.ndarray) -> float:
        is_border = np.zeros(mask.shape, dtype=bool)
        is_border[1:] |= mask[1:] != mask[:-1]
        is_border[:, 1:] |= mask[:, 1:] != mask[:, :-1]
        return float(change[is_border].mean()) if is_border.any() else 0.0

    return at_borders(turned) / max(at_borders(mask), 1e-6)


def fits(look: SampleScan, image: Path | None) -> bool:
    """Whether the mask has the size of its image, or has it after the turn that the image's EXIF asks for."""
    if look.mask is None or look.mask.shape == look.shape:
        return True
    return (
        image is not None
        and not suffix_of(image)
        and fit_mask(np.empty(look.mask.shape, np.bool_), look.shape, image) is not None
    )
