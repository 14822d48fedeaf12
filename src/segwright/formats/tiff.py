"""GeoTIFF and stacks: images/ and masks/ of TIFF files of the same names, of which one is geo-referenced; or a single TIFF.

    ROOT/images/NAME.tif     also BigTIFF, many channels, stacks with named axes (ZYX); folders named as for mask_folder
    ROOT/masks/NAME.tif      numbers of classes; of several pages, each is a layer over the one before
    ROOT/instances/NAME.tif  optional: the number of the object at each pixel, 0 for none; as many pages as the mask
    ROOT/classes.json        optional; label_encoding.py says what it holds

Plain sets of images and masks are read by mask_folder; this format is for sets of which an image says where it lies on a map,
and for what `write` wrote. A single TIFF is an image without truth. In further pages of a mask, 0 is nothing unless
classes.json has another number for that.

The tags of GeoTIFF (33550, 33922, 34264, 34735, 34736, 34737) give the affine of the grid, which leads from (row, column, 1) of
the centre of a pixel to x, y on the map; both kinds of tie points are known, those to corners of pixels (PixelIsArea) and those
to centres (PixelIsPoint). Masks get these tags of their image, byte for byte, and what GDAL calls nodata (42113) of their own:
the number of void, which GIS programs then leave transparent, and no class. That of the image is about its values.

What is written: images that are TIFF files already are copied, others are written with all channels in one page, tiled where
they are large, packed by zlib, as BigTIFF from 4 GB on. A grid with an affine and no file gets tags that say the same.

Lost: where volumes lie and how large their voxels are; scores.
"""

import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from segwright.codecs.image_file import TIFF_SUFFIXES, read_image, read_mask_channels
from segwright.codecs.image_writer import colormap_of
from segwright.codecs.stored_image import EXIF_ORIENTATION
from segwright.codecs.tiff_axes import FLAT, Axes
from segwright.codecs.tiff_image import COLORS, GDAL_NODATA, calls_white_zero
from segwright.core import Classes, Dataset, Grid, Sample, Segmentation
from segwright.core.atomic_files import replacing
from segwright.core.errors import FormatError, OutputError, SegwrightError
from segwright.formats import dataset_file
from segwright.formats.guessed_meaning import guess_meaning
from segwright.formats.image_index import MASK_FOLDERS, images_below, safe_key
from segwright.formats.label_encoding import (
    MAX_VALUE,
    VOID_8_BIT,
    VOID_16_BIT,
    Meaning,
    write_classes,
    written_meaning,
)
from segwright.formats.label_maps import NOTHING, mask_values, to_maps, to_segmentation
from segwright.formats.mask_file import MAX_NUMBER, read_object_numbers
from segwright.formats.pairing import (
    IMAGE_FOLDERS,
    NUMBER_FOLDER,
    Files,
    fit_to_image,
    masks_alone,
    only_subfolder,
    pairs,
    subfolders,
)
from segwright.formats.resume_journal import Journal, truth_of
from segwright.formats.volume_masks import guessed

LOSES = "of volumes, place and voxel size are lost"
SCALE, TIE_POINTS, TRANSFORM, KEYS = 33550, 33922, 34264, 34735
GEO_TAGS = (SCALE, TIE_POINTS, TRANSFORM, KEYS, 34736, 34737)
ASCII = 2  # TIFF's number of the type of a tag
RASTER_TYPE, IS_AREA, IS_POINT = 1025, 1, 2  # a key, and what it may say
SOFTWARE, OURS = 305, "segwright"
MAX_TAG = 2**20  # bytes of a tag; long lists of tie points fit
LOOKED_AT = 100  # images for a geo-reference: where most have one, the first has
TILE = 256  # pixels; smaller images are one piece
BIG = 2**32 - 2**25  # bytes from which a TIFF's own addresses do not reach, with room for its tags


@dataclass(frozen=True)
class GeoTags:
    """The tags that place an image on a map, as they are in its file: number, type, count and bytes of each."""

    byteorder: Literal["<", ">"]
    tags: tuple[tuple[int, int, int, bytes], ...]


@dataclass(frozen=True)
class MaskTags:
    """What a TIFF says of its numbers: which is no data, "" where none is, and whether white is 0, by which they are turned."""

    nodata: str
    is_turned: bool
    is_one_bit: bool


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key; without a meaning of the masks, the image alone; `shape` is what is known of its sides."""

    files: Mapping[str, Files]
    meaning: Meaning | None
    shape: tuple[int | None, ...] | None = (None, None)

    def __call__(self, key: str) -> Sample:
        files = self.files[key]
        image = None if files.image is None else read_image(files.image, Axes(self.shape))
        truth = None
        if files.mask is not None and self.meaning is not None:
            truth = self._truth(files, files.mask, self.meaning, image)
            image = np.zeros((0, *truth.shape), np.uint8) if image is None else image
        if image is None:
            raise FormatError(f"sample {key!r} has no files; copy them again")
        place = tiff_grid(files.image) if files.image is not None else None
        affine = place.affine if place is not None and place.shape == image.shape[1:] else None
        return Sample(key, image, Grid(image.shape[1:], affine=affine), truth)

    def _truth(self, files: Files, mask: Path, meaning: Meaning, image: np.ndarray | None) -> Segmentation:
        layers = read_mask_channels(mask, FLAT)  # (P, *S)
        numbers: np.ndarray | None = layers if meaning.is_instances else None
        if meaning.is_colors or len(layers) == 1 or meaning.classes.regions or _is_picture(mask):
            class_map, numbers = meaning.maps(mask)
            class_maps, numbers = class_map[None], None if numbers is None else numbers[None]
        else:
            class_maps = np.stack([to_maps(meaning.truth(_checked(layer, mask), mask))[0] for layer in layers])
            if len(layers) > 1 and not (meaning.class_of == NOTHING).any():
                class_maps[1:][layers[1:] == 0] = NOTHING
        if files.numbers is not None:
            numbers = read_object_numbers(files.numbers, FLAT)
            if numbers.shape != class_maps.shape:
                raise FormatError(
                    f"{files.numbers} is {numbers.shape}, {mask} is {class_maps.shape}; export both again at one size"
                )
        if image is not None:
            class_maps = np.stack([fit_to_image(layer, mask, image, files.image) for layer in class_maps])
            if numbers is not None:
                numbers = np.stack([fit_to_image(layer, files.numbers or mask, image, files.image) for layer in numbers])
        if meaning.classes.regions:
            return to_segmentation(class_maps[0], None if numbers is None else numbers[0], meaning.classes)
        flat = (-1, *class_maps.shape[2:])  # layers one below the other, so that a segment may lie in several of them
        found = to_segmentation(class_maps.reshape(flat), None if numbers is None else numbers.reshape(flat), meaning.classes)
        planes = found.planes.reshape(class_maps.shape)
        return Segmentation(planes, found.class_ids, found.instance_ids, found.scores, found.classes)


def matches(path: Path | str) -> bool:
    """Whether a path is a TIFF file, or a folder of TIFF images and masks that this format wrote or that lie on a map."""
    path = Path(path)
    if path.is_file():
        return path.suffix.lower() in TIFF_SUFFIXES
    if not path.is_dir() or not subfolders(path, MASK_FOLDERS):
        return False
    images = [file for folder in subfolders(path, IMAGE_FOLDERS) for _, file in images_below(folder)]
    masks = [file for folder in subfolders(path, MASK_FOLDERS) for _, file in images_below(folder)]
    if not masks or any(file.suffix.lower() not in TIFF_SUFFIXES for file in (*images, *masks)):
        return False
    try:
        return _is_ours(masks[0]) or any(geo_tags(file) is not None for file in islice(images, LOOKED_AT))
    except SegwrightError:
        return False


def read(path: Path | str) -> Dataset:
    """The samples of a folder in name order, or the one of a file; each is read when it is asked for.

    Raises:
        FormatError: the folder or classes.json is not as this module and label_encoding.py say. Damaged files, sizes that
            differ and numbers that are no class are found when their sample is read, or here where all masks must be read.
    """
    root = Path(path)
    if root.is_file():
        key = safe_key(root.stem)
        nothing = Classes.of(["nothing"])
        return Dataset(str(root), nothing, (key,), Reader({key: Files(root)}, None, shape=None), {key: root})
    if not root.is_dir():
        raise FormatError(f"{root} does not exist; give a TIFF file, or a folder that holds images/ and masks/")
    dropped = dataset_file.dropped(root)
    mask_folder = only_subfolder(root, "masks", MASK_FOLDERS)
    if subfolders(root, IMAGE_FOLDERS):
        image_folder = only_subfolder(root, "images", IMAGE_FOLDERS)
        files = {key: Files(*pair) for key, pair in pairs(image_folder, mask_folder, dropped).items()}
    else:
        files = {key: Files(None, mask) for key, mask in masks_alone(mask_folder, dropped).items()}
    masks = [entry.mask for entry in files.values() if entry.mask is not None]
    meaning = written_meaning(root, is_above=True)
    meaning = _guessed(masks) if meaning is None else meaning.looking_at(filter(_shows_colors, masks))
    if not meaning.is_instances and (root / NUMBER_FOLDER).is_dir():
        numbers = {safe_key(stem): file for stem, file in images_below(root / NUMBER_FOLDER)}
        files = {key: Files(entry.image, entry.mask, numbers.get(key)) for key, entry in files.items()}
    images = {key: entry.image for key, entry in files.items() if entry.image is not None}
    return Dataset(str(root), meaning.classes, tuple(files), Reader(files, meaning), images)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as images/, masks/, instances/ and classes.json; the docstring of the module says how.

    Raises:
        OutputError: the place is not writable or already holds samples, there is no sample, or one has no truth, an unsafe
            key, other classes than the first, or values that TIFF cannot hold.
    """
    root = Path(path)
    files = samples.image_files if isinstance(samples, Dataset) else {}
    with Journal(root, "tiff", samples) as journal:
        for sample in journal.samples():
            truth = truth_of(sample)
            name = f"{sample.key}.tif"
            tags = _tags_for(sample.grid)
            if len(sample.image):
                tags = _write_image(root / "images" / name, sample, files.get(sample.key), tags)
            count = len(journal.classes)
            if count >= VOID_16_BIT:
                raise OutputError(f"sample {sample.key!r}: {count} classes leave no number for void and nothing; merge some")
            layers = [to_maps(Segmentation(plane[None], *_segments(truth))) for plane in truth.planes]
            class_maps = np.stack([class_map for class_map, _ in layers])
            stored = class_maps.astype(np.uint8 if count < VOID_8_BIT else np.uint16)  # VOID, -1, wraps to the highest number
            stored[class_maps == NOTHING] = count
            numbers = np.stack([layer for _, layer in layers])
            write_layers(root / "masks" / name, stored, tags, void=_void_of(stored))
            if numbers.any():
                is_wide = numbers.max() > MAX_VALUE
                write_layers(root / NUMBER_FOLDER / name, numbers.astype(np.uint32 if is_wide else np.uint16), tags)
            journal.add(sample, {"has_nothing": bool((class_maps == NOTHING).any()), "layers": len(layers)})
        count = len(journal.classes)
        needs_nothing = any(record["has_nothing"] or record["layers"] > 1 for record in journal.records())
        write_classes(
            root / "classes.json",
            journal.classes,
            ignore_index=VOID_8_BIT if count < VOID_8_BIT else VOID_16_BIT,
            nothing_index=count if needs_nothing else None,
        )


def mask_path(folder: Path, key: str, source: Dataset) -> Path:
    """The file that `write_mask` writes."""
    return folder / f"{key}.tif"


def write_mask(folder: Path, sample: Sample, source: Dataset, *, palette: bool = False) -> Path:
    """Write the truth of a sample of `source` as a TIFF of class numbers that lies where its image lies on the map.

    Void is the highest number; `palette` adds the colours.

    Raises:
        OutputError: the place is not writable, or a map of classes cannot hold the truth.
        FormatError: the image file has gone, or its tags are damaged.
    """
    path = mask_path(folder, sample.key, source)
    values = mask_values(sample)
    colors = colormap_of(truth_of(sample).classes) if palette else None
    write_layers(path, values[None], geo_tags(source.image_files[sample.key]), colors, void=_void_of(values))
    return path


def tiff_grid(path: Path | str) -> Grid:
    """Where the pixels of a TIFF are: (rows, columns), and the affine from (row, column, 1) of a pixel's centre to the map.

    The affine is None where the file says nothing, gives single tie points only, or is turned by its orientation.

    Raises:
        FormatError: the file is missing, damaged or no TIFF, or its tags are.
    """
    path = Path(path)
    with _first_page(path) as page:
        shape = (int(page.imagelength), int(page.imagewidth))
    tags = geo_tags(path)
    return Grid(shape, None, None if tags is None else _affine(tags, path))


def geo_tags(path: Path | str) -> GeoTags | None:
    """The tags that place a TIFF on a map, None where it has no place there, or its orientation turns it away from that.

    Raises:
        FormatError: the file is missing, damaged or no TIFF, or one of the tags is damaged.
    """
    path = Path(path)
    found = []
    with _first_page(path) as page:
        if page.tags.valueof(EXIF_ORIENTATION, 1) != 1:
            return None
        for code in GEO_TAGS:
            tag = page.tags.get(code)
            if tag is None:
                continue
            if tag.valuebytecount > MAX_TAG:
                raise FormatError(f"{path}: its tag {code} claims {tag.valuebytecount:,} bytes; copy it again")
            handle = page.parent.filehandle
            handle.seek(tag.valueoffset)
            raw = handle.read(tag.valuebytecount)
            if len(raw) < tag.valuebytecount:
                raise FormatError(f"{path}: its tag {code} is cut short; copy it again")
            found.append((int(tag.code), int(tag.dtype), int(tag.count), raw))
        order: Literal["<", ">"] = ">" if page.parent.byteorder == ">" else "<"
    codes = {code for code, *_ in found}
    return GeoTags(order, tuple(found)) if codes & {SCALE, TIE_POINTS, TRANSFORM} else None


def tags_of_mask(path: Path) -> MaskTags:
    """What the tags of a TIFF say of its numbers.

    Raises:
        FormatError: the file is missing, damaged or no TIFF.
    """
    with _first_page(path) as page:
        nodata = str(page.tags.valueof(GDAL_NODATA, "")).strip("\0 ")
        return MaskTags(nodata, calls_white_zero(page), page.bitspersample == 1)


def write_layers(
    path: Path | str,
    values: np.ndarray,
    tags: GeoTags | None = None,
    colors: np.ndarray | None = None,
    *,
    void: int | None = None,
) -> None:
    """Write layers of numbers (P, *S) as a TIFF whose pages they are, one plain page for one layer of an image.

    `tags` place it on a map. `colors` uint8 (256, 3) show one layer of 8 bits in the colours of its classes. `void` is the
    number that GIS programs are to take for no data, whether it occurs or not: all masks of a map then say the same.

    Raises:
        OutputError: the place is not writable.
    """
    tags = tags if void is None else _with_void(tags, void)
    axes = ("CYX" if values.ndim == 3 else "CZYX")[-values[0].ndim if len(values) == 1 else 0 :]
    _write(Path(path), values[0] if len(values) == 1 else values, tags, axes, colormap=_colormap(colors))


def write_mask_rows(
    folder: Path, rows: Iterator[np.ndarray], shape: tuple[int, int], key: str, source: Dataset, colors: np.ndarray | None
) -> Path:
    """Write what `write_mask` would of a class map of the size `shape` that comes in rows (n, W), of one type, and never whole.

    `colors` uint8 (256, 3) are those of the classes, if they are to be shown in them.

    Raises:
        OutputError: the place is not writable.
        FormatError: the image file has gone, or its tags are damaged.
    """
    path, first = mask_path(folder, key, source), next(rows)
    tags, void, rows = geo_tags(source.image_files[key]), _void_of(first), chain([first], rows)
    if min(shape) <= TILE:  # one piece
        write_layers(path, np.concatenate([*rows])[None], tags, colors, void=void)
    else:
        _write(path, _Blocks(rows, shape, first.dtype), _with_void(tags, void), "YX", colormap=_colormap(colors))
    return path


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A map of some shape and type in tiles, left to right and top to bottom, of rows (n, W)."""

    rows: Iterator[np.ndarray]
    shape: tuple[int, int]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the map."""
        return prod(self.shape) * self.dtype.itemsize

    def astype(self, dtype: np.dtype, *, copy: bool) -> Iterator[np.ndarray]:
        """The tiles (TILE, TILE) in another type; beyond the map they are 0."""
        ready, count = list[np.ndarray](), 0
        for top in range(0, self.shape[0], TILE):
            high = min(TILE, self.shape[0] - top)
            while count < high:
                ready.append(next(self.rows))
                count += len(ready[-1])
            whole = np.concatenate(ready)
            ready, count = [whole[high:]], count - high
            for left in range(0, self.shape[1], TILE):
                block = np.zeros((TILE, TILE), dtype)
                part = whole[:high, left : left + TILE]
                block[: len(part), : part.shape[1]] = part
                yield block


class _first_page:  # noqa: N801  (used like a function)
    """A context with the first page of a TIFF, in which whatever is wrong with the file becomes a FormatError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> tifffile.TiffPage:
        try:
            self.file = tifffile.TiffFile(self.path)
            page = self.file.pages.first
        except FileNotFoundError as error:
            raise FormatError(f"{self.path} does not exist; check the spelling") from error
        except Exception as error:  # damaged files make the decoder fail in any way
            raise FormatError(f"{self.path} is damaged or no TIFF ({error}); copy it again or remove it") from error
        if not isinstance(page, tifffile.TiffPage):
            raise FormatError(f"{self.path} has no page; copy it again or remove it")
        return page

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, SegwrightError):
            raise FormatError(f"{self.path} is damaged ({error}); copy it again or remove it") from error


def _affine(tags: GeoTags, path: Path) -> np.ndarray | None:
    """From (row, column, 1) of a pixel's centre to x, y on the map; None where only single points are known."""
    values = {code: np.frombuffer(raw, tags.byteorder + "f8") for code, kind, _, raw in tags.tags if kind == 12}
    raw_keys = next((raw for code, kind, _, raw in tags.tags if (code, kind) == (KEYS, 3)), b"")
    keys = np.frombuffer(raw_keys[: len(raw_keys) // 8 * 8], tags.byteorder + "u2")
    raster = IS_AREA
    for key in keys.reshape(-1, 4)[1:]:  # after the version
        if key[0] == RASTER_TYPE and key[1] == 0:
            raster = int(key[3])
    scale, ties, matrix = values.get(SCALE), values.get(TIE_POINTS), values.get(TRANSFORM)
    if matrix is not None and len(matrix) == 16:
        to_map = matrix.reshape(4, 4)[np.ix_([0, 1], [0, 1, 3])]  # from column, row, 1 to x, y
    elif scale is not None and len(scale) >= 2 and ties is not None and len(ties) >= 6:
        column, row, _, x, y = ties[:5]
        to_map = np.array([[scale[0], 0, x - column * scale[0]], [0, -scale[1], y + row * scale[1]]])
    else:
        return None
    half = 0.0 if raster == IS_POINT else 0.5  # tags of areas count from the corner of the first pixel
    affine = np.eye(3)
    affine[:2] = to_map @ [[0, 1, half], [1, 0, half], [0, 0, 1]]
    if not np.isfinite(affine).all() or np.linalg.det(affine) == 0:
        raise FormatError(f"{path}: its tags lead to no place on a map ({affine[:2].tolist()}); correct or remove them")
    return affine


def _tags_for(grid: Grid) -> GeoTags | None:
    """Tags that say what a grid of an image says."""
    if grid.affine is None or len(grid.shape) != 2:
        return None
    matrix = np.zeros((4, 4))
    matrix[np.ix_([0, 1], [1, 0, 3])] = grid.affine[:2]
    matrix[3, 3] = 1
    keys = np.array([1, 1, 0, 1, RASTER_TYPE, 0, 1, IS_POINT], "<u2")
    return GeoTags("<", ((TRANSFORM, 12, 16, matrix.astype("<f8").tobytes()), (KEYS, 3, len(keys), keys.tobytes())))


def _write_image(path: Path, sample: Sample, source: Path | None, tags: GeoTags | None) -> GeoTags | None:
    """Write the image of a sample, or copy its TIFF, and return the tags that place it on the map."""
    image = sample.image
    if source is not None and source.suffix.lower() in TIFF_SUFFIXES:
        stored = read_image(source, Axes(image.shape[1:]))
        if stored.dtype == image.dtype and np.array_equal(stored, image, equal_nan=True):
            with source.open("rb") as file, replacing(path) as copy:
                shutil.copyfileobj(file, copy)
            return geo_tags(path)
    if image.dtype == bool or image.dtype.kind not in "uif":
        raise OutputError(f"sample {sample.key!r}: TIFF holds no {image.dtype} here; convert it to uint8 or float32")
    axes = "CYX" if image.ndim == 3 else "CZYX"
    if len(image) == 1:
        _write(path, image[0], tags, axes[1:])
    else:
        _write(path, image, tags, axes, is_one_page=image.ndim == 3)
    return tags


def _write(
    path: Path,
    values: "np.ndarray | _Blocks",
    tags: GeoTags | None,
    axes: str,
    *,
    is_one_page: bool = False,
    colormap: np.ndarray | None = None,
) -> None:
    order: Literal["<", ">"] = tags.byteorder if tags else "<"
    dtype = values.dtype.newbyteorder(order)
    told: dict[str, Any] = {} if isinstance(values, np.ndarray) else {"shape": values.shape, "dtype": dtype}
    with replacing(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the writer comments on channel counts
        tifffile.imwrite(
            file,
            values.astype(dtype, copy=False),
            **told,
            bigtiff=values.nbytes > BIG,
            byteorder=order,
            photometric="minisblack" if colormap is None else "palette",
            colormap=colormap,
            planarconfig="separate" if is_one_page else None,
            tile=(TILE, TILE) if min(values.shape[-2:]) > TILE else None,
            compression="zlib",
            software=OURS,
            metadata={"axes": axes},
            extratags=[(code, kind, count, raw, True) for code, kind, count, raw in tags.tags] if tags else [],
        )


def _colormap(colors: np.ndarray | None) -> np.ndarray | None:
    """Colours uint8 (256, 3) as a TIFF holds them, uint16 (3, 256)."""
    return None if colors is None else colors.T.astype(np.uint16) * 257  # 257: 255 to 65535


def _with_void(tags: GeoTags | None, void: int) -> GeoTags:
    """Tags that say besides which number is no data."""
    text = f"{void}\0".encode()
    order, known = (tags.byteorder, tags.tags) if tags is not None else ("<", ())
    return GeoTags(order, (*known, (GDAL_NODATA, ASCII, len(text), text)))


def _void_of(stored: np.ndarray) -> int:
    """The number of void in a mask as it is stored: the highest."""
    return int(np.iinfo(stored.dtype).max)


def _segments(truth: Segmentation) -> tuple[np.ndarray, np.ndarray, np.ndarray, Classes]:
    return truth.class_ids, truth.instance_ids, truth.scores, truth.classes


def _checked(layer: np.ndarray, path: Path) -> np.ndarray:
    if layer.min(initial=0) < 0 or layer.max(initial=0) > MAX_NUMBER:
        raise FormatError(f"{path} holds the numbers {layer.min()}..{layer.max()}; renumber them 0..{MAX_NUMBER}")
    return layer


def _guessed(masks: list[Path]) -> Meaning:
    if not masks or len(read_mask_channels(masks[0], FLAT)) == 1 or _is_picture(masks[0]):
        return guess_meaning(masks)
    return guessed((_checked(read_mask_channels(mask, FLAT), mask) for mask in masks), masks[0])


def _is_picture(path: Path) -> bool:
    with _first_page(path) as page:
        return page.photometric in COLORS


def _shows_colors(path: Path) -> bool:
    with _first_page(path) as page:
        return page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE)


def _is_ours(path: Path) -> bool:
    with _first_page(path) as page:
        return page.tags.valueof(SOFTWARE) == OURS
