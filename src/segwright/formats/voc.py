"""Pascal VOC: JPEGImages/X.jpg with SegmentationClass/X.png, and their names in ImageSets/Segmentation/train.txt and val.txt.

    ROOT/JPEGImages/X.jpg
    ROOT/SegmentationClass/X.png              a palette PNG of class numbers, 255 void; or RGB in the colours of the classes
    ROOT/SegmentationObject/X.png             optional: object numbers, 0 for none, 255 void; or RGB in VOC's colours
    ROOT/ImageSets/Segmentation/train.txt     a name per line; the key of a name in train.txt is train__X
    ROOT/labelmap.txt                         CVAT's: a line NAME:R,G,B:: per class, in the order of the numbers
    ROOT/classes.json                         ours, for what labelmap.txt cannot say; see label_encoding.py

ROOT may also lie in VOCdevkit/VOC2012. Without a list of classes they are the published ones: background, then 20 things.
Names in other lists, such as CVAT's default.txt, and masks in no list have keys without a split. Where there is no image at
all, images have no channel. A thing without object number is a crowd; void is the border around objects and what is difficult.

What is written: all of the above. An image that was read from a file is copied, any other one is stored without loss as PNG or
TIFF, never as JPEG. The first class keeps the number 0 where it is called background; else the numbers begin at 1, and 0 are
the pixels of no segment. More than 254 objects in an image are stored in 16 bits.

Lost: of overlapping segments the later covers the earlier. Object numbers above 65534 are given anew. Not kept: scores, pixel
sizes.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segwright.codecs.image_file import are_colors, read_image, read_mask_channels
from segwright.codecs.image_header import unread_image
from segwright.codecs.image_writer import write_values
from segwright.core import VOID, Classes, Dataset, Sample
from segwright.core.atomic_files import replace_file, replacing
from segwright.core.class_names import VOC
from segwright.core.classes import MAX_CLASSES
from segwright.core.errors import FormatError, OutputError
from segwright.core.spelling import composed
from segwright.formats import dataset_file
from segwright.formats.color_labels import ColorCode
from segwright.formats.image_index import SHOWN, TRAIN_NAMES, VAL_NAMES, found, natural, safe_key, split_of
from segwright.formats.label_encoding import (
    CLASSES_FILE,
    VOID_8_BIT,
    VOID_16_BIT,
    Meaning,
    meaning_of,
    write_classes,
    written_meaning,
)
from segwright.formats.label_maps import NOTHING, to_maps, to_segmentation
from segwright.formats.named_objects import truth_2d
from segwright.formats.pairing import by_stem, fit_to_image
from segwright.formats.resume_journal import Journal

log = logging.getLogger(__name__)

LOSES = "of overlapping segments the later covers the earlier; object numbers above 65534 are given anew"
IMAGES, MASKS, OBJECTS, LISTS = "JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"
LABEL_MAP, CLASS_NAMES = "labelmap.txt", "class_names.txt"  # CVAT's, and labelme's, which holds names alone
NO_SPLIT = "default"  # the list, as CVAT calls it, of what is in no split
BACKGROUND, IGNORED = "background", "ignored"
VOID_COLOR = (224, 224, 192)
SPACE = " \t\r"
MAX_CLASSES_8_BIT = 254  # of the numbers 0..255, one is void and one nothing


def colors_of(numbers: np.ndarray) -> np.ndarray:
    """VOC's RGB colour of each number below 2**24, uint8 (N, 3): bits 0, 3, 6, ... make red, from its highest bit downwards."""
    bits = numbers[:, None, None] >> (3 * np.arange(8)[:, None] + np.arange(3)) & 1  # (N, 8, 3)
    return (bits << np.arange(7, -1, -1)[:, None]).sum(axis=1).astype(np.uint8)


def numbers_of_colors(colors: np.ndarray) -> np.ndarray:
    """The number behind each of VOC's colours (3, *S), int32 (*S): the inverse of `colors_of`."""
    result = np.zeros(colors.shape[1:], np.int32)
    for bit in range(8):
        for channel in range(3):
            result |= (colors[channel].astype(np.int32) >> (7 - bit) & 1) << (3 * bit + channel)
    return result


CLASSES = Classes.of(VOC, colors=colors_of(np.arange(len(VOC))).tolist(), is_thing=[name != BACKGROUND for name in VOC])


@dataclass(frozen=True)
class VocFiles:
    """The files of one sample; the image is None where there is none, the object numbers too."""

    image: Path | None
    mask: Path
    numbers: Path | None


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key."""

    files: dict[str, VocFiles]
    meaning: Meaning
    has_images: bool

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_image)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_image)

    def _sample(self, key: str, picture: Callable[[Path], np.ndarray]) -> Sample:
        files = self.files[key]
        if files.image is None and self.has_images:
            raise FormatError(f"{files.mask} has no image in {IMAGES}; add it, or remove the mask")
        class_map, numbers = self.meaning.maps(files.mask)
        image = np.zeros((0, *class_map.shape), np.uint8) if files.image is None else picture(files.image)
        class_map = fit_to_image(class_map, files.mask, image, files.image)
        if files.numbers is not None:
            numbers = np.where(class_map >= 0, fit_to_image(_numbers(files.numbers), files.numbers, image, files.image), 0)
        return Sample.of(key, image, to_segmentation(class_map, numbers, self.meaning.classes))


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with SegmentationClass and either ImageSets or labelmap.txt, or one of VOCdevkit around it."""
    return any((home / LISTS).is_dir() or (home / LABEL_MAP).is_file() for home in _homes(Path(path)))


def read(path: Path | str) -> Dataset:
    """The samples of a folder, list by list, training first; then those in no list.

    A list of which no name has a mask, as that of VOC's test, is left out, with a warning.

    Raises:
        FormatError: the folder is not as above; or names of a list have no mask while others do.
    """
    homes = _homes(Path(path))
    if not homes:
        there = found(Path(path)) if Path(path).is_dir() else "it is no folder"
        raise FormatError(f"{path} has no folder {MASKS} ({there}); give the folder that holds {MASKS}/")
    if len(homes) > 1:
        raise FormatError(f"{path} holds several data sets, {homes[0].name} and {homes[1].name}; give one of them")
    root = homes[0]
    images, masks, objects = (by_stem(root / folder) for folder in (IMAGES, MASKS, OBJECTS))
    dropped = dataset_file.dropped(root)
    files: dict[str, VocFiles] = {}
    for key, name in _names(root, masks, dropped):
        entry = VocFiles(images.get(name), masks[name], objects.get(name))
        if files.setdefault(key, entry) is not entry:
            raise FormatError(f"{masks[name]} and {files[key].mask} would both be called {key}; rename one")
    if not files:
        raise FormatError(f"{root / MASKS} holds no mask ({found(root / MASKS)}); masks are .png files")
    image_files = {key: entry.image for key, entry in files.items() if entry.image is not None}
    if not image_files:
        log.warning("%s holds no image; the samples have none", root)
    meaning = _meaning(root, has_objects=bool(objects)).looking_at(masks.values())
    return Dataset(str(path), meaning.classes, tuple(files), Reader(files, meaning, bool(image_files)), image_files)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as the docstring of this module says.

    Raises:
        OutputError: as `mask_folder.write`; or a sample is a volume, or there are more than 254 classes.
    """
    root = Path(path)
    with Journal(root, "voc", samples) as journal:
        taken = {record["name"] for record in journal.records()}
        for sample in journal.samples():
            truth = truth_2d(sample, "voc")
            values, nothing = _values(truth.classes)
            class_map, numbers = to_maps(truth)
            part, name = _place(sample.key, taken)
            taken.add(name)
            stored = np.array([nothing, VOID_8_BIT, *values])[class_map - NOTHING].astype(np.uint8)  # nothing, void, classes
            write_values(root / MASKS / f"{name}.png", stored, _colormap(truth.classes))
            if numbers.any():
                write_values(root / OBJECTS / f"{name}.png", *_object_map(numbers, class_map))
            journal.write_image(sample, root / IMAGES / name)
            journal.add(sample, {"part": part, "name": name, "has_nothing": bool((class_map == NOTHING).any())})
        for part in sorted({record["part"] for record in journal.records()}):
            with replacing(root / LISTS / f"{part}.txt") as file:
                for record in journal.records():
                    if record["part"] == part:
                        file.write(f"{record['name']}\n".encode())
        values, nothing = _values(journal.classes)
        has_nothing = any(record["has_nothing"] for record in journal.records())
        _write_label_map(root / LABEL_MAP, journal.classes)
        if journal.classes != CLASSES or has_nothing:
            write_classes(root / CLASSES_FILE, journal.classes, values=values, nothing_index=nothing if has_nothing else None)


def _homes(path: Path) -> list[Path]:
    places = [path, *sorted(path.glob("VOC20*")), *sorted(path.glob("VOCdevkit/VOC20*"))] if path.is_dir() else []
    return [place for place in places if (place / MASKS).is_dir()]


def _names(root: Path, masks: dict[str, Path], dropped: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Key and name of each mask, in the order of the lists; the name is a path below the folders, without suffix."""
    splits = [*TRAIN_NAMES, *VAL_NAMES]
    lists = sorted((root / LISTS).glob("*.txt"), key=lambda file: natural(file.stem))
    lists.sort(key=lambda file: splits.index(file.stem.lower()) if file.stem.lower() in splits else len(splits))
    listed: set[str] = set()
    for file in lists:
        split = f"{file.stem}__" if file.stem.lower() in splits else ""
        names = [name for name in _lines(file) if split or name not in listed]
        keyed = [(safe_key(split + name.removeprefix(f"{file.stem}/")), name) for name in dict.fromkeys(names)]
        keyed = [(key, name) for key, name in keyed if key not in dropped]
        missing = [name for _, name in keyed if name not in masks]
        listed.update(names)
        if missing and len(missing) == len(keyed):
            log.warning("%s: none of its %d names has a mask; it is left out", file, len(keyed))
            continue
        if missing:
            shown = ", ".join(missing[:SHOWN])
            raise FormatError(f"{file}: {len(missing)} of {len(keyed)} names have no mask in {MASKS} ({shown}); add the masks")
        yield from keyed
    yield from ((safe_key(name), name) for name in masks if name not in listed and safe_key(name) not in dropped)


def _lines(path: Path) -> list[str]:
    """The lines of a text file that hold anything, without space around them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as text ({error}); save it as UTF-8") from error
    return [composed(line.strip(SPACE)) for line in text.split("\n") if line.strip(SPACE)]


def _meaning(root: Path, *, has_objects: bool) -> Meaning:
    """What the numbers and colours in SegmentationClass mean."""
    meaning = written_meaning(root)
    if meaning is not None:
        return replace(meaning, is_indexed=True)
    names, colors, source = list(VOC), CLASSES.palette.tolist(), f"VOC's list (other classes belong into {LABEL_MAP})"
    if (root / LABEL_MAP).is_file():
        source = str(root / LABEL_MAP)
        names, colors = _read_label_map(root / LABEL_MAP)
    elif (root / CLASS_NAMES).is_file():
        source = str(root / CLASS_NAMES)
        names = [name for name in _lines(root / CLASS_NAMES) if name != "__ignore__"][:MAX_CLASSES]
        colors = colors_of(np.arange(len(names))).tolist()
    things = [has_objects and name.strip("_") != BACKGROUND for name in names]
    if tuple(names) == VOC and colors == CLASSES.palette.tolist():
        things = list(CLASSES.is_thing)
    content = {"classes": names, "palette": colors, "is_thing": things, "ignore_index": VOID_8_BIT}
    meaning = replace(meaning_of(content, source), is_indexed=True)
    if meaning.colors is None or list(VOID_COLOR) in colors:
        return meaning
    palette = np.vstack([meaning.colors.palette, VOID_COLOR]).astype(np.uint8)
    code = ColorCode(palette, np.append(meaning.colors.class_of, VOID), (*meaning.colors.names, "void"))
    return replace(meaning, colors=code)


def _read_label_map(path: Path) -> tuple[list[str], list[list[int]]]:
    """Names and colours of a labelmap.txt; a class without colour has VOC's. "ignored" in the colour of void is no class."""
    names: list[str] = []
    colors: list[list[int]] = []
    for line in _lines(path):
        if line.startswith("#"):
            continue
        name, *rest = line.rsplit(":", 3)
        try:
            color = [int(value) for value in rest[0].split(",")] if rest and rest[0] else colors_of(np.array([len(names)]))[0]
            if len(color) != 3 or not 0 <= min(color) <= max(color) <= 255:
                raise ValueError
        except ValueError as error:
            raise FormatError(f"{path}: {line[:100]!r} is no class; a line such as car:128,0,0:: is needed") from error
        if (name, tuple(color)) != (IGNORED, VOID_COLOR):
            names.append(name)
            colors.append([int(value) for value in color])
    return names, colors


def _write_label_map(path: Path, classes: Classes) -> None:
    rows = [] if classes.names[0] == BACKGROUND else [(BACKGROUND, (0, 0, 0))]
    rows += [(name.replace("\n", " "), color) for name, color in zip(classes.names, classes.colors, strict=True)]
    lines = ["# label:color_rgb:parts:actions", *(f"{name}:{r},{g},{b}::" for name, (r, g, b) in rows)]
    replace_file(path, "".join(f"{line}\n" for line in lines).encode())


def _values(classes: Classes) -> tuple[list[int], int]:
    """The number of each class in the masks, and that of pixels of no segment."""
    count = len(classes)
    if count > MAX_CLASSES_8_BIT:
        raise OutputError(f"voc holds {MAX_CLASSES_8_BIT} classes, there are {count}; write to mask_folder")
    return ([*range(count)], count) if classes.names[0] == BACKGROUND else ([*range(1, count + 1)], 0)


def _colormap(classes: Classes) -> np.ndarray:
    """RGB colours of the numbers in SegmentationClass, uint8 (256, 3)."""
    colormap = colors_of(np.arange(256))
    colormap[_values(classes)[0]] = classes.palette
    colormap[VOID_8_BIT] = VOID_COLOR
    return colormap


def _object_map(numbers: np.ndarray, class_map: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The numbers for SegmentationObject, uint8 (H, W) with their colours (256, 3), or uint16 (H, W) without."""
    if numbers.max() >= VOID_16_BIT:
        numbers = np.searchsorted(np.union1d([0], numbers), numbers)
    is_narrow = numbers.max() < VOID_8_BIT
    stored = np.where(class_map == VOID, VOID_8_BIT if is_narrow else VOID_16_BIT, numbers)
    return (stored.astype(np.uint8), colors_of(np.arange(256))) if is_narrow else (stored.astype(np.uint16), None)


def _numbers(path: Path) -> np.ndarray:
    """The object numbers (H, W) in a file of SegmentationObject."""
    values = read_mask_channels(path)
    if are_colors(values):
        if len(values) != 3 or values.dtype != np.uint8:
            raise FormatError(f"{path} has {len(values)} channels of {values.dtype}; save object numbers, or 8-bit RGB colours")
        return numbers_of_colors(values)
    void = VOID_8_BIT if values.dtype.itemsize == 1 else VOID_16_BIT
    if values.min(initial=0) < 0 or values.max(initial=0) > VOID_16_BIT:
        raise FormatError(f"{path}: object numbers are 0..{VOID_16_BIT}; number the objects again")
    return np.where(values[0] == void, 0, values[0])


def _place(key: str, taken: set[str]) -> tuple[str, str]:
    """The list and the name that a key is written under; `_names` is the way back."""
    split, rest = split_of(key)
    if rest.startswith(".") or rest != rest.strip(SPACE):  # such files are hidden, and lines have no space at their ends
        split, rest = "", key
    part = split or NO_SPLIT
    return part, f"{part}/{rest}" if rest in taken else rest
