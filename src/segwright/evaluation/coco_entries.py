"""Truth and results in COCO's form, as objects or JSON files: their images, classes, entries by image, and masks as runs.

Axes: E entries, D entries of one image, (H, W) rows and columns.
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from numbers import Real
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from segwright.codecs import polygons, rle
from segwright.codecs.json_stream import parse
from segwright.core import Classes
from segwright.core.errors import FormatError, UsageError, naming
from segwright.core.spelling import composed
from segwright.metrics.rle_overlap import Runs

log = logging.getLogger(__name__)

Source = Path | str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)  # entries are checked as they are used
AGAIN = "export it again, or correct it"


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a truth by rising id: their ids, positions in `entries`, sizes (H, W), and keys to name them by."""

    entries: Sequence[Mapping[str, Any]]
    ids: list[Any]
    positions: list[int]
    shapes: list[tuple[int, int]]
    keys: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Entries:
    """Annotations or results, called `place`, by image: those of image i are at order[starts[i] : starts[i + 1]].

    `class_ids` int32 (E,) are those of all entries.
    """

    entries: Sequence[Mapping[str, Any]]
    class_ids: np.ndarray
    order: np.ndarray
    starts: np.ndarray
    place: str

    def __len__(self) -> int:
        return len(self.entries)

    def of_image(self, index: int) -> np.ndarray:
        """Positions int64 (D,) of the entries of an image, in the order of the file."""
        return self.order[self.starts[index] : self.starts[index + 1]]

    def of_images(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The same for the images from first to before end, one after another, and where each begins, int64 (N + 1,)."""
        starts = self.starts[first : end + 1]
        return self.order[starts[0] : starts[-1]], starts - starts[0]


class Content(NamedTuple):
    """What a JSON file holds, or what was given as objects, and how messages call it."""

    value: Any
    place: str


def content_of(given: "Source | Content", name: str) -> Content:
    """The content of a file or of objects, called `name` where it has no path; a content that is open already as it is.

    Raises:
        FormatError: the file is missing or no JSON.
    """
    if isinstance(given, Content):
        return given
    if not isinstance(given, Path | str):
        return Content(given, name)
    try:
        return Content(parse(ANYTHING, Path(given).read_bytes(), str(given)), str(given))
    except OSError as error:
        raise FormatError(f"{given} cannot be read ({error.strerror}); check the path") from error


def images_of(truth: Mapping[str, Any], place: str) -> Images:
    """The images of a truth.

    Raises:
        FormatError: it has no list of images, or one of them no id or size of its own.
    """
    if not isinstance(truth, Mapping) or not isinstance(truth.get("images"), Sequence):
        raise FormatError(f"{place} has no list of 'images'; give COCO's annotations, such as instances_val2017.json")
    entries, place = truth["images"], f"{place}: images"
    if not entries:
        raise FormatError(f"{place} are none, there is nothing to measure; give the annotations of the images predicted")
    ids, heights, widths = (column(entries, name, place) for name in ("id", "height", "width"))
    try:
        order = sorted(range(len(ids)), key=ids.__getitem__)
        shapes = [(int(heights[n]), int(widths[n])) for n in order]
    except (TypeError, ValueError) as error:
        raise FormatError(f"{place}: ids are not all numbers or all text, or sizes no numbers ({error}); {AGAIN}") from error
    for first, second in zip(order, order[1:], strict=False):
        if ids[first] == ids[second]:
            raise FormatError(f"{place}: [{first}] and [{second}] have one id, {ids[first]!r}; give each its own")
    keys = tuple(composed(PurePosixPath(str(entries[n].get("file_name", ids[n]))).stem) for n in order)
    if len(set(keys)) < len(keys):
        keys = tuple(str(ids[n]) for n in order)
    return Images(entries, [ids[n] for n in order], order, shapes, keys)


def classes_of(truth: Mapping[str, Any], place: str) -> tuple[Classes, list[Mapping[str, Any]]]:
    """The classes of a truth, all things, and their categories, by rising id. Equal names get their id.

    Raises:
        FormatError: there are no categories, or one has no id or name.
    """
    entries, place = truth.get("categories"), f"{place}: categories"
    if not isinstance(entries, Sequence) or not entries:
        raise FormatError(f"{place} are missing; add the list of classes, each with an id and a name")
    ids, names = column(entries, "id", place), column(entries, "name", place)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    if len(set(ids)) < len(ids):
        raise FormatError(f"{place}: an id is there twice; give each category its own")
    titles = [f"{names[n]} ({ids[n]})" if names.count(names[n]) > 1 else str(names[n]) for n in order]
    return Classes.of(titles, is_thing=[True] * len(titles)), [entries[n] for n in order]


def grouped(entries: Any, images: Images, categories: Sequence[Mapping[str, Any]], place: str, *, is_truth: bool) -> Entries:
    """Entries by image. Those of a truth whose image is not listed are left out, and counted in the log.

    Raises:
        FormatError: they are no list, or one has no category, or an image or category that the truth does not list.
    """
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise FormatError(f"{place}: a list is needed, {type(entries).__name__} was given; {AGAIN}")
    image_ids = looked_up(column(entries, "image_id", place), images.ids)
    class_ids = looked_up(column(entries, "category_id", place), [category["id"] for category in categories])
    for indices, name, what in ((image_ids, "image_id", "image"), (class_ids, "category_id", "category")):
        unknown = np.flatnonzero(indices < 0)
        if len(unknown) and is_truth and name == "image_id":
            log.warning("%s: %d of %d are of images not listed there and left out", place, len(unknown), len(entries))
        elif len(unknown):
            given = entries[unknown[0]][name]
            raise FormatError(
                f"{place}[{unknown[0]}]: {name} {given!r} is no {what} of the truth ({len(unknown)} entries of such); "
                "check that both belong together, and that ids are the truth's own, numbers or text as there"
            )
    order = np.argsort(image_ids, kind="stable")
    starts = np.searchsorted(image_ids[order], np.arange(len(images.ids) + 1))
    return Entries(entries, class_ids.astype(np.int32), order, starts, place)


def looked_up(given: Sequence[Any], known: Sequence[Any]) -> np.ndarray:
    """The places int64 (E,) of values among the known, -1 for others."""
    index_of: dict[Hashable, int] = {name: index for index, name in enumerate(known)}
    try:
        return np.fromiter(map(index_of.get, given, repeat(-1)), np.int64, len(given))
    except TypeError:  # a list or so, which cannot be an id
        return np.array([index_of.get(each, -1) if isinstance(each, Hashable) else -1 for each in given], np.int64)


def column(entries: Sequence[Mapping[str, Any]], name: str, place: str) -> list[Any]:
    """What all entries have under a key.

    Raises:
        FormatError: one does not have it.
    """
    try:
        return [*map(itemgetter(name), entries)]
    except (KeyError, TypeError, IndexError):
        lacks = next(n for n, entry in enumerate(entries) if not isinstance(entry, Mapping) or name not in entry)
        raise FormatError(f"{place}[{lacks}] has no {name!r}; {AGAIN}") from None


def numbers(values: Sequence[Any], name: str, place: str) -> np.ndarray:
    """Numbers float64 (E,) that all entries have under a key.

    Raises:
        UsageError: one is no number, or NaN.
    """
    try:
        array = np.array(values) if len(values) else np.zeros(0)
    except ValueError:  # lists of different lengths
        array = np.array("")
    if array.dtype.kind not in "biuf" or array.ndim != 1:
        wrong = next(n for n, value in enumerate(values) if not isinstance(value, Real))
        raise UsageError(f"{place}[{wrong}]: {name} is {values[wrong]!r}, a number is needed; {AGAIN}")
    if np.isnan(array).any():
        raise UsageError(
            f"{place}[{int(np.isnan(array).argmax())}]: {name} is NaN, a number is needed; leave the entry out, or look for a "
            "division by zero or an overflow in the model"
        )
    return array.astype(np.float64)


def boxes_of(entries: Sequence[Mapping[str, Any]], place: str) -> np.ndarray:
    """The boxes float64 (E, 4) of entries: left, top, width and height.

    Raises:
        FormatError: one has no box of four numbers.
    """
    values = column(entries, "bbox", place)
    try:
        has_four = {*map(len, values)} <= {4}
        boxes = np.fromiter(chain.from_iterable(values), np.float64, 4 * len(values)).reshape(-1, 4)
    except (TypeError, ValueError):
        has_four = False
    if not has_four or not np.isfinite(boxes).all():
        wrong = next(n for n, value in enumerate(values) if not _is_box(value))
        raise FormatError(f"{place}[{wrong}]: bbox is {values[wrong]!r}, left, top, width and height are needed; {AGAIN}")
    return boxes


def runs_of(entries: Entries, positions: np.ndarray, starts: np.ndarray, shapes: Sequence[tuple[int, int]]) -> Runs:
    """The runs of the masks of entries of N images (H, W) with these shapes, whose positions begin at `starts` (N + 1,).

    Raises:
        FormatError: one has no segmentation, or it is damaged or of another size.
    """
    try:
        given = [*map(itemgetter("segmentation"), map(entries.entries.__getitem__, positions.tolist()))]
        wanted = [*chain.from_iterable(map(repeat, map(list, shapes), np.diff(starts).tolist()))]
        if [*map(itemgetter("size"), given)] == wanted:  # without a new object for each, which would wake the collector
            return Runs.of_images([*map(itemgetter("counts"), given)], starts, shapes)
    except (KeyError, TypeError, IndexError, FormatError):
        pass  # other forms, or damaged: slower, but messages with a place
    each_image = zip(np.split(positions, starts[1:-1]), shapes, strict=True)
    return Runs.joined([Runs.of_counts([_counts(entries, p, shape) for p in own.tolist()], shape) for own, shape in each_image])


def _counts(entries: Entries, position: int, shape: tuple[int, int]) -> np.ndarray:
    """The run lengths (R,) of one mask."""
    entry, place = entries.entries[position], f"{entries.place}[{position}]"
    given = entry.get("segmentation")
    if not given:
        raise FormatError(f"{place} has no 'segmentation', masks are compared; export masks, or compare boxes")
    place += ".segmentation"
    if isinstance(given, Mapping):
        if list(given.get("size", ())) != list(shape):
            raise FormatError(
                f"{place}: run lengths of size {given.get('size')} for an image of {shape[0]} x {shape[1]} (rows x columns); "
                "export them again at the size of the image"
            )
        counts = given.get("counts")
        with naming(place):
            if isinstance(counts, bytes):
                counts = counts.decode("ascii", "replace")
            lengths = rle.from_text(counts) if isinstance(counts, str) else _integers(counts)
        rle.check(lengths, shape, place)
        return lengths
    with naming(place):
        try:
            rings = [np.array(ring, np.float64).reshape(-1, 2) for ring in given]
        except (TypeError, ValueError) as error:
            raise FormatError(f"it is neither run lengths nor polygons of two numbers per corner; {AGAIN}") from error
        drawn = [polygons.rasterise([ring], shape) for ring in rings]
    return drawn[0] if len(drawn) == 1 else rle.union(drawn, shape)


def _integers(counts: Any) -> np.ndarray:
    try:
        return np.array(counts, np.uint32).reshape(-1)
    except (OverflowError, TypeError, ValueError) as error:
        raise FormatError(f"the run lengths are no whole numbers from 0 on; {AGAIN}") from error


def _is_box(value: Any) -> bool:
    try:
        return np.array(value, np.float64).shape == (4,) and bool(np.isfinite(value).all())
    except (TypeError, ValueError):
        return False
