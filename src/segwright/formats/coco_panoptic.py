"""coco_panoptic: images, PNGs of coloured segments, and a JSON that says what each segment is.

    ROOT/annotations/panoptic_val2017.json          {"images": [...], "annotations": [...], "categories": [...]}
    ROOT/annotations/panoptic_val2017/NAME.png      the number of the segment at each pixel, R + 256 G + 65536 B; 0 is void
    ROOT/images/val/NAME.jpg                        images lie anywhere below ROOT; `file_name` tells which is which

The JSON may also lie in ROOT, or be given by its own path, and there may be several, one per part of the data set
(coco_files.py says how they are found and what the keys are); the folder of PNGs beside it is called like it. An annotation is
of one image; its `segments_info` gives each number its category. Classes are in the order of the categories' ids, things where
`isthing` is 1 or missing. Segments of things are numbered 1, 2, ... in each image, those with `iscrowd: 1` are regions of
objects that nobody told apart (number 0). Segments without a pixel, and those of a category that is not listed, whose pixels
are void then, are left out and counted.

Written are `segments_info` with `area` and `bbox`, and our own keys `instance_id` and `score`; the stuff of a class is one
segment, with the best of its scores, and so are the crowds of a class. Lost are overlaps (the later segment covers the
earlier), pixels of no segment (they become void), objects without a pixel and the size of pixels.

Axes: P planes, N segments, (H, W) pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from numba import njit
from pydantic import Field, TypeAdapter

from segwright.codecs import rle
from segwright.codecs.image_file import read_image
from segwright.codecs.image_writer import write_picture
from segwright.codecs.json_stream import write_json
from segwright.core import VOID, Classes, Dataset, Sample, Segmentation
from segwright.core.errors import FormatError, OutputError
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
from segwright.formats.drawn_shapes import NO_PIXEL, Drawing, of_category
from segwright.formats.image_index import as_spelt
from segwright.formats.named_objects import place_of, read_picture, truth_2d, unread_picture
from segwright.formats.resume_journal import Journal

LOSES = (
    "of overlapping objects the later covers the earlier, pixels of no segment become void, objects without a pixel and the "
    "size of pixels are not kept"
)
MAX_ID = 2**24 - 1  # three bytes
_THINGS = (  # of COCO itself, in the order of their ids; its instances have these classes alone
    "person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|bench|bird"
    "|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|skis|snowboard"
    "|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|cup|fork|knife|spoon"
    "|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|potted plant|bed|dining table"
    "|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|clock|vase|scissors"
    "|teddy bear|hair drier|toothbrush"
)
_STUFF = (
    "banner|blanket|bridge|cardboard|counter|curtain|door-stuff|floor-wood|flower|fruit|gravel|house|light|mirror-stuff|net"
    "|pillow|platform|playingfield|railroad|river|road|roof|sand|sea|shelf|snow|stairs|tent|towel|wall-brick|wall-stone"
    "|wall-tile|wall-wood|water-other|window-blind|window-other|tree-merged|fence-merged|ceiling-merged|sky-other-merged"
    "|cabinet-merged|table-merged|floor-other-merged|pavement-merged|mountain-merged|grass-merged|dirt-merged|paper-merged"
    "|food-other-merged|building-other-merged|rock-merged|wall-other-merged|rug-merged"
)
CLASSES = Classes.of(
    [*_THINGS.split("|"), *_STUFF.split("|")],
    is_thing=[True] * (_THINGS.count("|") + 1) + [False] * (_STUFF.count("|") + 1),
)
UNKNOWN = -2  # a pixel whose number is not in segments_info


@dataclass(slots=True)
class _Segment:
    id: int
    category_id: int
    iscrowd: bool = False
    instance_id: int | None = None
    score: Annotated[float, Field(ge=-3e38, le=3e38, allow_inf_nan=False)] = 1.0  # float32 reaches to 3.4e38


@dataclass(slots=True)
class _Annotation:
    file_name: str
    segments_info: list[_Segment]


ANNOTATION = TypeAdapter(_Annotation)


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads one sample by its key: its image, its PNG, and what the JSON says of its segments."""

    parts: list[Part]
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
        shape, name = part.shape(index), part.pictures[index].file_name
        place = f"{part.file.path}: images[{index}]"
        positions = part.annotations_of(index)
        image = picture(self.images.get(key), shape, place, name=name, is_needed=bool(self.images))
        if len(positions) != 1:
            raise FormatError(f"{place}: it has {len(positions)} annotations, one is needed; correct the file")
        place = f"{part.file.path}: annotations[{positions[0]}]"
        annotation = part.file.entry("annotations", positions[0], ANNOTATION)
        colors, path = _read_colors(part.file.path, annotation.file_name, shape)
        drawing = Drawing(shape)
        return drawing.sample(key, image, self._truth(annotation.segments_info, colors, drawing, place, path))

    def _truth(self, segments: list[_Segment], colors: np.ndarray, drawing: Drawing, place: str, path: Path) -> Segmentation:
        ids = np.array([segment.id if 0 < segment.id <= MAX_ID else 0 for segment in segments], np.int64)
        if len({*ids.tolist()} - {0}) < len(ids):
            raise FormatError(f"{place}.segments_info: ids are different numbers 1..{MAX_ID}; correct them")
        order = np.argsort(ids)
        segment_map = _look_up(colors, ids[order], (order + 1).astype(np.int32))
        if segment_map.min() == UNKNOWN:
            numbers = np.array([1, 1 << 8, 1 << 16]) @ colors[:, segment_map == UNKNOWN]
            number, count = np.unique(numbers, return_counts=True)
            raise FormatError(
                f"{path} holds the segment {number[0]} at {count[0]} pixels, which {place}.segments_info lacks; add it there, "
                "or make these pixels 0 if nobody knows what they are"
            )
        segment_map, kept = self._kept(segments, segment_map, drawing)
        class_ids, instance_ids = [], []
        taken = {segment.instance_id for segment in kept}
        free = (number for number in range(1, 2 * len(kept) + 2) if number not in taken)
        for index, segment in enumerate(kept):
            class_ids.append(self.class_of[segment.category_id])
            given = segment.instance_id
            if given is not None and not 0 <= given <= np.iinfo(np.int32).max:
                raise FormatError(f"{place}.segments_info[{index}]: an instance_id is {given}, which is no number of an object")
            if given is None:
                given = next(free) if self.classes.is_thing[class_ids[-1]] and not segment.iscrowd else 0
            instance_ids.append(0 if segment.iscrowd else given)
        scores = [segment.score for segment in kept]
        return Segmentation.panoptic(segment_map, class_ids, instance_ids, scores=scores, classes=self.classes)

    def _kept(self, segments: list[_Segment], segment_map: np.ndarray, drawing: Drawing) -> tuple[np.ndarray, list[_Segment]]:
        """The map and the segments without those that have no pixel, or a category that is not listed: that is void."""
        has_pixels = np.bincount(segment_map.ravel() + 1, minlength=len(segments) + 2)[2:] > 0  # after void and nothing
        number_of = np.zeros(len(segments) + 2, np.int32)
        number_of[0] = VOID
        kept = []
        for index, segment in enumerate(segments):
            if segment.category_id not in self.class_of:
                drawing.leave_out(of_category(segment.category_id))
                number_of[index + 2] = VOID
            elif not has_pixels[index]:
                drawing.leave_out(NO_PIXEL)
            else:
                kept.append(segment)
                number_of[index + 2] = len(kept)
        return (segment_map if len(kept) == len(segments) else number_of[segment_map + 1]), kept


def matches(path: Path | str) -> bool:
    """Whether a path is a JSON file with images, panoptic annotations and categories, or a folder with one."""
    return bool(json_files(Path(path), _is_kind))


def read(path: Path | str) -> Dataset:
    """The images of the JSON file or files, in their order; each is read when it is asked for.

    Raises:
        FormatError: the files are not as this module says. What is wrong with one image is found when its sample is read.
    """
    path = Path(path)
    opened = open_files(path, _is_kind, "COCO's panoptic segments", filled="file_name")
    reader = Reader(opened.parts, opened.places, opened.images, opened.classes, opened.class_of)
    return Dataset(str(path), opened.classes, tuple(opened.places), reader, opened.images, opened.left_out)


def write(path: Path | str, samples: Dataset | Iterable[Sample], *, ids: CocoIds | None = None) -> None:
    """Write samples as images/, annotations/panoptic.json and annotations/panoptic/; keys such as "train__a" as a part of it.

    Images and categories are numbered from 1 on, or as in the file that `ids` are of.

    Raises:
        OutputError: the place is not writable or already holds samples, there is no sample, or one has no truth, is a volume,
            or has an unsafe key or other classes than the first.
    """
    root, ids = Path(path), ids or CocoIds()
    with Journal(root, "coco_panoptic", samples) as journal:
        for sample in journal.samples():
            truth = _joined(truth_2d(sample, "coco_panoptic"))
            place = place_of(sample.key)
            part, _, name = place.rpartition("/")
            write_picture(root / "annotations" / _stem(part) / f"{name}.png", _colors(truth.planes[0], sample.key))
            file = journal.write_image(sample, root / "images" / place)
            height, width = truth.shape
            journal.add(
                sample,
                {
                    "part": part,
                    "image": {"file_name": file.name if file else f"{name}.png", "height": height, "width": width},
                    "annotation": {"file_name": f"{name}.png", "segments_info": list(_segments(truth))},
                },
            )
        numbers = ids.of_classes(journal.classes)
        for part in dict.fromkeys(record["part"] for record in journal.records()):
            of_images = ids.of_images(record["key"] for record in journal.records() if record["part"] == part)
            content = {
                "images": _images(journal, of_images),
                "annotations": _annotations(journal, of_images, numbers),
                "categories": write_categories(journal.classes, numbers),
            }
            write_json(root / "annotations" / f"{_stem(part)}.json", info("panoptic segments") | content)


def _is_kind(path: Path) -> bool:
    return is_panoptic(path) is True


def _read_colors(json_path: Path, name: str, shape: tuple[int, int]) -> tuple[np.ndarray, Path]:
    """The colours of the segments, uint8 (3, H, W), and the PNG they come from, in the folder called like the JSON.

    Raises:
        FormatError: the PNG is missing, damaged, or not of three channels and the size of the image.
    """
    path = as_spelt(json_path.with_suffix("") / PurePosixPath(name.replace("\\", "/")).name)
    image = read_image(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] not in (3, 4):
        raise FormatError(
            f"{path} has {image.shape[0]} channels of {image.dtype}, red, green and blue of 8 bits are needed, whose sum "
            "R + 256 G + 65536 B is the number of a segment"
        )
    if image.shape[1:] != shape:
        raise FormatError(
            f"{path} is {image.shape[1]} x {image.shape[2]} (rows x columns), its image {shape[0]} x {shape[1]}; "
            "export it again at the size of the image"
        )
    return image[:3], path


@njit(cache=True, nogil=True)
def _look_up(colors: np.ndarray, ids: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """The segment of each pixel, int32 (H, W), from colours (3, H, W), the sorted ids (N,) and their segments; 0 is void."""
    result = np.empty(colors.shape[1:], np.int32)
    last, segment = np.int64(0), np.int32(VOID)
    for row in range(colors.shape[1]):
        red, green, blue, out = colors[0, row], colors[1, row], colors[2, row], result[row]
        for column in range(len(out)):
            number = np.int64(red[column]) | np.int64(green[column]) << 8 | np.int64(blue[column]) << 16
            if number != last:  # neighbours are mostly of one segment
                place = np.searchsorted(ids, number)
                is_known = place < len(ids) and ids[place] == number
                segment = segments[place] if is_known else np.int32(VOID if number == 0 else UNKNOWN)
                last = number
            out[column] = segment
    return result


def _joined(truth: Segmentation) -> Segmentation:
    """The segments in one plane, 0 where there is none; a later plane covers an earlier one.

    The stuff of one class is one segment, as are the crowds of one class: who scores such files counts each entry as one.
    """
    segment_map = np.maximum(truth.planes[0], 0)
    for plane in truth.planes[1:]:
        segment_map = np.where(plane > 0, plane, segment_map)
    first: dict[int, int] = {}  # the segment of each class that is no object
    same = [
        index if truth.instance_ids[index] else first.setdefault(int(class_id), index)
        for index, class_id in enumerate(truth.class_ids)
    ]
    scores = truth.scores.copy()
    np.maximum.at(scores, same, truth.scores)
    if same != [*range(len(same))]:
        segment_map = np.array([0, *(1 + index for index in same)], np.int32)[segment_map]
    return replace(truth, planes=segment_map[None], scores=scores)


def _colors(segment_map: np.ndarray, key: str) -> np.ndarray:
    """The numbers of segments as colours, uint8 (H, W, 3)."""
    if segment_map.max(initial=0) > MAX_ID:
        raise OutputError(f"sample {key!r} has more than {MAX_ID} segments, which no panoptic PNG can hold; use coco")
    return np.stack([segment_map & 255, (segment_map >> 8) & 255, segment_map >> 16], axis=-1).astype(np.uint8)


def _segments(truth: Segmentation) -> Iterator[dict[str, Any]]:
    """The entries of `segments_info`, of the segments that can be seen."""
    for index, counts in enumerate(rle.of_segments(truth.planes, len(truth))):
        area, class_id, number = rle.area(counts), int(truth.class_ids[index]), int(truth.instance_ids[index])
        if not area:
            continue
        left, top, right, bottom = rle.box_xyxy(counts, truth.shape)
        is_crowd = truth.classes.is_thing[class_id] and not number
        entry: dict[str, Any] = {"id": index + 1, "category_id": class_id + 1, "iscrowd": int(is_crowd), "area": area}
        entry |= {"bbox": [left, top, right - left, bottom - top]}
        entry |= {"instance_id": number} if number else {}
        yield entry | ({} if truth.scores[index] == 1 else {"score": float(truth.scores[index])})


def _images(journal: Journal, ids: Mapping[str, Name]) -> Iterator[dict[str, Any]]:
    """The entries of the images that have an id."""
    for record in journal.records():
        if record["key"] in ids:
            yield {"id": ids[record["key"]], **record["image"]}


def _annotations(journal: Journal, ids: Mapping[str, Name], category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The annotations of the images that have an id; the journal numbers classes from 1 on."""
    for record in journal.records():
        if record["key"] in ids:
            segments = [
                segment | {"category_id": category_ids[segment["category_id"] - 1]}
                for segment in record["annotation"]["segments_info"]
            ]
            yield {"image_id": ids[record["key"]], **record["annotation"], "segments_info": segments}


def _stem(part: str) -> str:
    return f"panoptic_{part}" if part else "panoptic"
