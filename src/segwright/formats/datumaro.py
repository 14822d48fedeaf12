"""Datumaro: annotations/SUBSET.json with label categories and items, images in images/SUBSET/.

    ROOT/annotations/train.json     one file per subset; "default" where there are none
    ROOT/images/train/NAME.jpg      also images/NAME.jpg, or anywhere below

    {"categories": {"label": {"labels": [{"name": "car", "parent": "", "attributes": []}, ...]},
                    "mask": {"colormap": [{"label_id": 0, "r": 128, "g": 64, "b": 128}, ...]}},
     "items": [{"id": "NAME", "image": {"path": "NAME.jpg", "size": [400, 600]}, "annotations": [
        {"type": "polygon", "label_id": 0, "points": [x, y, x, y, ...], "group": 0, "z_order": 0, "attributes": {}},
        {"type": "mask", "label_id": 0, "rle": {"counts": "...", "size": [400, 600]}, ...}]}, ...]}

Polygons, masks and ellipses of one label and one `group` other than 0 are one object; `object_id` is its number; what has a
higher `z_order` comes later; `is_crowd` among the attributes marks objects that nobody told apart. A box is an object's own
where it has the label and the group of others, and else a box without a mask. That, points, captions and others are left out
and counted (drawn_shapes.py). The key of a sample is its `id` after its subset, train__NAME.

Written are masks, so that each pixel comes back; our own are `is_thing` of a label, `score` among the attributes, and
`void_rle` in the `attr` of an item, the pixels that nobody knows. Lost are objects without a pixel and the size of pixels.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter

from segwright.codecs import rle
from segwright.codecs.json_stream import JsonFile, top_keys, write_json
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.classes import distinct_colors
from segwright.core.errors import FormatError, SettingError, naming
from segwright.formats.drawn_shapes import (
    ABOUT_IMAGE,
    BOX_ALONE,
    NO_PIXEL,
    TAGS,
    UNLABELLED,
    Drawing,
    is_polygon,
    of_kind,
)
from segwright.formats.image_index import TRAIN_NAMES, VAL_NAMES, ImageIndex, found, natural, split_of
from segwright.formats.named_objects import (
    Region,
    check_size,
    find_image,
    images_by_key,
    read_picture,
    regions_of,
    segmentation,
    truth_2d,
    unique_keys,
    unread_picture,
)
from segwright.formats.resume_journal import Journal

log = logging.getLogger(__name__)

LOSES = "objects without a pixel and the size of pixels are not kept"
BOXES = ("bbox", "rotated_bbox")
DEFAULT = "default"  # the subset of items that belong to none
SUBSET_ORDER = (DEFAULT, *TRAIN_NAMES, *VAL_NAMES)

Count = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(slots=True)
class _Label:
    name: str
    is_thing: bool = True


@dataclass(slots=True)
class _Labels:
    labels: list[_Label]


@dataclass(slots=True)
class _Color:
    label_id: int
    r: int
    g: int
    b: int


@dataclass(slots=True)
class _Colors:
    colormap: list[_Color]


@dataclass(slots=True)
class _Categories:
    label: _Labels
    mask: _Colors | None = None


@dataclass(slots=True)
class _Rle:
    counts: str | list[Count]
    size: Annotated[list[int], Field(min_length=2, max_length=2)]


@dataclass(slots=True)
class _Annotation:
    type: str
    label_id: int | None = None
    points: list[FiniteFloat] | None = None
    rle: _Rle | None = None
    z_order: int | None = 0
    group: int | None = 0
    object_id: int | None = None
    attributes: dict[str, Any] | None = None


@dataclass(slots=True)
class _Image:
    path: str | None = None
    size: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None


@dataclass(slots=True)
class _Attributes:
    void_rle: _Rle | None = None


@dataclass(slots=True)
class _Item:
    id: str | int
    annotations: list[_Annotation]
    image: _Image | None = None
    attr: _Attributes | None = None


@dataclass(slots=True)
class _ItemHead:
    id: str | int
    image: _Image | None = None


CATEGORIES, ITEM, HEAD = TypeAdapter(_Categories), TypeAdapter(_Item), TypeAdapter(_ItemHead)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key: `entries` are the file of its subset and its position there."""

    files: tuple[JsonFile, ...]
    entries: dict[str, tuple[int, int]]
    images: dict[str, Path]
    classes: Classes

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_picture)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_picture)

    def _sample(self, key: str, picture: Callable[..., np.ndarray]) -> Sample:
        number, position = self.entries[key]
        file = self.files[number]
        place = f"{file.path}: items[{position}]"
        item = file.entry("items", position, ITEM)
        size = item.image.size if item.image else None
        shape = check_size(size[0], size[1], place) if size else None
        image = picture(self.images.get(key), shape, place, name=_name(item), is_needed=bool(self.images))
        drawing = Drawing((image.shape[1], image.shape[2]))
        given = item.attr.void_rle if item.attr else None
        void = _counts(given, drawing.shape, f"{place}.attr.void_rle") if given else None
        return drawing.sample(key, image, self._truth(item.annotations, void, drawing, place))

    def _truth(self, annotations: list[_Annotation], void: np.ndarray | None, drawing: Drawing, place: str) -> Segmentation:
        shape = drawing.shape
        objects: dict[tuple[int, int, int], tuple[_Annotation, list[np.ndarray]]] = {}
        boxes: list[tuple[int, int, int]] = []
        order = sorted(range(len(annotations)), key=lambda number: annotations[number].z_order or 0)
        for number in order:
            one = annotations[number]
            if one.label_id is None:
                drawing.leave_out(ABOUT_IMAGE if one.type in TAGS else UNLABELLED)
                continue
            if not 0 <= one.label_id < len(self.classes):
                where = f"{place}.annotations[{number}]"
                raise FormatError(f"{where}.label_id is {one.label_id}, there are {len(self.classes)} labels; correct it")
            name = (one.label_id, 1, one.group) if one.group else (one.label_id, 0, number)
            if one.type in BOXES:
                boxes.append(name)
            elif (counts := _draw(one, drawing, f"{place}.annotations[{number}]")) is not None:
                objects.setdefault(name, (one, []))[1].append(counts)
        for name in boxes:
            if name not in objects:
                drawing.leave_out(BOX_ALONE)
        regions = [
            Region(
                self.classes.names[label],
                parts[0] if len(parts) == 1 else rle.union(parts, shape),
                *_number_and_score(first),
            )
            for (label, _, _), (first, parts) in objects.items()
        ]
        return segmentation(regions, shape, self.classes, place, void=void)


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with annotations/*.json of categories and items."""
    return any({"categories", "items"} <= top_keys(file) for file in _subset_files(Path(path)))


def read(path: Path | str) -> Dataset:
    """The samples of a folder, subset by subset in the order of the items; each is read when it is asked for.

    Raises:
        FormatError: there is no such file, one is not as it should be, two have other labels, or two items have one key.
    """
    root = Path(path)
    paths = _subset_files(root)
    if not paths:
        there = found(root) if root.is_dir() else "it is no folder"
        raise FormatError(f"{root} has no annotations/*.json ({there}); export with the format datumaro")
    files = tuple(map(JsonFile, paths))
    found_classes = [_classes(file) for file in files]
    if any(classes != found_classes[0] for classes in found_classes):
        raise FormatError(f"{root}: its subsets have other labels or colours than {paths[0].name}; export them together")
    names, entries, images = [], [], []
    index = ImageIndex(root)
    for number, file in enumerate(files):
        subset = file.path.stem
        for position, item in enumerate(file.entries("items", HEAD)):
            names.append(str(item.id) if subset == DEFAULT else f"{subset}/{item.id}")
            entries.append((number, position))
            image = find_image(index, f"images/{subset}", _name(item)) if _name(item) else None
            images.append(image)
    if not names:
        raise FormatError(f"{root} holds no item; export the data set again")
    keys = unique_keys(names, root)
    image_of = images_by_key(keys, images)
    if not image_of:
        log.warning("%s: no image lies beside the annotations, so that the samples have none", root)
    reader = Reader(files, dict(zip(keys, entries, strict=True)), image_of, found_classes[0])
    return Dataset(str(root), found_classes[0], tuple(keys), reader, image_of)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as annotations/ and images/, the key train__a as the item a of the subset train.

    Raises:
        OutputError: the place is not writable or already holds something, there is no sample, or one has no truth, is a
            volume, or has an unsafe key or other classes than the first.
    """
    root = Path(path)
    with Journal(root, "datumaro", samples) as journal:
        for sample in journal.samples():
            truth = truth_2d(sample, "datumaro")
            part, name = split_of(sample.key)
            if name.startswith("."):
                part, name = "", sample.key
            image = journal.write_image(sample, root / "images" / (part or DEFAULT) / name)
            item: dict[str, Any] = {
                "id": name,
                "annotations": [
                    _annotation(number, region, truth.classes, truth.shape)
                    for number, region in enumerate(regions_of(sample, "datumaro"))
                    if rle.area(region.counts)
                ],
                "image": {"path": image.name if image else f"{name}.png", "size": list(truth.shape)},
            }
            void = rle.of_void(truth.planes)
            if rle.area(void):
                item["attr"] = {"void_rle": {"counts": rle.to_text(void), "size": list(truth.shape)}}
            journal.add(sample, {"subset": part or DEFAULT, "item": item})
        for subset in dict.fromkeys(record["subset"] for record in journal.records()):
            content: dict[str, Any] = {
                "dm_format_version": "1.0",
                "media_type": 2,  # images
                "infos": {},
                "categories": _categories(journal.classes),
                "items": (record["item"] for record in journal.records() if record["subset"] == subset),
            }
            write_json(root / "annotations" / f"{subset}.json", content)


def _subset_files(root: Path) -> list[Path]:
    files = [file for file in (root / "annotations").glob("*.json") if not file.name.startswith(".") and file.is_file()]

    def rank(file: Path) -> tuple[int, Any]:
        known = file.stem.lower() in SUBSET_ORDER
        return SUBSET_ORDER.index(file.stem.lower()) if known else len(SUBSET_ORDER), natural(file.stem)

    return sorted(files, key=rank)


def _classes(file: JsonFile) -> Classes:
    categories = file.value("categories", CATEGORIES)
    labels = categories.label.labels
    colors = dict(enumerate(distinct_colors(len(labels))))
    colors |= {color.label_id: (color.r, color.g, color.b) for color in (categories.mask.colormap if categories.mask else [])}
    try:
        return Classes.of(
            [label.name for label in labels],
            colors=[colors[number] for number in range(len(labels))],
            is_thing=[label.is_thing for label in labels],
        )
    except SettingError as error:
        raise FormatError(f"{file.path}: categories: {error}") from error


def _categories(classes: Classes) -> dict[str, Any]:
    things = zip(classes.names, classes.is_thing, strict=True)
    return {
        "label": {
            "labels": [{"name": name, "parent": "", "attributes": [], "is_thing": is_thing} for name, is_thing in things],
            "attributes": ["is_crowd", "score"],
        },
        "mask": {"colormap": [{"label_id": k, "r": r, "g": g, "b": b} for k, (r, g, b) in enumerate(classes.colors)]},
    }


def _name(item: _Item | _ItemHead) -> str:
    """What an item calls its image."""
    return (item.image.path if item.image else None) or f"{item.id}.jpg"  # .jpg: Datumaro's own rule


def _counts(given: _Rle, shape: tuple[int, int], place: str) -> np.ndarray:
    with naming(place):
        counts = rle.from_text(given.counts) if isinstance(given.counts, str) else np.array(given.counts, np.uint32)
    if tuple(given.size) != shape:
        raise FormatError(f"{place}: the mask is {given.size}, the image {list(shape)} (rows, columns); export it again")
    rle.check(counts, shape, place)
    return counts


def _draw(one: _Annotation, drawing: Drawing, place: str) -> np.ndarray | None:
    """The run lengths (R,) of an annotation, None where it has no pixel."""
    if one.type == "mask" and one.rle is not None:
        return drawing.runs(_counts(one.rle, drawing.shape, place))
    numbers = one.points or []
    if one.type in ("polygon", "ellipse") and (len(numbers) % 2 or one.type == "ellipse" and len(numbers) != 4):
        raise FormatError(f"{place}: {len(numbers)} numbers are no points of a {one.type}; export it again")
    if one.type == "ellipse":
        left, top, right, bottom = numbers
        center, radii = ((left + right) / 2, (top + bottom) / 2), (abs(right - left) / 2, abs(bottom - top) / 2)
        return drawing.ellipse(center, radii, place)
    if one.type == "polygon" or is_polygon(one.type, len(numbers) // 2):
        return drawing.polygon(np.array(numbers[: len(numbers) // 2 * 2]).reshape(-1, 2), place)
    drawing.leave_out(NO_PIXEL if one.type == "mask" else of_kind(one.type))
    return None


def _number_and_score(one: _Annotation) -> tuple[int | None, float]:
    attributes = one.attributes or {}
    score = attributes.get("score")
    score = float(score) if isinstance(score, int | float) and not isinstance(score, bool) else 1.0
    number = one.object_id if one.object_id is not None and one.object_id >= 0 else None  # -1: Datumaro's own sign for none
    return 0 if attributes.get("is_crowd") else number, score


def _annotation(number: int, region: Region, classes: Classes, shape: tuple[int, ...]) -> dict[str, Any]:
    label = classes.names.index(region.name)
    attributes: dict[str, Any] = {"is_crowd": classes.is_thing[label] and not region.instance_id}
    if region.score != 1:
        attributes["score"] = region.score
    return {
        "id": number + 1,
        "type": "mask",
        "attributes": attributes,
        "group": 0,
        **({"object_id": region.instance_id} if region.instance_id else {}),
        "label_id": label,
        "rle": {"counts": rle.to_text(region.counts), "size": list(shape)},
        "z_order": number,
    }
