"""labelme: one NAME.json of drawn shapes per image, beside it or in a folder of labels.

    ROOT/NAME.jpg            the image; or images/NAME.jpg; or inside of the JSON (`imageData`, base64)
    ROOT/NAME.json           {"shapes": [...], "imagePath": "NAME.jpg", "imageHeight": 400, "imageWidth": 600, ...}
    ROOT/labels/NAME.json    as well; subfolders such as train/ and val/ become the first part of the keys
    ROOT/classes.json        optional: the classes with their order and colours (named_objects.py says more); `write` adds it

A shape has a `label`, the name of a class, and is a polygon, a rectangle, a circle (centre and a point of its edge) or a mask
(a base64 PNG, its left upper corner the first of the points). Shapes of one label and one `group_id` are one object. Where no
class is called so, "__ignore__" is void and "_background_" is nothing; both take away from the shapes before them. Other kinds
are read and counted as drawn_shapes.py says: those of X-AnyLabeling with three or more corners are polygons.

Written are polygons for objects without holes, one per part, and masks for the others, so that each pixel comes back; the keys
`instance_id` and `score` of a shape are ours. Lost are objects without a pixel and the size of pixels.
"""

import base64
import binascii
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field, FiniteFloat, TypeAdapter

from segwright.codecs import polygons, rle
from segwright.codecs.image_file import decode_image
from segwright.codecs.json_stream import JsonFile, top_keys, write_json
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
from segwright.formats.drawn_shapes import FEW_CORNERS, NO_PIXEL, UNLABELLED, Drawing, is_blank, is_polygon, of_kind
from segwright.formats.image_index import ImageIndex, found, natural
from segwright.formats.label_encoding import CLASSES_FILE
from segwright.formats.named_objects import (
    Region,
    check_size,
    find_classes,
    find_image,
    images_by_key,
    label_files,
    label_name,
    number_attributes,
    place_of,
    read_picture,
    regions_of,
    segmentation,
    truth_2d,
    unique_keys,
    unread_picture,
    without,
    write_classes_file,
)
from segwright.formats.resume_journal import Journal

log = logging.getLogger(__name__)

LOSES = "objects without a pixel and the size of pixels are not kept"
VOID_NAME, NOTHING_NAME = "__ignore__", "_background_"
OWN_KINDS = ("polygon", "rectangle", "circle", "mask")  # what else has three or more corners is a polygon
LOOKED_AT = 20  # JSON files at most, to recognise a folder; those of other programs may lie among them
VERSION = "5.4.1"  # of labelme, whose files these are like; from 5.3 on it knows masks

Point = Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]


@dataclass(slots=True)
class _Shape:
    label: str | None
    points: list[Point]
    shape_type: str | None = "polygon"
    group_id: int | str | None = None
    mask: str | None = None
    instance_id: int | None = None
    score: FiniteFloat = 1.0


@dataclass(slots=True)
class _Label:
    label: str | None
    shape_type: str | None = "polygon"
    points: list[Any] | None = None


SHAPES, LABELS = TypeAdapter(list[_Shape]), TypeAdapter(list[_Label])
TEXT, SIDE = TypeAdapter(str | None), TypeAdapter(int | None)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key, from its JSON and, where there is one, its image file."""

    files: dict[str, Path]
    images: dict[str, Path]
    classes: Classes

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_picture)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read; one within the JSON is read whole."""
        return self._sample(key, unread_picture)

    def _sample(self, key: str, picture: Callable[..., np.ndarray]) -> Sample:
        path = self.files[key]
        file = JsonFile(path)
        given = [file.value(name, SIDE) if name in file.keys else None for name in ("imageHeight", "imageWidth")]
        shape = None if given[0] is None or given[1] is None else check_size(given[0], given[1], str(path))
        data = file.value("imageData", TEXT) if _holds_image(file) and key not in self.images else None
        if data:
            image = decode_image(_bytes(data, f"{path}: imageData"), f"{path}: imageData")
            if image.ndim != 3 or shape is not None and image.shape[1:] != shape:
                raise FormatError(
                    f"{path}: imageData is {image.shape[1:]}, imageHeight and imageWidth say {shape}; correct them"
                )
        else:
            name = str(file.value("imagePath", TEXT)) if "imagePath" in file.keys else ""
            image = picture(self.images.get(key), shape, str(path), name=name, is_needed=bool(self.images))
        height, width = image.shape[1:]
        drawing = Drawing((height, width))
        return drawing.sample(key, image, self._truth(file.value("shapes", SHAPES), drawing, path))

    def _truth(self, shapes: list[_Shape], drawing: Drawing, path: Path) -> Segmentation:
        shape = drawing.shape
        objects: dict[Any, tuple[_Shape, list[np.ndarray]]] = {}  # the first shape of each, and the run lengths of all
        void = nothing = np.array([shape[0] * shape[1]], np.uint32)
        for number, drawn in enumerate(shapes):
            counts = _draw(drawn, drawing, f"{path}: shapes[{number}]")
            if counts is None:
                continue
            if is_blank(drawn.label):
                drawing.leave_out(UNLABELLED)
                continue
            if drawn.label in (VOID_NAME, NOTHING_NAME) and drawn.label not in self.classes.names:
                for _, parts in objects.values():
                    parts[:] = [without(part, counts, shape) for part in parts]
                void = rle.union([void, counts], shape) if drawn.label == VOID_NAME else without(void, counts, shape)
                continue
            group = number if drawn.group_id is None else f"group {drawn.group_id}"
            objects.setdefault((drawn.label, group, drawn.instance_id), (drawn, []))[1].append(counts)
        regions = [
            Region(first.label or "", parts[0] if len(parts) == 1 else rle.union(parts, shape), first.instance_id, first.score)
            for first, parts in objects.values()
        ]
        is_void = void is not nothing
        return segmentation(regions, shape, self.classes, str(path), void=void if is_void else None)


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with JSON files of shapes in it or below."""
    files = zip(range(LOOKED_AT), label_files(Path(path), ".json"), strict=False)
    return any({"shapes", "imagePath"} <= top_keys(file) for _, file in files)


def read(path: Path | str) -> Dataset:
    """The samples of a folder in name order; each is read when it is asked for.

    Raises:
        FormatError: there is no such file, one is no JSON, two would have one key, or classes.json is not as it should be.
    """
    root = Path(path)
    if not root.is_dir():
        raise FormatError(f"{root} is not a folder; give the folder that holds the images and their JSON files")
    files = [file for file in label_files(root, ".json") if "shapes" in top_keys(file) or not top_keys(file)]
    if not files:
        raise FormatError(f"{root} holds no JSON file of labelme ({found(root)}); labelme saves one beside each image")
    files.sort(key=lambda file: natural(label_name(root, file)))
    keys = unique_keys((label_name(root, file) for file in files), root)
    index = ImageIndex(root)
    images = images_by_key(keys, (_image_of(index, file) for file in files))
    if not images and not _holds_image(JsonFile(files[0])):
        log.warning("%s: no image lies beside the annotations, so that the samples have none", root)
    classes = find_classes(root, _names(files))
    return Dataset(str(root), classes, tuple(keys), Reader(dict(zip(keys, files, strict=True)), images, classes), images)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as images, one JSON beside each, and classes.json; the key train__a goes to train/a.

    Raises:
        OutputError: the place is not writable or already holds something, there is no sample, or one has no truth, is a
            volume, or has an unsafe key or other classes than the first.
    """
    root = Path(path)
    with Journal(root, "labelme", samples) as journal:
        for sample in journal.samples():
            truth = truth_2d(sample, "labelme")
            place = place_of(sample.key)
            if place.lower() == Path(CLASSES_FILE).stem:
                raise OutputError(f"sample {sample.key!r} would overwrite {CLASSES_FILE}; give it another key")
            image = journal.write_image(sample, root / place)
            void = rle.of_void(truth.planes)
            shapes = list(_shapes(Region(VOID_NAME, void), truth.shape, 0))
            if shapes and VOID_NAME in truth.classes.names:
                raise OutputError(f"sample {sample.key!r} has void, which labelme calls {VOID_NAME!r}; rename that class")
            for number, region in enumerate(regions_of(sample, "labelme"), start=1):
                shapes += [shape | number_attributes(region) for shape in _shapes(region, truth.shape, number)]
            content: dict[str, Any] = {
                "version": VERSION,
                "flags": {},
                "shapes": iter(shapes),
                "imagePath": image.name if image else f"{PurePosixPath(place).name}.png",
                "imageData": None,
                "imageHeight": truth.shape[0],
                "imageWidth": truth.shape[1],
            }
            write_json(root / f"{place}.json", content)
            journal.add(sample)
        write_classes_file(root, journal.classes)


def _holds_image(file: JsonFile) -> bool:
    return "imageData" in file.keys and bool(file.value("imageData", TEXT))


def _image_of(index: ImageIndex, file: Path) -> Path | None:
    content = JsonFile(file)
    name = content.value("imagePath", TEXT) if "imagePath" in content.keys else None
    return find_image(index, file.parent.relative_to(index.root).as_posix(), name) if name else None


def _names(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        for shape in JsonFile(file).value("shapes", LABELS):
            kind = shape.shape_type or "polygon"
            is_region = kind in OWN_KINDS or is_polygon(kind, len(shape.points or ()))
            if shape.label and not is_blank(shape.label) and shape.label not in (VOID_NAME, NOTHING_NAME) and is_region:
                yield shape.label


def _draw(drawn: _Shape, drawing: Drawing, place: str) -> np.ndarray | None:
    """The run lengths (R,) of a shape, None where it has no pixel."""
    points, kind = drawn.points, drawn.shape_type or "polygon"
    if kind == "mask" and points and drawn.mask:
        mask = decode_image(_bytes(drawn.mask, place), place)
        if mask.ndim != 3:
            raise FormatError(f"{place}: the mask is a volume; save a flat PNG")
        return drawing.mask(mask[0] > 0, _corner(points))
    if kind == "rectangle" and len(points) == 2:
        return drawing.box((*points[0], *points[1]), place)
    if kind == "circle" and len(points) == 2:
        radius = float(np.hypot(points[1][0] - points[0][0], points[1][1] - points[0][1]))
        return drawing.ellipse(points[0], (radius, radius), place)
    if kind not in ("mask", "circle") and is_polygon(kind, len(points)):  # also boxes by their four corners
        return drawing.polygon(points, place)
    drawing.leave_out(NO_PIXEL if kind == "mask" else FEW_CORNERS if kind in OWN_KINDS else of_kind(kind))
    return None


def _bytes(text: str, place: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=False)
    except (binascii.Error, ValueError) as error:
        raise FormatError(f"{place}: the base64 text is damaged ({error}); save the file again") from error


def _corner(points: list[Point]) -> tuple[int, int]:
    """The left upper corner (x, y) of the box of some points, in whole pixels."""
    far = float(2**31)  # as good as outside
    x, y = (round(min(max(min(values), -far), far)) for values in zip(*points, strict=True))
    return x, y


def _shapes(region: Region, shape: tuple[int, ...], group: int) -> Iterator[dict[str, Any]]:
    """The shapes of one object as labelme has them: polygons, or a mask where there are holes; none without a pixel."""
    parts = polygons.trace_counts(region.counts, shape)
    if any(len(rings) > 1 for rings in parts):
        mask, (left, top) = rle.crop(region.counts, shape)
        png = BytesIO()
        Image.fromarray(mask).save(png, format="PNG")
        right, bottom = left + mask.shape[1] - 1, top + mask.shape[0] - 1  # the last pixels, as labelme has it
        text = base64.b64encode(png.getvalue()).decode("ascii")
        yield _shape(region.name, "mask", [[left, top], [right, bottom]], None, text)
        return
    for (ring,) in parts:
        yield _shape(region.name, "polygon", ring.tolist(), group if len(parts) > 1 else None, None)


def _shape(label: str, kind: str, points: list[list[int]], group: int | None, mask: str | None) -> dict[str, Any]:
    return {
        "label": label,
        "points": [[float(x), float(y)] for x, y in points],
        "group_id": group,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": mask,
    }
