"""DAVIS, video frames with numbered objects: JPEGImages/480p/SEQUENCE/00000.jpg and Annotations/480p/SEQUENCE/00000.png.

    ROOT/JPEGImages/480p/bear/00000.jpg      RESOLUTION may be absent, as in YouTube-VOS; of several, 480p is read
    ROOT/Annotations/480p/bear/00000.png     also Annotations_unsupervised; the number of the object at each pixel
    ROOT/ImageSets/2017/train.txt            the sequences of a part, one per line; also val, test-dev, ...; optional
    ROOT/davis_semantics.json                {"bear": {"1": "animal"}}, the class of each number, optional
    ROOT/classes.json                        ours: the list of classes; label_encoding.py says what it holds; optional

0 is nothing, 255 void, other numbers are objects, the same number being the same object in all frames of a sequence; a mask of
only 0 and 255 without a palette, as in DAVIS 2016, holds one object. Where davis_semantics.json does not name a sequence, its
objects are of the class "object". All classes are things unless classes.json says otherwise. A frame without an annotation, as
in the test sets, has no truth. The key is "bear__00000", after the part that ImageSets names, "train__bear__00000"; a list
called all.txt only tells of the order of the sequences. A sequence of one frame that has its name, x/x.jpg, has the key "x".

Written are object numbers 1..254, and stuff as the number 254 less its class. Images are kept as they are, so that tools that
look for .jpg alone find only JPEGs. A frame that does not go on where its sequence is (in another order, or with another class
for a number) becomes a sequence of its own, so that keys and classes come back. Void is kept. Of overlapping segments the last
covers the others; crowds become objects; scores are lost; higher numbers are refused.

Axes: P planes, (H, W) pixels.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from segwright.codecs.image_file import SUFFIXES, fit_mask, read_mask
from segwright.codecs.image_writer import write_class_map
from segwright.codecs.json_stream import parse
from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.atomic_files import replacing
from segwright.core.errors import FormatError, OutputError, SettingError
from segwright.core.spelling import composed
from segwright.core.strict_json import json_text
from segwright.formats.image_index import SHOWN, TRAIN_NAMES, VAL_NAMES, images_below, natural, split_of
from segwright.formats.label_encoding import CLASSES_FILE
from segwright.formats.named_objects import (
    find_classes,
    read_picture,
    truth_2d,
    unique_keys,
    unread_picture,
    write_classes_file,
)
from segwright.formats.resume_journal import Journal

log = logging.getLogger(__name__)

LOSES = "of overlapping segments the last covers the others, crowds become single objects, scores are not kept"
IMAGES, MASKS, SETS, SEMANTICS = "JPEGImages", ("Annotations", "Annotations_unsupervised"), "ImageSets", "davis_semantics.json"
RESOLUTION = "480p"  # the one that tools read unless told otherwise
YEARS = ("2017", "2019", "2016")  # of lists, the first that is there counts; 2016 tells of fewer sequences
YEAR, ORDER = "2017", "all"
MAX_NAME = 40  # characters of a name in a message; a damaged list may hold any line
OBJECT = "object"  # class of what has no name
VOID_NUMBER, HIGHEST = 255, 254
PNG_COLOR_TYPE, PNG_PALETTE = 25, 3  # the byte of a PNG that says what its values are
PALETTE = [  # DAVIS's own: the lowest bits of a number are the highest bits of its colour
    tuple(sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3))
    for number in range(VOID_NUMBER)
]
NUMBERS = Classes.of([str(number) for number in range(VOID_NUMBER)], colors=PALETTE)  # what a mask's palette shows
NAMES_BY_NUMBER = TypeAdapter(dict[str, dict[str, str]])


@dataclass(frozen=True, slots=True)
class DavisFrame:
    """The files of a frame, None where one is missing, and its sequence."""

    image: Path | None
    mask: Path | None
    sequence: str


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads a frame by its key. `names` gives the class of each number of the sequences that it knows."""

    frames: dict[str, DavisFrame]
    classes: Classes
    names: dict[str, dict[str, str]]
    has_images: bool

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_picture)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_picture)

    def _sample(self, key: str, picture: Callable[..., np.ndarray]) -> Sample:
        frame = self.frames[key]
        numbers = None if frame.mask is None else _numbers(frame.mask)
        shape = None if numbers is None or frame.image else (numbers.shape[0], numbers.shape[1])
        file = frame.image or frame.mask or Path(key)
        image = picture(frame.image, shape, str(file), name=f"{frame.sequence}/{file.stem}", is_needed=self.has_images)
        if numbers is None or frame.mask is None:
            return Sample.of(key, image)
        if frame.image is not None:
            fitting = fit_mask(numbers, image.shape[1:], frame.image)
            if fitting is None:
                sizes = [" x ".join(map(str, shape)) for shape in (numbers.shape, image.shape[1:])]
                raise FormatError(
                    f"{frame.mask} is {sizes[0]}, its image {frame.image} is {sizes[1]} (rows x columns); give masks "
                    "and images of one resolution"
                )
            numbers = fitting
        return Sample.of(key, image, self._truth(numbers, frame))

    def _truth(self, numbers: np.ndarray, frame: DavisFrame) -> Segmentation:
        present = np.flatnonzero(np.bincount(numbers.ravel(), minlength=VOID_NUMBER + 1))
        objects = [int(number) for number in present if number not in (0, VOID_NUMBER)]
        segment_of = np.zeros(VOID_NUMBER + 1, np.int32)
        segment_of[objects], segment_of[VOID_NUMBER] = np.arange(1, len(objects) + 1), VOID
        class_ids = [self._class_of(number, frame) for number in objects]
        ids = [number if self.classes.is_thing[k] else 0 for number, k in zip(objects, class_ids, strict=True)]
        return Segmentation.panoptic(segment_of[numbers], class_ids, ids, classes=self.classes)

    def _class_of(self, number: int, frame: DavisFrame) -> int:
        names = self.names.get(frame.sequence)
        name = OBJECT if names is None else names.get(str(number))
        if name is None:
            raise FormatError(
                f"{frame.mask} holds the number {number}, which {SEMANTICS} does not name; add it to {frame.sequence!r}"
            )
        if name not in self.classes.names:
            raise FormatError(f"{frame.mask}: {name!r}, the class of number {number}, is not in {CLASSES_FILE}; add it there")
        return self.classes.names.index(name)


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with sequences of masks, and of images or lists of sequences."""
    root = Path(path)
    try:
        masks = _mask_folder(root)
        return masks is not None and _has_sequences(masks) and (_has_sequences(root / IMAGES) or (root / SETS).is_dir())
    except (OSError, ValueError):
        return False


def read(path: Path | str) -> Dataset:
    """The frames of all sequences, the sequences in the order of the lists, then in name order, frames in name order.

    Raises:
        FormatError: the folders or davis_semantics.json are not as the module's docstring says; damaged masks and numbers
            without a class are found with their frame.
    """
    root = Path(path)
    folder = _mask_folder(root) if root.is_dir() else None
    if folder is None:
        raise FormatError(f"{root} has no folder {MASKS[0]}/; give the folder that holds it and {IMAGES}/")
    masks, images = _frames(folder), _frames(root / IMAGES)
    parts = _parts(root)
    order = [name for name in parts if name in masks or name in images]
    if gone := [name for name in parts if name not in order]:
        shown = ", ".join(name[:MAX_NAME] for name in gone[:SHOWN])
        log.warning("%s: %d of the %d sequences in its lists are not there (%s)", root, len(gone), len(parts), shown)
    order += sorted((masks.keys() | images.keys()) - set(order), key=natural)
    names: list[str] = []
    frames: list[DavisFrame] = []
    for sequence in order:
        own_images, own_masks = images.get(sequence, {}), masks.get(sequence, {})
        stems = sorted(own_images.keys() | own_masks.keys(), key=natural)
        for stem in stems:
            name = sequence if stems == [sequence] else f"{sequence}/{stem}"
            part = parts.get(sequence, "")
            names.append(f"{part}/{name}" if part and not name.startswith(f"{part}__") else name)
            frames.append(DavisFrame(own_images.get(stem), own_masks.get(stem), sequence))
    keyed = {key: frames[position] for key, position in unique_keys(names, root).items()}
    if not any(frame.mask for frame in frames):
        raise FormatError(f"{folder} holds no mask; add the annotations, as SEQUENCE/00000.png")
    semantics = _semantics(root)
    classes = _classes(root, semantics, order)
    files = {key: frame.image for key, frame in keyed.items() if frame.image is not None}
    if not files:
        log.warning("%s: none of the images is there, so that samples have masks only", root)
    return Dataset(str(path), classes, tuple(keyed), Reader(keyed, classes, semantics, bool(files)), files)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as frames of sequences; the module's docstring says how, and what is lost.

    Raises:
        OutputError: the place is not writable or already holds something, there is no sample, or one is a volume, has no truth,
            an unsafe key, or an object with a number above 254.
    """
    root = Path(path)
    with Journal(root, "davis", samples) as journal:
        sequences = _Sequences()
        for record in journal.records():
            sequences.note(**record["frame"])
        for sample in journal.samples():
            numbers, names = _number_map(truth_2d(sample, "davis"), sample.key)
            frame = sequences.place(sample.key, names)
            place = Path(RESOLUTION, frame["sequence"], frame["stem"])
            write_class_map(root / MASKS[0] / f"{place}.png", numbers, NUMBERS, palette=True)
            journal.write_image(sample, root / IMAGES / place)
            sequences.note(**frame)
            journal.add(sample, {"frame": frame})
        write_classes_file(root, journal.classes)
        _write_sets(root, journal)


@dataclass
class _Sequences:
    """Which sequences are written, and how the last one stands: its part, name, last frame, and the classes of its numbers."""

    used: set[str] = field(default_factory=set)
    part: str = ""
    sequence: str = ""
    stem: str = ""
    names: dict[str, str] = field(default_factory=dict)

    def place(self, key: str, names: dict[str, str]) -> dict[str, Any]:
        """Where a frame goes: on in the last sequence, else in a new one, of its own name or of the whole key."""
        part, rest = split_of(key)
        sequence, _, stem = rest.rpartition("__")
        if not sequence.strip() or not stem.strip(" .") or sequence == stem:
            sequence = stem = rest
        goes_on = (
            (part, sequence) == (self.part, self.sequence)
            and natural(self.stem) < natural(stem)
            and all(self.names.get(number, name) == name for number, name in names.items())
        )
        is_taken = sequence in self.used and not goes_on
        if is_taken or sequence != sequence.strip() or (part and sequence.startswith(f"{part}__")):
            sequence = stem = key
            if key in self.used:
                raise OutputError(f"sample {key!r} is called like a sequence of others; rename it")
        return {"part": part, "sequence": sequence, "stem": stem, "names": names}

    def note(self, part: str, sequence: str, stem: str, names: dict[str, str]) -> None:
        """Take a frame as written."""
        known = self.names if (part, sequence) == (self.part, self.sequence) else {}
        self.part, self.sequence, self.stem, self.names = part, sequence, stem, known | names
        self.used.add(sequence)


def _mask_folder(root: Path) -> Path | None:
    return next((root / name for name in MASKS if (root / name).is_dir()), None)


def _has_sequences(folder: Path) -> bool:
    """Whether a folder holds folders, and neither images nor, as in VOC, XML."""
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
    return any(entry.is_dir() for entry in inside) and not any(entry.suffix.lower() in (*SUFFIXES, ".xml") for entry in inside)


def _frames(folder: Path) -> dict[str, dict[str, Path]]:
    """The files of each sequence by their names without suffix, of one resolution where there are several."""
    found: dict[str, dict[str, dict[str, Path]]] = {}
    for stem, file in images_below(folder) if folder.is_dir() else []:
        resolution, _, rest = stem.rpartition("/")[0].rpartition("/")
        if not rest:
            continue
        frames = found.setdefault(resolution, {}).setdefault(rest, {})
        name = stem.rpartition("/")[2]
        if frames.setdefault(name, file) is not file:
            raise FormatError(f"{file} and {frames[name]} are one frame; remove one of them")
    if len(found) > 1:
        chosen = RESOLUTION if RESOLUTION in found else min(found)
        log.warning("%s holds %s; only %s is read", folder, ", ".join(sorted(found)[:SHOWN]), chosen)
        return found[chosen]
    return next(iter(found.values()), {})


def _parts(root: Path) -> dict[str, str]:
    """The part of each sequence that a list names, in the order of the lists; "" where the list is of no part."""
    folders = [root / SETS / year for year in YEARS] + [root / SETS]
    folder = next((folder for folder in folders if folder.is_dir() and any(folder.glob("*.txt"))), None)
    lists = sorted(folder.glob("*.txt"), key=_list_order) if folder else []
    parts: dict[str, str] = {}
    for file in lists:
        try:
            lines = file.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
        except OSError as error:
            raise FormatError(f"{file} cannot be read ({error.strerror}); check that it is a readable file") from error
        for sequence in filter(None, (composed(line.strip()) for line in lines)):
            parts[sequence] = parts.get(sequence) or _part(file.stem)
    return parts


def _list_order(file: Path) -> tuple[int, str]:
    names = (ORDER, *TRAIN_NAMES, *VAL_NAMES)
    part = file.stem if file.stem == ORDER else _part(file.stem).lower()
    return (names.index(part) if part in names else len(names)), file.name


def _part(stem: str) -> str:
    """The part of a data set that a list is about: itself, "test" for lists such as test-dev, "" for others."""
    if stem.lower() in TRAIN_NAMES + VAL_NAMES:
        return stem
    return "test" if stem.lower().startswith("test-") else ""


def _semantics(root: Path) -> dict[str, dict[str, str]]:
    file = root / SEMANTICS
    if not file.is_file():
        return {}
    try:
        said = parse(NAMES_BY_NUMBER, file.read_bytes(), str(file))
    except OSError as error:
        raise FormatError(f"{file} cannot be read ({error.strerror}); check that it is a readable file") from error
    return {composed(key): {number: composed(name) for number, name in names.items()} for key, names in said.items()}


def _classes(root: Path, semantics: dict[str, dict[str, str]], sequences: Iterable[str]) -> Classes:
    known = [semantics.get(sequence) for sequence in sequences]
    names = {name for numbers in known for name in (numbers or {}).values()}
    if None in known or not names:
        names.add(OBJECT)
    try:
        return find_classes(root, names)
    except SettingError as error:
        raise FormatError(f"{root / SEMANTICS}: {error}") from error


def _numbers(path: Path) -> np.ndarray:
    """The numbers 0..255 of a mask (H, W)."""
    numbers = read_mask(path)
    high = int(numbers.max(initial=0))
    if numbers.ndim != 2 or numbers.min(initial=0) < 0 or high > VOID_NUMBER:
        raise FormatError(
            f"{path} is {' x '.join(map(str, numbers.shape))} and holds numbers up to {high}; flat masks of "
            f"0..{VOID_NUMBER} are needed: save them again as palette PNGs"
        )
    if high == VOID_NUMBER and np.isin(numbers, (0, VOID_NUMBER)).all() and not _has_palette(path):
        return numbers // VOID_NUMBER  # DAVIS 2016: black and white
    return numbers


def _has_palette(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(PNG_COLOR_TYPE + 1)
    return head.startswith(b"\x89PNG") and head[PNG_COLOR_TYPE] == PNG_PALETTE


def _number_map(truth: Segmentation, key: str) -> tuple[np.ndarray, dict[str, str]]:
    """The number at each pixel int32 (H, W), 0 for nothing and -1 for void, and the name of the class of each number."""
    numbers = np.where(truth.instance_ids > 0, truth.instance_ids, HIGHEST - truth.class_ids)
    names: dict[str, str] = {}
    is_present = truth.areas() > 0
    for index in np.flatnonzero(is_present):
        number, name = int(numbers[index]), truth.classes.names[truth.class_ids[index]]
        if not 1 <= number <= HIGHEST or names.setdefault(str(number), name) != name:
            raise OutputError(
                f"sample {key!r}: a segment of {name!r} would get the number {number}, which is not free in 1..{HIGHEST} "
                f"(stuff gets {HIGHEST} less its class); number the objects of each sequence from 1, or write it as coco"
            )
    value_of = np.concatenate([[VOID, 0], numbers]).astype(np.int32)  # void, nothing, segments
    result = value_of[truth.planes[0] + 1]
    for plane in truth.planes[1:]:
        result = np.where(plane > 0, value_of[plane + 1], result)
    return result, names


def _write_sets(root: Path, journal: Journal) -> None:
    """The lists of sequences, and the names of their numbers, from the records one by one."""
    folder = root / SETS / YEAR
    parts = {part: None for part, *_ in _written(journal)}
    for part in (ORDER, *filter(None, parts)):
        with replacing(folder / f"{part}.txt") as file:
            for own, sequence, _ in _written(journal):
                if part in (own, ORDER):
                    file.write(sequence.encode("utf-8", "surrogateescape") + b"\n")
    with replacing(root / SEMANTICS) as file:
        for index, (_, sequence, names) in enumerate(_written(journal)):
            file.write(f"{',' if index else '{'}\n{json_text(sequence)}: {json_text(names)}".encode())
        file.write(b"\n}\n")


def _written(journal: Journal) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Part, name and names of the numbers of each sequence."""
    frames = (record["frame"] for record in journal.records())
    for (part, sequence), group in groupby(frames, key=lambda frame: (frame["part"], frame["sequence"])):
        names: dict[str, str] = {}
        for frame in group:
            names |= frame["names"]
        yield part, sequence, names
