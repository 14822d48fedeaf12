"""CVAT for images 1.1: annotations.xml with polygons, masks, boxes and ellipses, its images in images/.

    ROOT/annotations.xml
    ROOT/images/NAME.jpg           also ROOT/images/SUBSET/NAME.jpg, or beside the XML
    ROOT/classes.json              ours, written where a class is stuff; label_encoding.py says what it holds

    <annotations>
      <meta> ... <label><name>car</name><color>#ff0000</color><type>any</type></label> ... </meta>
      <image id="0" name="NAME.jpg" subset="train" width="640" height="480">
        <polygon label="car" points="10.5,20;30,20;30,40" z_order="0" group_id="1"/>
        <mask label="car" rle="3, 5, 7" left="7" top="8" width="5" height="3" z_order="1" group_id="1"/>
      </image>
    </annotations>

The `rle` of a mask counts pixels row by row inside of its box, the first run being background. Shapes of one label and one
group_id are parts of one object, and that number is the object's; other objects get the next free numbers. Segments stand in
the order of z_order and then of the file, and those that are later cover those before; where they overlap they lie in different
planes. The classes are the labels, in their order, in their colours, and all things unless classes.json says otherwise. A
subset other than "default" comes before the key, as in "train__NAME".

Boxes and ellipses are read too, turned by their `rotation` in degrees clockwise around their centre. Points, lines, cuboids,
skeletons and tags are no regions: they are left out and counted (drawn_shapes.py). XML with a DOCTYPE is refused, since
entities can blow up to any size. Large files stay on disk: each <image> is parsed when it is asked for.

Written are polygons for objects of one piece without holes, else masks; z_order is the plane, group_id the object's number.
Void becomes nothing; a crowd becomes one object; scores, and segments without any pixel, are lost.

Axes: V corners of a polygon, (H, W) pixels, (h, w) those of a box, P planes, R runs.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numba import njit

from segwright.codecs import cvat_rle, polygons, rle
from segwright.codecs.image_file import SUFFIXES
from segwright.core import Classes, Dataset, Sample, Segmentation
from segwright.core.atomic_files import replacing
from segwright.core.classes import distinct_colors
from segwright.core.errors import FormatError, OutputError, SettingError, naming
from segwright.formats.cvat_xml import FILE, SHAPES, Entry, Index, Shape, shapes_of
from segwright.formats.drawn_shapes import UNLABELLED, Drawing, is_blank, is_polygon, of_kind
from segwright.formats.image_index import ImageIndex
from segwright.formats.label_encoding import CLASSES_FILE
from segwright.formats.named_objects import (
    Region,
    find_classes,
    place_of,
    read_picture,
    regions_of,
    segmentation,
    unique_keys,
    unread_picture,
    write_classes_file,
)
from segwright.formats.resume_journal import Journal

log = logging.getLogger(__name__)

LOSES = "void pixels become nothing, crowds become single objects, scores are not kept"
TYPES_WITH_MASK = ("", "any", "rectangle", *SHAPES)  # labels of other types are no classes, unless a shape has them
HEAD = 4096  # bytes in which the first element must begin
COLOR = re.compile(r"#[0-9a-fA-F]{6}")
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML 1.0 cannot hold
AS_NUMBERS = {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"}


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one <image> of the XML by its key, and the image file that belongs to it."""

    path: Path
    encoding: str
    entries: dict[str, Entry]
    files: dict[str, Path]
    classes: Classes

    def __call__(self, key: str) -> Sample:
        return self._sample(key, read_picture)

    def without_image(self, key: str) -> Sample:
        """The sample with an image of no channels, of whose file only the head is read."""
        return self._sample(key, unread_picture)

    def _sample(self, key: str, picture: Callable[..., np.ndarray]) -> Sample:
        entry = self.entries[key]
        place = f"{self.path}, line {entry.line}, image {entry.name!r}"
        image = picture(
            self.files.get(key), entry.shape, place, name=entry.name, is_needed=bool(self.files) and key not in self.files
        )
        drawing = Drawing(entry.shape)
        truth = _truth(shapes_of(self.path, self.encoding, entry), drawing, self.classes, place)
        return drawing.sample(key, image, truth)


def matches(path: Path | str) -> bool:
    """Whether a path is a folder with CVAT's annotations.xml, or such a file."""
    try:
        with _file(path).open("rb") as file:
            return b"<annotations" in file.read(HEAD)
    except (OSError, ValueError):
        return False


def read(path: Path | str) -> Dataset:
    """The samples of a CVAT export in the order of the XML; each is parsed when it is asked for.

    Raises:
        FormatError: the XML is not as the module's docstring says; mistakes inside of an <image> are found with its sample.
    """
    file = _file(path)
    index = Index(file)
    if not index.entries:
        raise FormatError(f"{file} holds no <image>; export the task again, as 'CVAT for images 1.1'")
    root, images = file.parent, ImageIndex(file.parent)
    keys = unique_keys((_key_name(entry) for entry in index.entries), file)
    entries = {key: index.entries[position] for key, position in keys.items()}
    files = {key: image for key, entry in entries.items() if (image := _image_file(images, entry)) is not None}
    if not files:
        log.warning("%s: none of its %d images is there, so that samples have masks only", file, len(entries))
    classes = _classes(root, index)
    return Dataset(str(path), classes, tuple(entries), Reader(file, index.encoding, entries, files, classes), files)


def write(path: Path | str, samples: Dataset | Iterable[Sample]) -> None:
    """Write samples as annotations.xml and images/; the module's docstring says how, and what is lost.

    Raises:
        OutputError: the place is not writable or already holds something, there is no sample, one is a volume, has no truth or
            an unsafe key, or a name holds a character that XML cannot.
    """
    root = Path(path)
    with Journal(root, "cvat", samples) as journal:
        for sample in journal.samples():
            folder, _, name = place_of(sample.key).rpartition("/")
            shapes = "".join(_shape_xml(*shape) for shape in _stacked_regions(sample))
            image = journal.write_image(sample, root / "images" / folder / name)
            subset = f" subset={quoteattr(folder)}" if folder else ""
            height, width = sample.grid.shape
            attributes = f'name={_attribute(image.name if image else f"{name}.png")}{subset} width="{width}" height="{height}"'
            journal.add(sample, {"xml": f" {attributes}>\n{shapes}  </image>\n"})
        if not all(journal.classes.is_thing):
            write_classes_file(root, journal.classes)
        with replacing(root / FILE) as file:
            file.write(_head_xml(journal.classes).encode())
            for number, record in enumerate(journal.records()):
                file.write(f'  <image id="{number}"{record["xml"]}'.encode())
            file.write(b"</annotations>\n")


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path if path.suffix.lower() == ".xml" else path / FILE


def _key_name(entry: Entry) -> str:
    """The path of an image without suffix below the folder of all images, its subset first."""
    name = entry.name.replace("\\", "/")
    stem = name.rpartition(".")[0] if name.lower().endswith(SUFFIXES) else name
    is_named = entry.subset.lower() in ("", "default") or stem.startswith(f"{entry.subset}/")
    return stem if is_named else f"{entry.subset}/{stem}"


def _image_file(images: ImageIndex, entry: Entry) -> Path | None:
    """The file of an image below the folder of the XML, if it is there."""
    name = entry.name.replace("\\", "/")
    names = [f"{entry.subset}/{name}", name] if entry.subset else [name]
    for below in (os.path.normpath(f"{folder}{name}") for folder in ("images/", "") for name in names):
        is_inside = not below.startswith(("..", "/")) and ":" not in below.partition("/")[0]
        if is_inside and below.lower().endswith(SUFFIXES) and os.path.isfile(images.root / below):  # noqa: PTH113
            return images.root / below  # Path.is_file would fail on names that are too long
    return images.find(names[0])


def _classes(root: Path, index: Index) -> Classes:
    if (root / CLASSES_FILE).is_file():
        return find_classes(root, ())
    colors: dict[str, Sequence[int] | None] = {}
    for label in index.labels:
        name, color = label.get("name", ""), label.get("color", "")
        if "parent" not in label and (label.get("type", "") in TYPES_WITH_MASK or name in index.used):
            colors.setdefault(name, tuple(bytes.fromhex(color[1:])) if COLOR.fullmatch(color) else None)
    for name in index.used:
        colors.setdefault(name, None)
    if not colors:
        raise FormatError(f"{index.path} names no label for polygons or masks; add one to the task and export it again")
    palette = [given or other for given, other in zip(colors.values(), distinct_colors(len(colors)), strict=True)]
    try:
        return Classes.of([*colors], colors=palette, is_thing=[True] * len(colors))
    except SettingError as error:
        raise FormatError(f"{index.path}: {error}") from error


def _truth(shapes: Sequence[Shape], drawing: Drawing, classes: Classes, place: str) -> Segmentation:
    """The objects of an image in the order in which they cover each other."""
    shape = drawing.shape
    parts: dict[tuple[str, int], list[tuple[int, np.ndarray]]] = {}  # by label and group; those without a group are alone
    painted = runs = 0
    for index, drawn in enumerate(shapes):
        counts = _draw(drawn, drawing)
        if counts is None:
            continue
        if is_blank(drawn.text("label")):
            drawing.leave_out(UNLABELLED)
            continue
        group = drawn.number("group_id", missing=0)
        name = drawn.text("label"), group if group > 0 else -1 - index
        parts.setdefault(name, []).append((drawn.number("z_order", missing=0), counts))
        painted, runs = painted + rle.area(counts), runs + len(counts)
        with naming(drawn.place):
            _check_memory(painted, "it and the shapes before it")
            if runs > cvat_rle.MAX_CHANGES:
                raise FormatError(f"it and the shapes before it have {runs:,} runs of pixels; cut the image into tiles")
    in_order = sorted(parts.items(), key=lambda entry: max(z for z, _ in entry[1]))
    regions, taken = [], set()
    things = {name for name, is_thing in zip(classes.names, classes.is_thing, strict=True) if is_thing}
    for (label, group), pieces in in_order:
        counts = pieces[0][1] if len(pieces) == 1 else rle.union([counts for _, counts in pieces], shape)
        is_numbered = group > 0 and group not in taken and label in things
        taken.add(group)
        regions.append(Region(label, counts, group if is_numbered else None))
    truth = segmentation(regions, shape, classes, place)
    if len(truth.planes) == 1:
        return truth
    with naming(place):
        return replace(truth, planes=_stack(truth, [region.counts for region in regions]))


def _stack(truth: Segmentation, regions: Sequence[np.ndarray]) -> np.ndarray:
    """Planes int32 (P, H, W) in which each region lies above those of other classes that it covers; reuses those given."""
    planes = truth.planes
    planes[:] = 0
    _, height, width = planes.shape
    for index, counts in enumerate(regions):
        is_free = np.ones(len(planes) + 1, bool)
        lowest = _lowest(planes, counts, truth.class_ids, truth.class_ids[index], is_free)
        depth = lowest + int(np.argmax(is_free[lowest:]))
        if depth == len(planes):
            _check_memory((depth + 1) * height * width, "shapes that cover each other")
            planes.resize((depth + 1, height, width), refcheck=False)  # no second copy: what is added is 0
        mask, (left, top) = rle.crop(counts, (height, width))
        planes[depth, top : top + mask.shape[0], left : left + mask.shape[1]][mask] = index + 1
    return planes


@njit(cache=True, nogil=True)
def _lowest(planes: np.ndarray, counts: np.ndarray, class_ids: np.ndarray, class_id: int, is_free: np.ndarray) -> int:
    """The lowest plane above all pixels of other classes that a region covers; where it covers anything is not free."""
    depth, height, _ = planes.shape
    lowest, position = 0, np.int64(0)
    for n in range(len(counts)):
        length = np.int64(counts[n])
        if n % 2:
            for place in range(position, position + length):
                for plane in range(depth):
                    segment = planes[plane, place % height, place // height]
                    if segment > 0:
                        is_free[plane] = False
                        if plane >= lowest and class_ids[segment - 1] != class_id:
                            lowest = plane + 1
        position += length
    return lowest


def _check_memory(pixels: int, what: str) -> None:
    if 4 * pixels > rle.MAX_BYTES:  # 4 bytes each
        raise FormatError(
            f"{what} need more than {rle.MAX_BYTES >> 30} GiB; cut the image into tiles, or remove shapes that are there twice"
        )


def _draw(drawn: Shape, drawing: Drawing) -> np.ndarray | None:
    """The run lengths (R,) of an element, None where it has no pixel."""
    if drawn.tag == "mask":
        return drawing.runs(_mask(drawn, drawing.shape))
    if drawn.tag == "box":
        left, top, right, bottom, degrees = _numbers(drawn, "xtl", "ytl", "xbr", "ybr")
        return drawing.box((left, top, right, bottom), drawn.place, degrees)
    if drawn.tag == "ellipse":
        x, y, radius_x, radius_y, degrees = _numbers(drawn, "cx", "cy", "rx", "ry")
        return drawing.ellipse((x, y), (radius_x, radius_y), drawn.place, degrees)
    if drawn.tag == "polygon" or is_polygon(drawn.tag, drawn.attributes.get("points", "").count(";") + 1):
        return drawing.polygon(_points(drawn), drawn.place)
    drawing.leave_out(of_kind(drawn.tag))
    return None


def _points(drawn: Shape) -> np.ndarray:
    """The corners (x, y) of a shape, float64 (V, 2)."""
    text = drawn.text("points")
    try:
        return np.array([[float(value) for value in pair.split(",")] for pair in text.split(";")]).reshape(-1, 2)
    except ValueError as error:
        raise FormatError(f"{drawn.place} has the points {text!r:.40}; x,y;x,y;... is needed") from error


def _numbers(drawn: Shape, *names: str) -> list[float]:
    """The attributes of these names and the rotation, in degrees."""
    texts = [drawn.text(name) for name in names] + [drawn.attributes.get("rotation", "0")]
    try:
        return [float(text) for text in texts]
    except ValueError as error:
        raise FormatError(f"{drawn.place} is {', '.join(texts)!r:.60}; numbers are needed, correct or remove it") from error


def _mask(drawn: Shape, shape: tuple[int, int]) -> np.ndarray:
    """The run lengths (R,) in the image of runs that go row by row through a box."""
    left, top, width, height = (drawn.number(name) for name in ("left", "top", "width", "height"))
    try:
        runs = [int(text) for text in drawn.text("rle").split(",")]
    except ValueError as error:
        raise FormatError(f"{drawn.place} has an rle that is no list of whole numbers ({error}); export it again") from error
    with naming(drawn.place):
        return cvat_rle.to_counts(runs, (left, top, width, height), shape)


def _stacked_regions(sample: Sample) -> Iterator[tuple[Region, int, int, tuple[int, ...]]]:
    """The segments of a sample that have pixels, with the group and the z_order that they get, and the shape of the image."""
    grouped = set()
    regions = [*regions_of(sample, "cvat")]
    truth = sample.truth
    depth = np.zeros(len(regions) + 1, np.int64)
    for number, plane in enumerate(truth.planes if truth is not None else ()):
        depth[np.maximum(np.unique(plane), 0)] = number
    for index, region in enumerate(regions):
        if rle.area(region.counts):
            group = 0 if region.instance_id in grouped else region.instance_id or 0
            grouped.add(region.instance_id)
            yield region, group, int(depth[index + 1]), sample.grid.shape


def _shape_xml(region: Region, group: int, z_order: int, shape: tuple[int, ...]) -> str:
    parts = polygons.trace_counts(region.counts, shape)
    if len(parts) == 1 and len(parts[0]) == 1:
        kind, points = "polygon", ";".join(f"{x},{y}" for x, y in parts[0][0].tolist())
        what = f'points="{points}"'
    else:
        runs, (left, top, width, height) = cvat_rle.of_counts(region.counts, shape)
        kind, text = "mask", ", ".join(map(str, runs))
        what = f'rle="{text}" left="{left}" top="{top}" width="{width}" height="{height}"'
    group_id = f' group_id="{group}"' if group else ""
    name = _attribute(region.name)
    return f'    <{kind} label={name} source="manual" occluded="0" {what} z_order="{z_order}"{group_id}/>\n'


def _head_xml(classes: Classes) -> str:
    labels = "".join(
        f"<label><name>{escape(_checked(name), AS_NUMBERS)}</name><color>#{bytes(color).hex()}</color><type>any</type>"
        "<attributes></attributes></label>\n"
        for name, color in zip(classes.names, classes.colors, strict=True)
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta><task><name>segwright</name>'
        f"<mode>annotation</mode><labels>\n{labels}  </labels></task></meta>\n"
    )


def _attribute(text: str) -> str:
    return quoteattr(_checked(text))


def _checked(text: str) -> str:
    if wrong := NO_XML.search(text):
        raise OutputError(f"{text!r} holds {wrong.group()!r}, which XML cannot; rename it")
    return text
