"""Cityscapes: leftImg8bit/SPLIT/CITY/X_leftImg8bit.png with gtFine/SPLIT/CITY/X_gtFine_instanceIds.png or its kin.

    ROOT/leftImg8bit/train/aachen/X_leftImg8bit.png
    ROOT/gtFine/train/aachen/X_gtFine_instanceIds.png     read before _labelIds.png, _labelTrainIds.png and _polygons.json
    ROOT/gtCoarse/...                                     where gtFine has nothing for an image
    ROOT/classes.json                                     ours, for other classes than the published; see label_encoding.py

The key of the image above is train__aachen__X. The classes are the 19 that Cityscapes evaluates, in the order of their train
ids; pixels of all its other labels are void. With classes.json (or dataset.toml) they are those, and the label id of a class
is its number in "values", or else its index.

A number in instanceIds is, from 1000 on, label id x 1000 + n, for the object n + 1 of that label; below it is a label id:
stuff, or a crowd. Polygons are drawn in their order, a later one over an earlier one, by the rule of codecs/polygons.py;
Cityscapes' own tool draws their border too. A polygon "cargroup" is a crowd of cars.

What is written: instanceIds, labelIds and labelTrainIds, no polygons. A key such as train__aachen__x goes where it came from;
without a city, train__x goes to train/no_city, and without a split, x goes to train/no_split. Other classes than the published
ones get the label ids 1, 2, ...; 0 is void, and pixels of no segment get the next id, which classes.json then names.

Lost: of overlapping segments the later covers the earlier. Objects of a class of which one is numbered above 1000 are
numbered anew. Not kept: scores, pixel sizes.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from segwright.codecs import polygons, rle
from segwright.codecs.image_file import read_image
from segwright.codecs.image_header import unread_image
from segwright.codecs.image_writer import write_values
from segwright.codecs.json_stream import parse
from segwright.core import VOID, Classes, Dataset, Sample
from segwright.core.class_names import CITYSCAPES
from segwright.core.errors import FormatError, OutputError, naming
from segwright.core.spelling import composed
from segwright.formats.image_index import TRAIN_NAMES, found, safe_key, split_of
from segwright.formats.label_encoding import (
    CLASSES_FILE,
    MAX_VALUE,
    UNKNOWN,
    VOID_8_BIT,
    VOID_16_BIT,
    Meaning,
    read_numbers,
    write_classes,
    written_meaning,
)
from segwright.formats.label_maps import NOTHING, to_maps, to_segmentation
from segwright.formats.named_objects import truth_2d
from segwright.formats.pairing import by_stem, fit_to_image, keys_of_parts
from segwright.formats.resume_journal import Journal

LOSES = "of overlapping segments the later covers the earlier; objects numbered above 1000 are numbered anew"
IMAGE_FOLDER, IMAGE_ENDING = "leftImg8bit", "_leftImg8bit"
TRUTH_FOLDERS = ("gtFine", "gtCoarse")  # the first goes before the second
KINDS = ("instanceIds.png", "labelIds.png", "labelTrainIds.png", "polygons.json")  # what says most first
TRUTH_NAME = re.compile(rf"(.+)_({'|'.join(TRUTH_FOLDERS)})_({'|'.join(map(re.escape, KINDS))})")
NO_SPLIT, NO_CITY = "no_split", "no_city"  # cities of keys that name no split, or no city
CITY = re.compile(r"\w[\w-]*")
PER_LABEL = 1000  # numbers of objects that each label has in instanceIds
MAX_DRAWN = 1 << 25  # pixels of polygons, sixteen times Cityscapes' own: a short file could claim any size, and fill the memory
MAX_THING_ID = 64  # the highest label id whose 1000 numbers all fit 16 bits

# Of the labels that are evaluated, in the order of their train ids.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
COLORS = (
    *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30)),
    *((220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70)),
    *((0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
)
THINGS = CITYSCAPES[CITYSCAPES.index("person") :]  # whose objects are told apart
OTHER_LABELS = {
    **{"unlabeled": 0, "ego vehicle": 1, "rectification border": 2, "out of roi": 3, "static": 4, "dynamic": 5, "ground": 6},
    **{"parking": 9, "rail track": 10, "guard rail": 14, "bridge": 15, "tunnel": 16, "polegroup": 18},
    **{"caravan": 29, "trailer": 30, "license plate": -1},  # -1: it is not drawn
}
CLASSES = Classes.of(CITYSCAPES, colors=COLORS, is_thing=[name in THINGS for name in CITYSCAPES])


@dataclass(frozen=True, slots=True)
class _Polygon:
    """One entry of "objects" in a file of polygons: corners are [x, y]; what is deleted is not drawn."""

    label: str
    polygon: list[tuple[float, float]]
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class _Polygons:
    """A file of polygons."""

    imgHeight: int
    imgWidth: int
    objects: list[_Polygon]


POLYGONS = TypeAdapter(_Polygons)


@dataclass(frozen=True, eq=False)
class Labels:
    """Class of each label id, int32 (65536,), as in `Meaning`, and the label ids by name, -1 for what is not drawn."""

    classes: Classes
    class_of: np.ndarray
    id_of: dict[str, int]
    source: str

    @cached_property
    def meanings(self) -> dict[str, Meaning]:
        """What the numbers in a file of each kind mean, as far as classes go."""
        values, count = np.arange(MAX_VALUE + 1), len(self.classes)
        of_objects = self.class_of[np.where(values < PER_LABEL, values, values // PER_LABEL)]
        of_train_ids = np.full(MAX_VALUE + 1, UNKNOWN, np.int32)
        of_train_ids[:count] = np.arange(count)
        of_train_ids[VOID_8_BIT if count <= VOID_8_BIT else VOID_16_BIT] = VOID
        tables = zip(KINDS[:3], (of_objects, self.class_of, of_train_ids), strict=True)
        return {kind: Meaning(self.classes, class_of, source=self.source) for kind, class_of in tables}


@dataclass(frozen=True)
class CityscapesFiles:
    """The files of one sample: the image, if there is any in the set, and the truth of one of KINDS."""

    image: Path | None
    truth: Path
    kind: str


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key."""

    files: dict[str, CityscapesFiles]
    labels: Labels
    has_images: bool

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_image)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_image)

    def _sample(self, key: str, picture: Callable[[Path], np.ndarray]) -> Sample:
        files = self.files[key]
        if files.image is None and self.has_images:
            raise FormatError(f"{files.truth} has no image in {IMAGE_FOLDER}; add it, or remove this file")
        image = None if files.image is None else picture(files.image)
        class_map, numbers = _maps(files, self.labels, None if image is None else image.shape[1:])
        image = np.zeros((0, *class_map.shape), np.uint8) if image is None else image
        class_map = fit_to_image(class_map, files.truth, image, files.image)
        if numbers is not None:
            numbers = fit_to_image(numbers, files.truth, image, files.image)
        return Sample.of(key, image, to_segmentation(class_map, numbers, self.labels.classes))


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with gtFine or gtCoarse."""
    return any(Path(path, name).is_dir() for name in TRUTH_FOLDERS)


def read(path: Path | str) -> Dataset:
    """The samples of a folder, by split, city and name.

    A split that has no truth at all, or no image while others have, is left out, with a warning.

    Raises:
        FormatError: the folder is not as above, or an image has no truth while others of its split do.
    """
    root = Path(path)
    if not matches(root):
        there = found(root) if root.is_dir() else "it is no folder"
        raise FormatError(f"{root} has no folder gtFine or gtCoarse ({there}); give the folder that holds gtFine/")
    truths, images = _truths(root), _images(root)
    names = keys_of_parts(root, images, {name: path for name, (path, _) in truths.items()}, _key)
    files = {key: CityscapesFiles(images.get(name), *truths[name]) for key, name in names.items()}
    labels = _labels(written_meaning(root))
    image_files = {key: entry.image for key, entry in files.items() if entry.image is not None}
    return Dataset(str(root), labels.classes, tuple(files), Reader(files, labels, bool(images)), image_files)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as the docstring of this module says.

    Raises:
        OutputError: as `mask_folder.write`; or a sample is a volume, a class has more than 1000 objects in an image, or there
            are more than 64 classes of objects or 998 in all.
    """
    root = Path(path)
    with Journal(root, "cityscapes", samples) as journal:
        for sample in journal.samples():
            truth = truth_2d(sample, "cityscapes")
            class_map, numbers = to_maps(truth)
            ids = _ids(truth.classes)
            id_map = np.array([max(ids) + 1, 0, *ids])[class_map - NOTHING]  # nothing, void, classes
            place, name = _place(sample.key)
            stem = str(root / TRUTH_FOLDERS[0] / place / f"{name}_{TRUTH_FOLDERS[0]}_")
            write_values(Path(stem + KINDS[0]), _instance_ids(id_map, numbers, sample.key, truth.classes))
            write_values(Path(stem + KINDS[1]), id_map.astype(np.uint8 if max(ids) < VOID_8_BIT else np.uint16))
            is_narrow = len(ids) <= VOID_8_BIT
            train_ids = np.maximum(class_map, VOID).astype(np.uint8 if is_narrow else np.uint16)  # VOID, -1, wraps
            write_values(Path(stem + KINDS[2]), train_ids)
            journal.write_image(sample, root / IMAGE_FOLDER / place / (name + IMAGE_ENDING))
            journal.add(sample, {"has_nothing": bool((class_map == NOTHING).any())})
        ids = _ids(journal.classes)
        has_nothing = any(record["has_nothing"] for record in journal.records())
        if journal.classes != CLASSES or has_nothing:
            write_classes(
                root / CLASSES_FILE,
                journal.classes,
                values=ids,
                ignore_index=0,
                nothing_index=max(ids) + 1 if has_nothing else None,
            )


def _maps(files: CityscapesFiles, labels: Labels, shape: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Class map and object numbers (H, W) of a file of truth; `shape` is that of the image, where it is there."""
    if files.kind == KINDS[3]:
        return _draw(files.truth, labels, shape)
    values = read_numbers(files.truth)
    class_map = labels.meanings[files.kind].class_map(values, files.truth)
    if files.kind != KINDS[0]:
        return class_map, None
    is_object = (values >= PER_LABEL) & (class_map >= 0)
    return class_map, np.where(is_object, values.astype(np.int32) % PER_LABEL + 1, 0)


def _draw(path: Path, labels: Labels, shape: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """Class map and object numbers (H, W) of a file of polygons."""
    try:
        content = parse(POLYGONS, path.read_bytes(), str(path))
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); check that it is a readable file") from error
    height, width = content.imgHeight, content.imgWidth
    if min(height, width) < 1 or height * width > MAX_DRAWN or shape is not None and {height, width} != {*shape}:
        raise FormatError(
            f"{path}: the image is {height} x {width} pixels (rows x columns); needed are "
            f"{f'1 to {MAX_DRAWN:,}' if shape is None else f'{shape[0]} x {shape[1]} as in the image file'}: correct the file"
        )
    class_map = np.full((height, width), VOID if labels.class_of[0] == UNKNOWN else labels.class_of[0], np.int32)
    numbers = np.zeros((height, width), np.int32)
    counts: Counter[str] = Counter()
    for index, entry in enumerate(content.objects):
        name = entry.label
        is_group = name not in labels.id_of and name.endswith("group")
        name = name.removesuffix("group") if is_group else name
        label_id = labels.id_of.get(name)
        if label_id is None:
            raise FormatError(f"{path}: objects[{index}].label: {entry.label!r} is no label of {labels.source}; add it there")
        if entry.deleted or label_id < 0:
            continue
        class_id = int(labels.class_of[label_id])
        number = 0
        if class_id >= 0 and labels.classes.is_thing[class_id] and not is_group:
            counts[name] += 1
            number = counts[name]
        with naming(f"{path}: objects[{index}].polygon"):
            ring = np.array(entry.polygon, np.float64).reshape(-1, 2)
            mask = rle.decode(polygons.rasterise([ring], (height, width)), (height, width))
        class_map[mask], numbers[mask] = class_id, number
    return class_map, numbers


def _labels(meaning: Meaning | None) -> Labels:
    """The published labels, or those of a classes.json."""
    if meaning is not None:
        values = np.flatnonzero(meaning.class_of >= 0)
        value_of = dict(zip(meaning.class_of[values].tolist(), values.tolist(), strict=True))
        ids = {name: value_of.get(k, -1) for k, name in enumerate(meaning.classes.names)}  # -1: its number means void
        return Labels(meaning.classes, meaning.class_of, {"unlabeled": 0} | ids, meaning.source)
    class_of = np.full(MAX_VALUE + 1, UNKNOWN, np.int32)
    class_of[: 1 + max(LABEL_IDS)] = VOID
    class_of[[*LABEL_IDS]] = np.arange(len(LABEL_IDS))
    ids = OTHER_LABELS | dict(zip(CITYSCAPES, LABEL_IDS, strict=True))
    return Labels(CLASSES, class_of, ids, "Cityscapes' labels (for other classes write classes.json)")


@lru_cache(maxsize=1)
def _ids(classes: Classes) -> tuple[int, ...]:
    """The label id that each class is written with."""
    if classes == CLASSES:
        return LABEL_IDS
    if len(classes) > PER_LABEL - 2:
        raise OutputError(f"cityscapes holds {PER_LABEL - 2} classes, there are {len(classes)}; write to mask_folder")
    order = sorted(range(len(classes)), key=lambda k: (len(classes) > MAX_THING_ID and not classes.is_thing[k], k))
    ids = np.zeros(len(classes), np.int64)
    ids[order] = np.arange(1, len(classes) + 1)  # where there are many, things first, because their ids must be low
    return tuple(ids.tolist())


def _instance_ids(id_map: np.ndarray, numbers: np.ndarray, key: str, classes: Classes) -> np.ndarray:
    """The numbers of instanceIds, uint16 (H, W)."""
    is_object = numbers > 0
    if not is_object.any():
        return id_map.astype(np.uint16)
    ids = np.unique(id_map[is_object])
    if ids.max() > MAX_THING_ID:
        raise OutputError(
            f"sample {key!r} has objects of more than {MAX_THING_ID} classes, and cityscapes numbers no more in 16 bits; "
            "write to mask_folder or coco_panoptic"
        )
    numbers = numbers.copy()
    for label_id in ids if numbers.max() > PER_LABEL else ():
        here = is_object & (id_map == label_id)
        values, index = np.unique(numbers[here], return_inverse=True)
        if len(values) > PER_LABEL:
            name = classes.names[_ids(classes).index(int(label_id))]
            raise OutputError(
                f"sample {key!r} has {len(values)} objects of class {name!r}, cityscapes holds {PER_LABEL}; "
                "write to mask_folder or coco_panoptic"
            )
        if values[-1] > PER_LABEL:
            numbers[here] = index + 1
    return np.where(is_object, id_map * PER_LABEL + numbers - 1, id_map).astype(np.uint16)


def _truths(root: Path) -> dict[str, tuple[Path, str]]:
    """The file that says most, and its kind, by the path such as "train/aachen/X"."""
    best: dict[str, tuple[int, Path, str]] = {}
    for level, folder in enumerate(TRUTH_FOLDERS):
        for path in sorted((root / folder).rglob("*")) if (root / folder).is_dir() else ():
            match = TRUTH_NAME.fullmatch(path.name)
            if match is None or path.name.startswith("."):
                continue
            name = composed(path.relative_to(root / folder).with_name(match[1]).as_posix())
            rank = level * len(KINDS) + KINDS.index(match[3])
            if name not in best or rank < best[name][0]:
                best[name] = rank, path, match[3]
    return {name: (path, kind) for name, (_, path, kind) in best.items()}


def _images(root: Path) -> dict[str, Path]:
    """The images by the path such as "train/aachen/X"."""
    return {stem.removesuffix(IMAGE_ENDING): path for stem, path in by_stem(root / IMAGE_FOLDER).items()}


def _key(name: str) -> str:
    """The key of a path such as "train/aachen/X"."""
    *folders, stem = name.split("/")
    if NO_SPLIT in folders[1:]:
        return safe_key(stem)
    return safe_key("/".join([*(folder for folder in folders if folder != NO_CITY), stem]))


def _place(key: str) -> tuple[str, str]:
    """The folder, such as "train/aachen", and the name that a key is written under; `_key` is the way back."""
    split, rest = split_of(key)
    city, _, name = rest.partition("__")
    if not split or rest.startswith(".") or name.startswith("."):  # files whose names begin so are hidden
        return f"{TRAIN_NAMES[0]}/{NO_SPLIT}", key
    if not name or not CITY.fullmatch(city) or city in (NO_SPLIT, NO_CITY):
        return f"{split}/{NO_CITY}", rest
    return f"{split}/{city}", name
