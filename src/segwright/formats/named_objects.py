"""What the formats of drawn objects have in common: classes by name, images by name, regions that become a segmentation.

These formats keep objects as regions with the name of a class, mostly without a list of the classes. Their classes are those
of classes.json at the root, where it is there (label_encoding.py says what it holds; all are things unless `is_thing` says
otherwise), else the names that occur, in natural order, all of them things.

Axes: C channels, (H, W) pixels, R run lengths.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from segwright.codecs import rle
from segwright.codecs.image_file import SUFFIXES, read_image
from segwright.codecs.image_header import upright_size
from segwright.codecs.stored_image import MAX_PIXELS
from segwright.core import Classes, Sample, Segmentation
from segwright.core.atomic_files import replace_file
from segwright.core.classes import distinct_colors
from segwright.core.errors import FormatError, OutputError, SettingError
from segwright.core.spelling import composed
from segwright.core.strict_json import json_text
from segwright.formats.image_index import MASK_FOLDERS, ImageIndex, natural, safe_key, split_of
from segwright.formats.label_encoding import CLASSES_FILE, read_classes, read_table
from segwright.formats.mask_file import MAX_NUMBER
from segwright.formats.resume_journal import truth_of

MAX_SCORE = float(np.finfo(np.float32).max)  # what a Segmentation holds


@dataclass(frozen=True, eq=False)
class Region:
    """One object: the name of its class, its pixels as run lengths (R,), its number, None for the next free one, its score."""

    name: str
    counts: np.ndarray
    instance_id: int | None = None
    score: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", composed(self.name))


def segmentation(
    regions: Sequence[Region], shape: tuple[int, int], classes: Classes, place: str, *, void: np.ndarray | None = None
) -> Segmentation:
    """The segmentation of regions in the order given; `void` are the run lengths (R,) of pixels that nobody knows.

    Regions without a number get the next that is free in this image, those of stuff 0.

    Raises:
        FormatError: a region is of an unknown class, or its number or score is impossible; `place` is for the message.
    """
    index_of = {name: index for index, name in enumerate(classes.names)}
    taken = {region.instance_id for region in regions}
    free = (number for number in count(1) if number not in taken)
    class_ids, instance_ids = [], []
    for region in regions:
        if region.name not in index_of:
            raise FormatError(f"{place}: {region.name!r} is no class of {CLASSES_FILE}; add it there")
        class_ids.append(index_of[region.name])
        number = region.instance_id
        if number is None:
            number = next(free) if classes.is_thing[class_ids[-1]] else 0
        if not 0 <= number <= MAX_NUMBER:
            raise FormatError(f"{place}: an object has the number {number}; numbers are 0..{MAX_NUMBER}")
        if not abs(region.score) <= MAX_SCORE:
            raise FormatError(f"{place}: an object has the score {region.score}; correct it, scores are mostly 0 to 1")
        instance_ids.append(number)
    return Segmentation(
        rle.paint_regions([region.counts for region in regions], shape, void),
        np.array(class_ids, np.int32),
        np.array(instance_ids, np.int32),
        np.array([region.score for region in regions], np.float32),
        classes,
    )


def regions_of(sample: Sample, format: str) -> Iterator[Region]:
    """The segments of the truth of a 2D sample that is to be written, with their numbers.

    Raises:
        OutputError: the sample has no truth, or is a volume.
    """
    truth = truth_2d(sample, format)
    all_counts = rle.of_segments(truth.planes, len(truth))
    for class_id, number, score, counts in zip(truth.class_ids, truth.instance_ids, truth.scores, all_counts, strict=True):
        yield Region(truth.classes.names[class_id], counts, int(number), float(score))


def truth_2d(sample: Sample, format: str) -> Segmentation:
    """The truth of a sample of two axes.

    Raises:
        OutputError: it has none, or is a volume.
    """
    truth = truth_of(sample)
    if len(truth.shape) != 2:
        raise OutputError(
            f"sample {sample.key!r} is a volume, {' x '.join(map(str, truth.shape))}, and {format} holds flat images; "
            "write it as nnunet, volume or mask_folder"
        )
    return truth


def number_attributes(region: Region) -> dict[str, float]:
    """What the objects of a file say of a region's number and score, under our own keys; a score of 1 goes without saying."""
    return {"instance_id": region.instance_id or 0} | ({} if region.score == 1 else {"score": region.score})


def find_classes(root: Path, names: Iterable[str], colors: Mapping[str, Sequence[int]] | None = None) -> Classes:
    """The classes of classes.json at the root, else the names in natural order, all things, in the colours given for them.

    `names` is only gone through where there is no such file.

    Raises:
        FormatError: classes.json is not as it should be, or there are too many classes.
    """
    file = root / CLASSES_FILE
    if file.is_file():
        classes = read_classes(file).classes
        says_things = read_table(file).get("is_thing") is not None
        return classes if says_things else Classes.of(classes.names, colors=classes.colors, is_thing=[True] * len(classes))
    found = sorted(set(map(composed, names)), key=natural) or ["object"]
    given = {composed(name): color for name, color in (colors or {}).items()}
    palette = [given.get(name, color) for name, color in zip(found, distinct_colors(len(found)), strict=True)]
    try:
        return Classes.of(found, colors=palette, is_thing=[True] * len(found))
    except SettingError as error:
        raise FormatError(f"{root}: {error}") from error


def check_size(height: int, width: int, place: str) -> tuple[int, int]:
    """The size of an image that a file gives, (H, W).

    Raises:
        FormatError: it is no size, or one that no image may have.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise FormatError(f"{place}: an image of {height} x {width} (rows x columns) is impossible; correct its size")
    return height, width


def without(counts: np.ndarray, taken: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The run lengths (R,) of what the first cover and the second do not."""
    return _complement(rle.union([_complement(counts), taken], shape))


def _complement(counts: np.ndarray) -> np.ndarray:
    return counts[1:] if counts[0] == 0 else np.concatenate([np.zeros(1, np.uint32), counts])


def find_image(index: ImageIndex, folder: str, name: str) -> Path | None:
    """The image file that a file in `folder`, a path below the root, calls `name`: from there, else wherever it lies.

    Only files below the root are found.

    Raises:
        FormatError: several fit equally well.
    """
    below = os.path.normpath(f"{folder}/{name}".replace("\\", "/").lstrip("/"))
    exact = index.root / below
    is_inside = not below.startswith("..") and below.lower().endswith(SUFFIXES)
    if is_inside and os.path.isfile(exact):  # noqa: PTH113  (Path.is_file raises for a name that is too long)
        return exact
    return index.find(below)


def read_picture(path: Path | None, shape: tuple[int, int] | None, place: str, *, name: str, is_needed: bool) -> np.ndarray:
    """The image (C, H, W) of a sample; without a file, one of no channels, (0, H, W), unless it is needed.

    `shape` is the size that the annotations give, `name` what they call the file.

    Raises:
        FormatError: the image is missing where others are there, damaged, a volume, or of another size.
    """
    if path is None and is_needed:
        raise FormatError(f"{place}: its image {name!r} is not there, others are; add it, or remove its annotations")
    if path is None:
        if shape is None:
            raise FormatError(f"{place}: neither its image {name!r} nor the size of that is known; add the image")
        return np.zeros((0, *shape), np.uint8)
    image = read_image(path)
    if image.ndim != 3:
        raise FormatError(f"{path} is a volume, {place} is about a flat image; give the image that was annotated")
    _check_fits(path, image.shape[1:], shape, place)
    return image


def unread_picture(path: Path | None, shape: tuple[int, int] | None, place: str, *, name: str, is_needed: bool) -> np.ndarray:
    """As `read_picture`, but of no channels, (0, H, W): what the head of the file tells is checked, its pixels are not read.

    Raises:
        FormatError: as `read_picture`; damage beyond the head of a JPEG or PNG goes unnoticed.
    """
    size = upright_size(path) if path is not None else None
    if path is None or size is None:
        image = read_picture(path, shape, place, name=name, is_needed=is_needed)
        return np.zeros((0, *image.shape[1:]), np.uint8)
    _check_fits(path, size, shape, place)
    return np.zeros((0, *size), np.uint8)


def _check_fits(path: Path, size: tuple[int, ...], shape: tuple[int, int] | None, place: str) -> None:
    if shape is not None and size != shape:
        raise FormatError(
            f"{path} is {size[0]} x {size[1]} (rows x columns), but {place} tells of {shape[0]} x {shape[1]}; "
            "give the image that was annotated, not a resized or rotated one"
        )


def unique_keys(names: Iterable[str], root: Path) -> dict[str, int]:
    """The key of each name, a path without suffix, and its position.

    Raises:
        FormatError: two have one key.
    """
    keys: dict[str, int] = {}
    for position, name in enumerate(names):
        key = safe_key(name)
        if keys.setdefault(key, position) != position:
            raise FormatError(f"{root} holds two samples that would both be called {key!r}; rename or remove one")
    return keys


def images_by_key(keys: Iterable[str], images: Iterable[Path | None]) -> dict[str, Path]:
    """The image file of each key that has one.

    Raises:
        FormatError: two samples would have one image, as when that of train/a is missing and val/a.png is found for it.
    """
    owner: dict[Path, str] = {}
    found: dict[str, Path] = {}
    for key, image in zip(keys, images, strict=True):
        if image is None:
            continue
        if owner.setdefault(image, key) != key:
            raise FormatError(f"{image} is the image of {owner[image]!r} and of {key!r}; is one missing, or named wrongly?")
        found[key] = image
    return found


def label_files(root: Path, suffix: str) -> Iterator[Path]:
    """The files below a folder that end so, in name order folder by folder; hidden ones and classes.json are passed over."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(suffix) and not name.startswith(".") and name != CLASSES_FILE:
                yield Path(place, name)


def label_name(root: Path, file: Path) -> str:
    """The path of a file of labels below the root, without its suffix and without a first folder of labels."""
    parts = file.relative_to(root).with_suffix("").parts
    return "/".join(parts[1:] if len(parts) > 1 and parts[0].lower() in MASK_FOLDERS else parts)


def write_classes_file(root: Path, classes: Classes) -> None:
    """Write classes.json, so that classes without objects, colours and thing flags come back."""
    content = {"classes": list(classes.names), "palette": classes.palette.tolist(), "is_thing": list(classes.is_thing)}
    replace_file(root / CLASSES_FILE, json_text(content).encode())


def place_of(key: str) -> str:
    """Where the files of a sample go, without suffix: the key train__x becomes train/x."""
    part, rest = split_of(key)
    return f"{part}/{rest}" if part and not rest.startswith(".") else key
