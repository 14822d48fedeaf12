"""What COCO's two formats have in common: where their JSON files lie, the parts they stand for, categories and images.

A JSON file belongs to the part of the data set (train, val, ...) that its name tells: `instances_train2017.json` to train. The
keys of its images then begin with "train__"; they do not where a single JSON is opened by its own path. Folders called like
masks (labels, annotations, ...) hold no images, unless `file_name` says so or the JSON lies there too.
"""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter

from segwright.codecs.json_stream import NO_INTEGER, JsonFile, open_json, top_keys
from segwright.core import Classes
from segwright.core.classes import distinct_colors
from segwright.core.errors import FormatError, SettingError
from segwright.formats.drawn_shapes import NO_IMAGE
from segwright.formats.image_index import TRAIN_NAMES, VAL_NAMES, ImageIndex, found, natural, safe_key
from segwright.formats.named_objects import check_size, images_by_key, unique_keys

log = logging.getLogger(__name__)

KEYS = {"images", "annotations", "categories"}
LOOKED_AT = 20  # JSON files of a folder at most; where there are more, they are one per image, of another format
NO_SUPERCATEGORY = (None, "", "none")
FOLDERS = {"images", "image", "."}  # leading parts of file names that say nothing

Name = Annotated[int, Field(ge=-(2**62), le=2**62)] | Annotated[str, Field(max_length=1000)]


@dataclass(slots=True)
class Picture:
    """An entry of `images`."""

    id: Name
    file_name: str
    height: int
    width: int


@dataclass(slots=True)
class _Category:
    """An entry of `categories`; `isthing` is there in panoptic files, and in ours."""

    id: int
    name: str
    isthing: bool = True
    supercategory: Any = None
    color: list[Annotated[int, Field(ge=0, le=255)]] | None = None


@dataclass(slots=True)
class _ImageId:
    image_id: Name


@dataclass(frozen=True, eq=False)
class Part:
    """One JSON file, its images by their keys, and which annotations belong to each of them.

    `prefix` begins the keys; the annotations of image i are `order[starts[i] : starts[i + 1]]`, and `bare[i]` more are
    without a mask; `unlisted` are of images that are not listed.
    """

    file: JsonFile
    split: str
    prefix: str
    pictures: list[Picture]
    order: np.ndarray
    starts: np.ndarray
    bare: np.ndarray
    unlisted: int

    def annotations_of(self, index: int) -> list[int]:
        """Positions of the annotations of an image, in the order of the file."""
        return [int(position) for position in self.order[self.starts[index] : self.starts[index + 1]]]

    def shape(self, index: int) -> tuple[int, int]:
        """The size (H, W) of an image, as the file says it."""
        picture = self.pictures[index]
        return check_size(picture.height, picture.width, f"{self.file.path}: images[{index}]")


PICTURES, CATEGORIES = TypeAdapter(list[Picture]), TypeAdapter(list[_Category])
IMAGE_ID, FIRST = TypeAdapter(_ImageId), TypeAdapter(dict[str, Any])


def is_panoptic(path: Path) -> bool | None:
    """Whether the annotations of a JSON file are panoptic or of single objects; None where it is no file of COCO's at all."""
    if not top_keys(path) >= KEYS:
        return None
    try:
        file = open_json(path)
        return file.count("annotations") > 0 and "segments_info" in file.entry("annotations", 0, FIRST)
    except FormatError:
        return False


@dataclass(frozen=True, eq=False)
class CocoFiles:
    """JSON files that are one data set: where the picture of each key is (part, place in it), the class of each category id,
    the image files that are there, and the count of annotations of other images, by the reason."""

    parts: list[Part]
    places: dict[str, tuple[int, int]]
    classes: Classes
    class_of: dict[int, int]
    images: dict[str, Path]
    left_out: dict[str, int]


def open_files(path: Path, is_kind: Callable[[Path], bool], what: str, *, filled: str) -> CocoFiles:
    """The JSON files of one kind at a path; annotations without the key `filled` are left out. `what` is for messages.

    Raises:
        FormatError: there is no such file, or one is not as its format demands.
    """
    files = _needed_files(path, is_kind, what)
    parts = [_read_part(file, prefix, filled=filled) for file, prefix in zip(files, prefixes(path, files), strict=True)]
    places = [(number, index) for number, part in enumerate(parts) for index in range(len(part.pictures))]
    keys = unique_keys((_key_of(parts[number].pictures[index], parts[number]) for number, index in places), path)
    placed = dict(zip(keys, places, strict=True))
    classes, class_of = _read_categories(parts)
    unlisted = sum(part.unlisted for part in parts)
    left_out = {NO_IMAGE: unlisted} if unlisted else {}
    return CocoFiles(parts, placed, classes, class_of, _find_images(_root_of(path), parts, placed), left_out)


def json_files(path: Path, is_kind: Callable[[Path], bool]) -> list[Path]:
    """The file itself, or the files of a kind in its folder annotations/, else in the folder; parts to train with first."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" and is_kind(path) else []
    for folder in (path / "annotations", path):
        files = [file for file in _jsons(folder) if is_kind(file)]
        chosen = [file for file in files if file.name.startswith(("instances", "panoptic"))] or files
        if chosen:
            names = TRAIN_NAMES + VAL_NAMES
            return sorted(chosen, key=lambda file: names.index(s) if (s := split_name(file)[0].lower()) in names else 0)
    return []


def _needed_files(path: Path, is_kind: Callable[[Path], bool], what: str) -> list[Path]:
    """`json_files`, of which there must be one.

    Raises:
        FormatError: there is none; the message tells what is wrong with the file that looks most like one.
    """
    files = json_files(path, is_kind)
    if files:
        return files
    likely = [path] if path.is_file() else [*_jsons(path / "annotations"), *_jsons(path)] if path.is_dir() else []
    for file in sorted(likely, key=lambda file: not file.name.startswith(("instances", "panoptic")))[:1]:
        keys = JsonFile(file).keys
        missing = ", ".join(sorted(KEYS - set(keys))) or "annotations of that kind"
        raise FormatError(f"{file} is no file of {what}: it lacks {missing}; give the annotations of whole images")
    if not path.is_dir():
        raise FormatError(f"{path} does not exist; check the spelling")
    raise FormatError(f"{path} holds no JSON file of {what} ({found(path)}); they lie in annotations/, or there")


def _jsons(folder: Path) -> list[Path]:
    try:
        files = [file for file in folder.iterdir() if file.suffix.lower() == ".json" and file.is_file()]
    except OSError:
        return []
    return sorted(files, key=lambda file: (not file.name.startswith(("instances", "panoptic")), natural(file.name)))[:LOOKED_AT]


def split_name(path: Path) -> tuple[str, str]:
    """The part of a data set that the name of a JSON file tells, and how it is written there: ("train", "train2017")."""
    for token in re.split(r"[_\-. ]", path.stem):
        name = token.rstrip("0123456789")
        if name.lower() in TRAIN_NAMES + VAL_NAMES:
            return name, token
    return "", ""


def prefixes(path: Path, files: Sequence[Path]) -> list[str]:
    """What the keys of each file's images begin with."""
    if path.is_file():
        return [""]
    splits = [split_name(file) for file in files]
    names = [split if [other for other, _ in splits].count(split) == 1 else token for split, token in splits]
    names = [name if names.count(name) == 1 else safe_key(file.stem) for name, file in zip(names, files, strict=True)]
    return [f"{name}__" if name else "" for name in names]


def _root_of(path: Path) -> Path:
    """The folder that the images lie below."""
    folder = path.absolute().parent if path.is_file() else path
    return folder.absolute().parent if folder.name == "annotations" else folder


def _read_part(path: Path, prefix: str, *, filled: str) -> Part:
    """The images of a JSON file and their annotations; those without anything under the key `filled` are left out.

    Raises:
        FormatError: the file is not as it should be, or no annotation has anything there.
    """
    file = open_json(path)
    pictures = file.value("images", PICTURES)
    index_of = {picture.id: index for index, picture in enumerate(pictures)}
    if len(index_of) < len(pictures):
        raise FormatError(f"{path}: two images have one id; give each its own")
    image_of = _image_of(file, index_of)
    has_mask = file.is_filled("annotations", filled)
    if len(has_mask) and not has_mask.any():
        raise FormatError(
            f"{path}: none of the {len(has_mask)} annotations has a {filled!r} (boxes alone?); masks are needed, export them"
        )
    is_listed = image_of >= 0
    if len(is_listed) and not is_listed.any():
        known, given = pictures[0].id if pictures else "none at all", file.entry("annotations", 0, IMAGE_ID).image_id
        raise FormatError(
            f"{path}: none of the {len(is_listed)} annotations is of an image that is listed there (image_id {given!r}, images "
            f"have ids such as {known!r}); give the annotations their images, or the images their ids"
        )
    if not is_listed.all():
        log.warning("%s: %d of %d annotations are of images not listed there", path, (~is_listed).sum(), len(image_of))
    kept = np.flatnonzero(has_mask & is_listed)
    order = kept[np.argsort(image_of[kept], kind="stable")]
    starts = np.searchsorted(image_of[order], np.arange(len(pictures) + 1))
    bare = np.bincount(image_of[~has_mask & is_listed], minlength=len(pictures))
    return Part(file, split_name(path)[1], prefix, pictures, order, starts, bare, int((~is_listed).sum()))


def _image_of(file: JsonFile, index_of: dict[Any, int]) -> np.ndarray:
    """The index of the image of each annotation, int64 (A,), -1 where there is no such image."""
    given = file.integers("annotations", "image_id")
    unclear = np.flatnonzero(given == NO_INTEGER)  # text, or nothing
    known = {name: index for name, index in index_of.items() if isinstance(name, int)}
    ids = np.array(sorted(known), np.int64)
    result = np.full(len(given), -1, np.int64)
    if len(ids):
        place = np.minimum(np.searchsorted(ids, given), len(ids) - 1)
        indices = np.array([known[name] for name in ids.tolist()], np.int64)
        result = np.where(ids[place] == given, indices[place], -1)
    by_text = {str(name).removesuffix(".0"): index for name, index in index_of.items()}
    for position, entry in zip(unclear, file.entries("annotations", IMAGE_ID, unclear.tolist()), strict=True):
        result[position] = index_of.get(entry.image_id, by_text.get(str(entry.image_id).removesuffix(".0"), -1))
    if (result < 0).any() and len(known) < len(index_of):  # images whose ids are texts, annotations that have numbers
        result = np.where(result < 0, [by_text.get(str(number), -1) for number in given], result)
    return result


def _key_of(picture: Picture, part: Part) -> str:
    """The key of an image: its path without suffix, without leading folders that name its part or images as such."""
    *folders, name = PurePosixPath(picture.file_name.replace("\\", "/").rpartition("://")[2]).parts or ("",)
    names = FOLDERS | {part.split.lower(), part.split.rstrip("0123456789").lower()}
    while folders and (folders[0].lower() in names or folders[0] in ("/", "..")):
        folders.pop(0)
    return part.prefix + safe_key("/".join([*folders, name.rpartition(".")[0] or name]))


def _find_images(root: Path, parts: Iterable[Part], keys: dict[str, tuple[int, int]]) -> dict[str, Path]:
    """The image file of each key, of those that are there.

    Raises:
        FormatError: several files fit a name equally well, or one the names of two images.
    """
    parts = list(parts)
    index = ImageIndex(root, without=[part.file.path.with_suffix("") for part in parts])  # panoptic PNGs have names of images
    files = images_by_key(
        keys, [_find(index, parts[number].pictures[place].file_name, parts[number]) for number, place in keys.values()]
    )
    if not files:
        number, place = next(iter(keys.values()))
        name = parts[number].pictures[place].file_name
        log.warning("%s: none of the %d images is there, such as %r; its samples have masks only", root, len(keys), name)
    elif len(files) < len(keys):
        log.warning("%s: %d of the %d images are not there", root, len(keys) - len(files), len(keys))
    return files


def _find(index: ImageIndex, name: str, part: Part) -> Path | None:
    """The image of a name, where two parts have images of one name that of the right part; at last, beside the JSON.

    Raises:
        FormatError: several fit equally well.
    """
    options = list(dict.fromkeys(f"images/{folder}".rstrip("/") for folder in (part.split, part.split.rstrip("0123456789"))))
    for folder in options:
        try:
            file = index.find(f"{folder}/{name}")
        except FormatError:
            if folder == options[-1]:
                raise
        else:
            return file or index.find(f"{part.file.path.parent.name}/{name}")
    return None


def _read_categories(parts: Sequence[Part]) -> tuple[Classes, dict[int, int]]:
    """The classes in the order of the categories' ids, and the class of each id. The files of several parts must agree.

    Raises:
        FormatError: there is none, or two differ under one id.
    """
    given: dict[int, _Category] = {}
    used: set[int] = set()
    for part in parts:
        used.update(np.unique(part.file.integers("annotations", "category_id")).tolist())
        for category in part.file.value("categories", CATEGORIES):
            if given.setdefault(category.id, category).name != category.name:
                raise FormatError(
                    f"{part.file.path}: the category {category.id} is {category.name!r}, and {given[category.id].name!r} "
                    "elsewhere; give each its own id, the same one in all files"
                )
    ids = sorted(given)
    root = _root(given)
    if root is not None and not used & {root.id, NO_INTEGER}:
        log.warning("%s: %r groups all categories, and no object is of it: it is no class", parts[0].file.path, root.name)
        ids.remove(root.id)
    names, seen = [], set()
    for number in ids:
        name = given[number].name
        if name in seen:
            log.warning("%s: two categories are called %r; one becomes '%s (%d)'", parts[0].file.path, name, name, number)
        names.append(f"{name} ({number})" if name in seen else name)
        seen.add(names[-1])
    colors = distinct_colors(len(ids))
    palette = [
        tuple(color) if (color := given[number].color) and len(color) == 3 else colors[index]
        for index, number in enumerate(ids)
    ]
    try:
        classes = Classes.of(names, colors=palette, is_thing=[given[number].isthing for number in ids])
    except SettingError as error:
        raise FormatError(f"{parts[0].file.path}: categories: {error}") from error
    return classes, {number: index for index, number in enumerate(ids)}


def _root(categories: dict[int, _Category]) -> _Category | None:
    """The category that all others belong to, as Roboflow writes one for the whole data set."""
    above = {category.supercategory for category in categories.values() if category.supercategory not in NO_SUPERCATEGORY}
    roots = [category for category in categories.values() if category.supercategory in NO_SUPERCATEGORY]
    return roots[0] if len(roots) == 1 and above == {roots[0].name} else None


def write_categories(classes: Classes, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The `categories` of a file with these ids, with `isthing` and `color` as in panoptic files."""
    return [
        {"id": number, "name": name, "supercategory": name, "isthing": int(is_thing), "color": list(color)}
        for number, name, color, is_thing in zip(ids, classes.names, classes.colors, classes.is_thing, strict=True)
    ]


def info(description: str) -> dict[str, Any]:
    """The keys that other programs expect at the beginning of a file."""
    return {"info": {"description": description}, "licenses": []}
