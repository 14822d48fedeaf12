"""Label Studio: a JSON export, a list of tasks with brush strokes, polygons, rectangles and ellipses, and the images beside it.

    ROOT/tasks.json          any name that ends in .json; as exported with the type JSON (not JSON_MIN)
    ROOT/images/NAME.jpg     anywhere below; an uploaded file that the export calls 1a2b3c4d-NAME.jpg may be called NAME.jpg
    ROOT/classes.json        optional: the classes with their order and colours (named_objects.py says more); `write` adds it

    [{"data": {"image": "/data/upload/3/1a2b3c4d-NAME.jpg"},
      "annotations": [{"was_cancelled": false, "result": [
         {"type": "brushlabels", "original_width": 600, "original_height": 400,
          "value": {"format": "rle", "rle": [...], "brushlabels": ["car"]}}, ...]}]}, ...]

Of the annotations of a task the first that is not cancelled counts; tasks without one are left out. Polygons and others are
in percent of the image; a rectangle is turned around its left upper corner. Regions drawn on an image that was turned meanwhile
(`image_rotation`) are refused. Results without a label, and those that are no region, are left out and counted
(drawn_shapes.py). The key of a sample is the path of its image below images/, or its bare name where the export gives an
address.

Written are brush strokes, so that each pixel comes back; our own are `meta.instance_id` of a result, `meta.void_rle` of a task
(the pixels that nobody knows), and the `height` and `width` of the data. Lost are objects without a pixel and the size of
pixels.
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter

from segwright.codecs import brush_rle, rle
from segwright.codecs.image_file import SUFFIXES
from segwright.codecs.json_stream import JsonFile
from segwright.core import Classes, Dataset, Sample
from segwright.core.atomic_files import replacing
from segwright.core.errors import FormatError
from segwright.core.strict_json import json_text
from segwright.formats.drawn_shapes import LINES_AND_POINTS, UNLABELLED, Drawing, is_blank, of_kind
from segwright.formats.image_index import ImageIndex, found
from segwright.formats.label_encoding import CLASSES_FILE
from segwright.formats.named_objects import (
    Region,
    check_size,
    find_classes,
    find_image,
    images_by_key,
    place_of,
    read_picture,
    regions_of,
    segmentation,
    truth_2d,
    unique_keys,
    unread_picture,
    write_classes_file,
)
from segwright.formats.resume_journal import Journal

log = logging.getLogger(__name__)

LOSES = "objects without a pixel and the size of pixels are not kept"
HEAD = 1 << 16  # bytes of a file that are looked at, to recognise it
IS_EXPORT = re.compile(rb'^(?:\xef\xbb\xbf)?\s*\[\s*\{(?s:.*)"(?:annotations|completions)"\s*:\s*\[')
UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file

Point = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]
Names = list[str] | None


@dataclass(slots=True)
class _Labels:
    brushlabels: Names = None
    polygonlabels: Names = None
    rectanglelabels: Names = None
    ellipselabels: Names = None
    labels: Names = None

    def first(self) -> str | None:
        """The first label, None where there is none."""
        lists = (self.brushlabels, self.polygonlabels, self.rectanglelabels, self.ellipselabels, self.labels)
        return next((name for names in lists for name in (names or [])[:1] if not is_blank(name)), None)


@dataclass(slots=True)
class _Value(_Labels):
    rle: list[int] | None = None
    points: list[Point] | None = None
    closed: bool | None = True
    x: FiniteFloat = 0.0
    y: FiniteFloat = 0.0
    width: FiniteFloat | None = None
    height: FiniteFloat | None = None
    radiusX: FiniteFloat | None = None  # noqa: N815  (the names in the file)
    radiusY: FiniteFloat | None = None  # noqa: N815
    rotation: FiniteFloat = 0.0


@dataclass(slots=True)
class _Meta:
    instance_id: int | None = None


@dataclass(slots=True)
class _Result:
    id: str | int | None = None
    type: str = ""
    value: _Value | None = None
    original_width: int | None = None
    original_height: int | None = None
    image_rotation: FiniteFloat | None = None
    score: FiniteFloat | None = None
    meta: _Meta | None = None


@dataclass(slots=True)
class _Annotation:
    result: list[_Result]
    was_cancelled: bool = False
    skipped: bool = False


@dataclass(slots=True)
class _TaskMeta:
    void_rle: list[int] | None = None


@dataclass(slots=True)
class _Task:
    data: dict[str, Any]
    meta: _TaskMeta | None = None
    annotations: list[_Annotation] | None = None
    completions: list[_Annotation] | None = None  # the name in exports of old


@dataclass(slots=True)
class _LabelsOfResult:
    value: _Labels | None = None


@dataclass(slots=True)
class _LabelsOfAnnotation:
    result: list[_LabelsOfResult]
    was_cancelled: bool = False
    skipped: bool = False


@dataclass(slots=True)
class _LabelsOfTask:
    data: dict[str, Any]
    annotations: list[_LabelsOfAnnotation] | None = None
    completions: list[_LabelsOfAnnotation] | None = None


TASK, LABELS = TypeAdapter(_Task), TypeAdapter(_LabelsOfTask)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key: `entries` are the file and the position in it of each task."""

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
        place = f"{file.path}: [{position}]"
        task = file.entry("", position, TASK)
        annotation = _chosen(task.annotations or task.completions or [])
        results = annotation.result if annotation else []
        shape = _size_of(task, results, place)
        name = _image_name(task.data, place)
        image = picture(self.images.get(key), shape, place, name=name, is_needed=bool(self.images))
        drawing = Drawing((image.shape[1], image.shape[2]))
        regions = _regions(results, drawing, f"{place}.result")
        given = task.meta.void_rle if task.meta else None
        void = _counts(given, drawing.shape, f"{place}.meta.void_rle") if given else None
        return drawing.sample(key, image, segmentation(regions, drawing.shape, self.classes, place, void=void))


def _regions(results: list[_Result], drawing: Drawing, place: str) -> list[Region]:
    """The regions of an image; what is none is counted."""
    labels: dict[str | int, str] = {}
    for result in results:
        label = result.value.first() if result.value else None
        if result.id is not None and label is not None:
            labels.setdefault(result.id, label)
    regions, seen = [], set()
    for number, result in enumerate(results):
        if result.id is not None and result.id in seen:  # a region and its label may be two results with one id
            continue
        if result.id is not None and _has_shape(result.value):
            seen.add(result.id)
        name = (result.value.first() if result.value else None) or labels.get(result.id or "")
        counts = _draw(result, drawing, f"{place}[{number}]", has_label=name is not None)
        if counts is not None and name is not None:
            score = 1.0 if result.score is None else result.score
            regions.append(Region(name, counts, result.meta.instance_id if result.meta else None, score))
    return regions


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with a JSON file that is a list of tasks with annotations."""
    return any(_exports(Path(path)))


def read(path: Path | str) -> Dataset:
    """The samples of a folder in the order of the tasks; each is read when it is asked for.

    Raises:
        FormatError: there is no export, a task is not as it should be, two images would have one key, or classes.json is
            not as it should be.
    """
    root = Path(path)
    exports = sorted(_exports(root))
    if not exports:
        there = found(root) if root.is_dir() else "it is no folder"
        raise FormatError(f"{root} holds no JSON export of Label Studio ({there}); export with the type JSON")
    files = tuple(map(JsonFile, exports))
    names, entries, labels, left_out = [], [], set(), 0
    for number, file in enumerate(files):
        for position, task in enumerate(file.entries("", LABELS)):
            annotation = _chosen(task.annotations or task.completions or [])
            if annotation is None:
                left_out += 1
                continue
            names.append(_image_name(task.data, f"{file.path}: [{position}]"))
            entries.append((number, position))
            labels |= {label for result in annotation.result if result.value and (label := result.value.first()) is not None}
    if left_out:
        log.warning("%s: %d tasks have no finished annotation and are left out", root, left_out)
    if not names:
        raise FormatError(f"{root}: no task has a finished annotation; annotate some, and export again")
    keys = unique_keys((_bare(name) for name in names), root)
    index = ImageIndex(root)
    images = images_by_key(keys, (_image_of(index, name) for name in names))
    if not images:
        log.warning("%s: no image lies beside the annotations, so that the samples have none", root)
    classes = find_classes(root, labels)
    reader = Reader(files, dict(zip(keys, entries, strict=True)), images, classes)
    return Dataset(str(root), classes, tuple(keys), reader, images)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as tasks.json, images/ and classes.json; the image of the key train__a goes to images/train/a.

    Raises:
        OutputError: the place is not writable or already holds something, there is no sample, or one has no truth, is a
            volume, or has an unsafe key or other classes than the first.
    """
    root = Path(path)
    with Journal(root, "label_studio", samples) as journal:
        for sample in journal.samples():
            truth = truth_2d(sample, "label_studio")
            height, width = truth.shape
            place = f"images/{place_of(sample.key)}"
            image = journal.write_image(sample, root / place)
            name = image.relative_to(root).as_posix() if image else f"{place}.png"
            results = [
                _result(number, region, (height, width))
                for number, region in enumerate(regions_of(sample, "label_studio"), start=1)
                if rle.area(region.counts)
            ]
            void = rle.of_void(truth.planes)
            meta = {"void_rle": _packed(void, truth.shape)} if rle.area(void) else {}
            journal.add(sample, {"image": name, "height": height, "width": width, "result": results, "meta": meta})
        with replacing(root / "tasks.json") as file:
            for number, record in enumerate(journal.records(), start=1):
                data = {name: record[name] for name in ("image", "height", "width")}
                annotation = {"id": number, "was_cancelled": False, "ground_truth": True, "result": record["result"]}
                task = {"id": number, "data": data, "annotations": [annotation], "meta": record["meta"]}
                file.write((b",\n" if number > 1 else b"[\n") + json_text(task).encode())
            file.write(b"\n]\n")
        write_classes_file(root, journal.classes)


def _exports(root: Path) -> Iterator[Path]:
    """The exports in a folder."""
    for file in root.glob("*.json") if root.is_dir() else ():
        if file.name != CLASSES_FILE and not file.name.startswith(".") and file.is_file():
            try:
                with file.open("rb") as opened:
                    head = opened.read(HEAD)
            except OSError:
                continue
            if IS_EXPORT.match(head):
                yield file


def _chosen(annotations: list[Any]) -> Any:
    """The first annotation that is not cancelled, None where there is none."""
    return next((one for one in annotations if not one.was_cancelled and not one.skipped), None)


def _size_of(task: _Task, results: list[_Result], place: str) -> tuple[int, int] | None:
    sizes = {(one.original_height, one.original_width) for one in results if one.original_height and one.original_width}
    height, width = task.data.get("height"), task.data.get("width")
    if not sizes and isinstance(height, int) and isinstance(width, int):
        sizes = {(height, width)}
    if len(sizes) > 1:
        raise FormatError(f"{place}: the results are about images of different sizes, {sorted(sizes)[:2]}; correct them")
    return next((check_size(int(high or 0), int(wide or 0), place) for high, wide in sizes), None)


def _image_name(data: dict[str, Any], place: str) -> str:
    """What the data of a task call the image: "image", else what looks like the name of an image, else the first text."""
    texts = {name: value for name, value in data.items() if isinstance(value, str) and value}
    if "image" in texts:
        return texts["image"]
    for value in texts.values():
        if _path_of(value).lower().endswith(SUFFIXES):
            return value
    if not texts:
        raise FormatError(f"{place}.data names no image; export the tasks with their data")
    return next(iter(texts.values()))


def _path_of(name: str) -> str:
    """The path in an address such as https://host/a%20b.jpg?x=1 or /data/local-files/?d=a/b.jpg; other names as they are."""
    if "://" not in name and not name.startswith("/"):
        return name
    try:
        address = urlsplit(name)
    except ValueError:  # such as a host that is no address
        return name
    return parse_qs(address.query).get("d", [unquote(address.path)])[0]


def _bare(name: str) -> str:
    """The path below images/ without suffix; of an address the bare name."""
    parts = PurePosixPath(_path_of(name).replace("\\", "/")).parts
    if "://" in name or name.startswith("/"):
        parts = parts[-1:]
    parts = tuple(part for part in parts if part not in ("..", "/"))
    parts = parts[1:] if len(parts) > 1 and parts[0] == "images" else parts
    path = "/".join(parts)
    return path.rpartition(".")[0] if path.lower().endswith(SUFFIXES) else path


def _image_of(index: ImageIndex, name: str) -> Path | None:
    path = _path_of(name)
    image = find_image(index, ".", path)
    if image is None and UPLOADED.match(PurePosixPath(path).name):
        image = find_image(index, ".", UPLOADED.sub("", PurePosixPath(path).name))
    return image


def _counts(data: list[int], shape: tuple[int, int], place: str) -> np.ndarray:
    try:
        packed = np.frombuffer(bytes(data), np.uint8)
    except ValueError as error:
        raise FormatError(f"{place}: the run lengths are no bytes 0..255; export the annotations again") from error
    return rle.encode(brush_rle.decode_brush(packed, shape, place))


def _packed(counts: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    return brush_rle.encode_brush(rle.decode(counts, shape)).tolist()


def _has_shape(value: _Value | None) -> bool:
    return value is not None and any(given is not None for given in (value.rle, value.points, value.radiusX, value.width))


def _draw(result: _Result, drawing: Drawing, place: str, *, has_label: bool) -> np.ndarray | None:
    """The run lengths (R,) of a result, None where it is left out."""
    value, kind = result.value, result.type.removesuffix("labels") or result.type
    height, width = drawing.shape
    is_open = value is not None and value.closed is False
    if value is None or is_open or kind.lower() in LINES_AND_POINTS or not _has_shape(value):
        drawing.leave_out(of_kind("line" if is_open else kind))
        return None
    if not has_label:
        drawing.leave_out(UNLABELLED)
        return None
    if result.image_rotation:
        raise FormatError(
            f"{place} was drawn on the image turned by {result.image_rotation:g} degrees (image_rotation), and its place in "
            "the file is not certain; turn the image back in Label Studio, whose regions then turn too, and export again"
        )
    if value.rle is not None:
        return drawing.runs(_counts(value.rle, drawing.shape, place))
    if value.points is not None:
        return drawing.polygon([(x * width / 100, y * height / 100) for x, y in value.points], place)
    left, top = value.x * width / 100, value.y * height / 100
    if value.radiusX is not None:
        radii = (value.radiusX * width / 100, (value.radiusY or 0.0) * height / 100)
        return drawing.ellipse((left, top), radii, place, value.rotation)
    right, bottom = left + (value.width or 0.0) * width / 100, top + (value.height or 0.0) * height / 100
    return drawing.box((left, top, right, bottom), place, value.rotation, pivot_xy=(left, top))


def _result(number: int, region: Region, shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": f"region{number}",
        "type": "brushlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": shape[1],
        "original_height": shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": _packed(region.counts, shape), "brushlabels": [region.name]},
        "meta": {"instance_id": region.instance_id},
    } | ({} if region.score == 1 else {"score": region.score})
