"""coco: images and a JSON of objects, drawn as polygons or stored as run lengths.

    ROOT/annotations/instances_train2017.json     {"images": [...], "annotations": [...], "categories": [...]}
    ROOT/images/train/NAME.jpg                    images lie anywhere below ROOT; `file_name` tells which is which

The JSON may also lie in ROOT, or be given by its own path, and there may be several, one per part of the data set
(coco_files.py says how they are found and what the keys are). An annotation has a `category_id` and a `segmentation`: a list of
polygons, whose union it is; or run lengths, compressed or not. Classes are in the order of the categories' ids and are all
things, unless a category says `isthing: 0`. An annotation of a thing with `iscrowd: 1` is a region of objects that nobody told
apart (number 0), the others are numbered 1, 2, ... in each image. Polygons are drawn as by pycocotools, but that one of two
corners covers no pixel (there it is a box). Annotations of a box alone, of a category that is not listed or without a pixel are
left out and counted (drawn_shapes.py). A polygon may be one flat list, or one of corners, and ids may be texts.

Written are polygons for objects without holes, one per part, and compressed run lengths for the others and for crowds, so that
every pixel comes back, with `area` and `bbox`. Our own keys, which other programs pass over, are `instance_id`, `score`, and
for an image `void`, the run lengths of the pixels that nobody knows. Lost are objects without a pixel and the size of pixels.

Axes: (H, W) pixels, R run lengths.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter

from segwright.codecs import polygons, rle
from segwright.codecs.json_stream import write_json
from segwright.core import Classes, Dataset, Sample
from segwright.core.errors import FormatError, naming
from segwright.formats.coco_files import (
    Name,
    Part,
    info,
    is_panoptic,
    json_files,
    open_files,
    write_categories,
)
from segwright.formats.coco_ids import CocoIds
from segwright.formats.drawn_shapes import BOX_ALONE, Drawing, of_category
from segwright.formats.named_objects import Region, place_of, read_picture, regions_of, segmentation, truth_2d, unread_picture
from segwright.formats.resume_journal import Journal

LOSES = "objects without a pixel and the size of pixels are not kept"


@dataclass(slots=True)
class _Runs:
    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: str | list[int]  # their limits are checked all at once, which is faster


@dataclass(slots=True)
class _Annotation:
    category_id: int
    segmentation: Annotated[_Runs | list[list[FiniteFloat]] | list[FiniteFloat], Field(union_mode="left_to_right")]
    iscrowd: bool | None = False
    instance_id: int | None = None
    score: FiniteFloat | None = None


@dataclass(slots=True)
class _Void:
    void: _Runs | None = None


ANNOTATION, VOID_REGION = TypeAdapter(_Annotation), TypeAdapter(_Void)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key: its image, and its annotations from the JSON."""

    parts: list[Part]
    has_void: list[np.ndarray]
    places: dict[str, tuple[int, int]]
    images: dict[str, Path]
    classes: Classes
    class_of: dict[int, int]

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_picture)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_picture)

    def _sample(self, key: str, picture: Callable[..., np.ndarray]) -> Sample:
        number, index = self.places[key]
        part = self.parts[number]
        shape = part.shape(index)
        place, name = f"{part.file.path}: images[{index}]", part.pictures[index].file_name
        image = picture(self.images.get(key), shape, place, name=name, is_needed=bool(self.images))
        drawing = Drawing(shape)
        if part.bare[index]:
            drawing.leave_out(BOX_ALONE, int(part.bare[index]))
        regions = list(self._regions(part, part.annotations_of(index), drawing))
        void = part.file.entry("images", index, VOID_REGION).void if self.has_void[number][index] else None
        unknown = _counts(void, shape, f"{place}.void") if void else None
        return drawing.sample(key, image, segmentation(regions, shape, self.classes, place, void=unknown))

    def _regions(self, part: Part, positions: list[int], drawing: Drawing) -> Iterator[Region]:
        annotations = part.file.entries("annotations", ANNOTATION, positions)
        for position, annotation in zip(positions, annotations, strict=True):
            place = f"{part.file.path}: annotations[{position}]"
            class_id = self.class_of.get(annotation.category_id)
            if class_id is None:
                drawing.leave_out(of_category(annotation.category_id))
                continue
            number = 0 if annotation.iscrowd else annotation.instance_id
            counts = _draw(annotation.segmentation, drawing, f"{place}.segmentation")
            if counts is not None:
                yield Region(
                    self.classes.names[class_id], counts, number, 1.0 if annotation.score is None else annotation.score
                )


def matches(path: Path | str) -> bool:
    """Whether a path is a JSON file with images, annotations of objects and categories, or a folder with one."""
    return bool(json_files(Path(path), _is_kind))


def read(path: Path | str) -> Dataset:
    """The images of the JSON file or files, in their order; each is read when it is asked for.

    Raises:
        FormatError: the files are not as this module says. What is wrong with one annotation is found when its sample is read.
    """
    path = Path(path)
    opened = open_files(path, _is_kind, "COCO's objects", filled="segmentation")
    has_void = [part.file.is_filled("images", "void") for part in opened.parts]
    reader = Reader(opened.parts, has_void, opened.places, opened.images, opened.classes, opened.class_of)
    return Dataset(str(path), opened.classes, tuple(opened.places), reader, opened.images, opened.left_out)


def write(path: Path | str, samples: Dataset | Iterable[Sample], *, ids: CocoIds | None = None) -> None:
    """Write samples as images/ and annotations/instances.json, those of keys such as "train__a" into a part of their own.

    Images and categories are numbered from 1 on, or as in the file that `ids` are of.

    Raises:
        OutputError: the place is not writable or already holds samples, there is no sample, or one has no truth, is a volume,
            or has an unsafe key or other classes than the first.
    """
    root, ids = Path(path), ids or CocoIds()
    with Journal(root, "coco", samples) as journal:
        for sample in journal.samples():
            truth_2d(sample, "coco")
            place = place_of(sample.key)
            file = journal.write_image(sample, root / "images" / place)
            journal.add(
                sample, {"part": place.rpartition("/")[0], **_record(sample, file.name if file else f"{sample.key}.png")}
            )
        numbers = ids.of_classes(journal.classes)
        for part in dict.fromkeys(record["part"] for record in journal.records()):
            of_images = ids.of_images(record["key"] for record in journal.records() if record["part"] == part)
            content = {
                "images": _images(journal, of_images),
                "annotations": _annotations(journal, of_images, numbers),
                "categories": write_categories(journal.classes, numbers),
            }
            write_json(root / "annotations" / f"instances{'_' if part else ''}{part}.json", info("instances") | content)


def _is_kind(path: Path) -> bool:
    return is_panoptic(path) is False


def _draw(given: _Runs | list[list[float]] | list[float], drawing: Drawing, place: str) -> np.ndarray | None:
    """The run lengths (R,) of a segmentation, None where it has no pixel.

    Raises:
        FormatError: it does not fit the image, or is damaged.
    """
    if isinstance(given, _Runs):
        return drawing.runs(_counts(given, drawing.shape, place))
    rings = [ring for ring in given if isinstance(ring, list)]
    if len(rings) > 2 and all(len(ring) == 2 for ring in rings):  # or a list of its corners
        rings = [[value for corner in rings for value in corner]]
    rings = rings or [[value for value in given if not isinstance(value, list)]]  # one polygon may be a flat list
    odd = next((ring for ring in rings if len(ring) % 2), None)
    if odd is not None:
        raise FormatError(f"{place}: a polygon has {len(odd)} numbers, two per corner are needed; correct or remove it")
    return drawing.areas([[np.array(ring).reshape(-1, 2)] for ring in rings], place)


def _counts(given: _Runs, shape: tuple[int, int], place: str) -> np.ndarray:
    """The run lengths (R,) that a file holds.

    Raises:
        FormatError: they do not fit an image (H, W), or are damaged.
    """
    if given.size != [*shape]:
        raise FormatError(
            f"{place}: run lengths of {given.size[0]} x {given.size[1]} (rows x columns) for an image of {shape[0]} x "
            f"{shape[1]}; export them again at the size of the image"
        )
    with naming(place):
        counts = rle.from_text(given.counts) if isinstance(given.counts, str) else _numbers(given.counts)
    rle.check(counts, shape, place)
    return counts


def _numbers(counts: list[int]) -> np.ndarray:
    try:
        return np.array(counts, np.uint32)
    except OverflowError as error:
        raise FormatError(f"the run lengths reach from {min(counts)} to {max(counts)}; export them again") from error


def _record(sample: Sample, name: str) -> dict[str, Any]:
    """The entry of an image, and those of its annotations, without their ids."""
    truth = truth_2d(sample, "coco")
    height, width = truth.shape
    image: dict[str, Any] = {"file_name": name, "height": height, "width": width}
    void = rle.of_void(truth.planes)
    if rle.area(void):
        image["void"] = _text(void, truth.shape)
    annotations = []
    for region, class_id in zip(regions_of(sample, "coco"), truth.class_ids.tolist(), strict=True):
        if rle.area(region.counts):
            is_crowd = truth.classes.is_thing[class_id] and not region.instance_id
            annotations.append(_entry(region, class_id, truth.shape, is_crowd=is_crowd))
    return {"image": image, "annotations": annotations}


def _entry(region: Region, class_id: int, shape: tuple[int, ...], *, is_crowd: bool) -> dict[str, Any]:
    left, top, right, bottom = rle.box_xyxy(region.counts, shape)
    parts = [] if is_crowd else polygons.trace_counts(region.counts, shape)
    has_holes = any(len(rings) > 1 for rings in parts)
    entry: dict[str, Any] = {
        "category_id": class_id + 1,
        "segmentation": [r.ravel().tolist() for (r,) in parts] if parts and not has_holes else _text(region.counts, shape),
        "area": rle.area(region.counts),
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": int(is_crowd),
    }
    if region.instance_id:
        entry["instance_id"] = region.instance_id
    return entry if region.score == 1 else entry | {"score": region.score}


def _text(counts: np.ndarray, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"size": list(shape), "counts": rle.to_text(counts)}


def _images(journal: Journal, ids: Mapping[str, Name]) -> Iterator[dict[str, Any]]:
    """The entries of the images that have an id."""
    for record in journal.records():
        if record["key"] in ids:
            yield {"id": ids[record["key"]], **record["image"]}


def _annotations(journal: Journal, ids: Mapping[str, Name], category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The annotations of the images that have an id; the journal numbers classes from 1 on."""
    number = 0
    for record in journal.records():
        for annotation in record["annotations"] if record["key"] in ids else ():
            number += 1
            category_id = category_ids[annotation["category_id"] - 1]
            yield {"id": number, "image_id": ids[record["key"]], **annotation, "category_id": category_id}
